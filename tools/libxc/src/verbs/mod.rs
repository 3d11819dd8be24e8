//! The verbs of a toolstack, by what they act on: a domain, its vCPUs, its memory, its state, the host.
//!
//! Each is one hypercall, or the few that Xen needs for one answer, with plain Rust types on the outside. They are methods
//! of [`Handle`]; [`crate::build`] puts them together into a domain.

pub mod copy;
pub mod domain;
pub mod host;
pub mod memory;
pub mod state;
pub mod vcpu;

use public_abi::Request;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::payload::{Payload, WrongPayload};
use public_abi::sysctl::{Sysctl, SysctlOp};

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::trap::Trap;

/// A command paired with parameters that are not its own: a mistake in a verb, caught by `public-abi`.
fn wrong(error: WrongPayload) -> Error {
    Error::Protocol(error.to_string())
}

impl<T: Trap> Handle<T> {
    /// A domctl without parameters.
    fn domctl_plain(&self, operation: DomctlOp, domain: u16) -> Result<()> {
        let mut request = Domctl::new(operation, domain);
        let call = |op| Request::Domctl { op };
        self.exchange(operation.name(), &mut request, Array::None, |_, _| (), call).map(|_| ())
    }

    /// A domctl with parameters, which `make` makes from the address of `array`. The answer: domain and parameters.
    fn domctl<P: Payload<Domctl>>(
        &self,
        operation: DomctlOp,
        domain: u16,
        array: Array<'_>,
        make: impl FnOnce(u64) -> P,
    ) -> Result<(u16, P)> {
        let mut request = Domctl::new(operation, domain);
        let mut paired = Ok(());
        let link = |request: &mut Domctl, address| paired = request.set(&make(address));
        let result = self.exchange(operation.name(), &mut request, array, link, |op| Request::Domctl { op });
        paired.map_err(wrong)?;
        result?;
        Ok((request.domain, request.get().map_err(wrong)?))
    }

    /// A sysctl with parameters, which `make` makes from the address of `array`. The answer: the parameters.
    fn sysctl<P: Payload<Sysctl>>(
        &self,
        operation: SysctlOp,
        array: Array<'_>,
        make: impl FnOnce(u64) -> P,
    ) -> Result<P> {
        let mut request = Sysctl::new(operation);
        let mut paired = Ok(());
        let link = |request: &mut Sysctl, address| paired = request.set(&make(address));
        let result = self.exchange(operation.name(), &mut request, array, link, |op| Request::Sysctl { op });
        paired.map_err(wrong)?;
        result?;
        request.get().map_err(wrong)
    }
}

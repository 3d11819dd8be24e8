//! Who may ask for what: which domain a request names, and whether the caller has power over it.
//!
//! Every control hypercall passes through here after it has read its argument and before it does anything. The errors and
//! their order are those of Xen 4.17 without a security module (xsm/dummy.h). Families add what their sub-operations need.

use super::Caller;
use crate::domain::Domain;
use crate::host::DomainRef;
use core::ops::Deref;
use machine::DomId;
use public_abi::domctl_domain::CreateDomainFlags;
use public_abi::domid::DOMID_SELF;
use public_abi::{Errno, hypercall};

/// The domain that a request is about.
pub enum Target<'a> {
    /// The caller itself.
    Own(&'a Domain),
    /// Another domain, kept from being removed.
    Other(DomainRef<'a>),
}

impl Target<'_> {
    /// Whether the caller asked about itself.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Refuses requests of a domain about itself.
    ///
    /// # Errors
    /// `error`, if the target is the caller.
    pub fn other_or(&self, error: Errno) -> Result<(), Errno> {
        if self.is_own() { Err(error) } else { Ok(()) }
    }
}

impl Deref for Target<'_> {
    type Target = Domain;
    fn deref(&self) -> &Domain {
        match self {
            Self::Own(domain) => domain,
            Self::Other(domain) => domain,
        }
    }
}

impl<'a> Caller<'a> {
    /// The domain with this number. `DOMID_SELF` is not one.
    ///
    /// # Errors
    /// `ESRCH`, if there is none.
    pub fn find(&self, id: u16) -> Result<Target<'a>, Errno> {
        if id == self.domain.id.0 {
            return Ok(Target::Own(self.domain));
        }
        self.host.domains.get(DomId(id)).map(Target::Other).ok_or(Errno::ESRCH)
    }

    /// The domain with this number, or the caller for `DOMID_SELF`.
    ///
    /// # Errors
    /// `ESRCH`, if there is none.
    pub fn find_any(&self, id: u16) -> Result<Target<'a>, Errno> {
        if id == DOMID_SELF { Ok(Target::Own(self.domain)) } else { self.find(id) }
    }

    /// Checks the `caller` column of a public-abi table. Sub-operations whose table says `Command` check for themselves.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn permit(&self, who: hypercall::Caller) -> Result<(), Errno> {
        let allowed = match who {
            hypercall::Caller::Any | hypercall::Caller::Command => true,
            // No domain has a device model in another domain yet: only the control domain serves others.
            hypercall::Caller::HardwareDomain | hypercall::Caller::Control | hypercall::Caller::DeviceModel => {
                self.domain.is_control()
            }
            hypercall::Caller::Xenstore => self.domain.is_control() || is_xenstore(self.domain),
        };
        if allowed { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Lets a domain ask about itself, and the control domain about all.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn permit_own_or_control(&self, target: &Target<'_>) -> Result<(), Errno> {
        if target.is_own() { Ok(()) } else { self.permit(hypercall::Caller::Control) }
    }
}

/// Whether a domain was created to run xenstored (`XEN_DOMCTL_CDF_xs_domain`).
#[must_use]
pub fn is_xenstore(domain: &Domain) -> bool {
    domain.settings.flags & CreateDomainFlags::XS_DOMAIN.bits() != 0
}

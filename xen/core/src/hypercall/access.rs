//! Who may ask for what: which domain a request names, and whether the caller has power over it.
//!
//! Every family passes through here after it has read its argument and before it does anything. The errors and their order
//! are those of Xen 4.17 without a security module (xsm/dummy.h): first the domain must exist, then the caller must have
//! power over it. Families add what their sub-operations need.

use super::Caller;
use crate::domain::Domain;
use crate::host::DomainRef;
use core::ops::Deref;
use machine::DomId;
use public_abi::domctl_domain::CreateDomainFlags;
use public_abi::domid::DOMID_SELF;
use public_abi::{Errno, hypercall};

/// Who may make a request about a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Everybody may: the request itself says what is allowed, such as a grant (`XSM_HOOK`).
    Nothing,
    /// A domain for itself, and the control domain for all (`XSM_TARGET`).
    SelfOrControl,
    /// The control domain alone (`XSM_PRIV`).
    Control,
}

/// The domain that a request is about.
pub enum Target<'a> {
    /// The caller itself.
    Own(&'a Domain),
    /// Another domain, kept from being removed.
    Other(DomainRef<'a>),
}

impl Deref for Target<'_> {
    type Target = Domain;
    #[inline]
    fn deref(&self) -> &Domain {
        match self {
            Self::Own(domain) => domain,
            Self::Other(domain) => domain,
        }
    }
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

impl<'a> Caller<'a> {
    /// The domain with this number. `DOMID_SELF` is not one.
    ///
    /// # Errors
    /// `ESRCH`, if there is none.
    #[inline]
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
    #[inline]
    pub fn find_any(&self, id: u16) -> Result<Target<'a>, Errno> {
        if id == DOMID_SELF { Ok(Target::Own(self.domain)) } else { self.find(id) }
    }

    /// As [`Caller::find_any`], if the caller may ask.
    ///
    /// # Errors
    /// `ESRCH`, if there is no such domain; `EPERM`, if the caller may not ask about it.
    #[inline]
    pub fn target(&self, id: u16, need: Need) -> Result<Target<'a>, Errno> {
        let found = self.find_any(id)?;
        let is_allowed = match (&found, need) {
            (_, Need::Nothing) | (Target::Own(_), Need::SelfOrControl) => true,
            _ => self.domain.is_control(),
        };
        if is_allowed { Ok(found) } else { Err(Errno::EPERM) }
    }

    /// As [`Caller::target`] with [`Need::Control`], for requests that only make sense for another domain.
    ///
    /// # Errors
    /// `EPERM` for the caller itself; else as [`Caller::target`].
    pub fn other_target(&self, id: u16) -> Result<Target<'a>, Errno> {
        let found = self.target(id, Need::Control)?;
        found.other_or(Errno::EPERM)?;
        Ok(found)
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
}

/// Whether a domain was created to run xenstored (`XEN_DOMCTL_CDF_xs_domain`).
#[must_use]
pub fn is_xenstore(domain: &Domain) -> bool {
    domain.settings.flags & CreateDomainFlags::XS_DOMAIN.bits() != 0
}

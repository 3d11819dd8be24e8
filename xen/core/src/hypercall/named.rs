//! The domain that a request names: the caller itself (DOMID_SELF or its own number) or another one.
//!
//! Used by the families whose requests act on the caller's own objects or, for the control domain, on others'.

use super::Caller;
use crate::domain::Domain;
use crate::host::DomainRef;
use core::ops::Deref;
use machine::DomId;
use public_abi::Errno;
use public_abi::domid::DOMID_SELF;

/// A domain that stays alive for as long as this does.
pub enum Named<'a> {
    /// The caller's own.
    Own(&'a Domain),
    /// Another one.
    Other(DomainRef<'a>),
}

impl Deref for Named<'_> {
    type Target = Domain;
    #[inline]
    fn deref(&self) -> &Domain {
        match self {
            Self::Own(domain) => domain,
            Self::Other(domain) => domain,
        }
    }
}

impl<'a> Named<'a> {
    /// The domain with this number; DOMID_SELF is the caller.
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn any(caller: &Caller<'a>, id: u16) -> Result<Self, Errno> {
        if id == DOMID_SELF { Ok(Self::Own(caller.domain)) } else { Self::by_number(caller, id) }
    }

    /// The domain with this number, which DOMID_SELF is not.
    ///
    /// # Errors
    /// ESRCH if there is none.
    pub fn by_number(caller: &Caller<'a>, id: u16) -> Result<Self, Errno> {
        if DomId(id) == caller.domain.id {
            return Ok(Self::Own(caller.domain));
        }
        caller.host.domains.get(DomId(id)).map(Self::Other).ok_or(Errno::ESRCH)
    }

    /// Whether the caller may act on it: it is the caller itself, or the caller administers others.
    pub fn may_be_changed_by(&self, caller: &Caller<'_>) -> bool {
        matches!(self, Self::Own(_)) || caller.domain.is_control()
    }

    /// As [`Named::may_be_changed_by`], as the error that hypercalls answer.
    ///
    /// # Errors
    /// EPERM.
    pub fn check(&self, caller: &Caller<'_>) -> Result<(), Errno> {
        if self.may_be_changed_by(caller) { Ok(()) } else { Err(Errno::EPERM) }
    }
}

//! Which domain a request names, and whether the caller may ask about it.
//!
//! The rules and the order of errors are those of Xen 4.17 without a security module (xsm/dummy.h): first the domain must
//! exist, then the caller must have power over it.

use super::Caller;
use crate::domain::Domain;
use crate::host::DomainRef;
use core::ops::Deref;
use machine::DomId;
use public_abi::Errno;
use public_abi::domid::DOMID_SELF;

/// Who may make a request.
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

/// The domain with a number, or the caller for `DOMID_SELF`.
///
/// # Errors
/// `ESRCH`, if there is none; `EPERM`, if the caller may not ask about it.
#[inline]
pub fn target<'a>(caller: &Caller<'a>, domid: u16, need: Need) -> Result<Target<'a>, Errno> {
    let found = find(caller, domid)?;
    let is_allowed = match (&found, need) {
        (_, Need::Nothing) | (Target::Own(_), Need::SelfOrControl) => true,
        _ => caller.domain.is_control(),
    };
    if is_allowed { Ok(found) } else { Err(Errno::EPERM) }
}

/// As [`target`], for requests that only make sense for another domain.
///
/// # Errors
/// `EPERM` for the caller itself; else as [`target`] with [`Need::Control`].
pub fn remote<'a>(caller: &Caller<'a>, domid: u16) -> Result<Target<'a>, Errno> {
    match find(caller, domid)? {
        Target::Own(_) => Err(Errno::EPERM),
        Target::Other(_) if !caller.domain.is_control() => Err(Errno::EPERM),
        other => Ok(other),
    }
}

#[inline]
fn find<'a>(caller: &Caller<'a>, domid: u16) -> Result<Target<'a>, Errno> {
    if domid == DOMID_SELF || domid == caller.domain.id.0 {
        return Ok(Target::Own(caller.domain));
    }
    caller.host.domains.get(DomId(domid)).map(Target::Other).ok_or(Errno::ESRCH)
}

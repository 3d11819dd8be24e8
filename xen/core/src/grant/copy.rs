//! Copying bytes between pages, each of them granted or the caller's own (GNTTABOP_copy).
//!
//! Network back-ends copy many small pieces between the same pages, so a page that the last piece used is kept for the next.

use super::Refusal;
use super::table::Purpose;
use crate::hypercall::Caller;
use crate::hypercall::access::{Need, Target};
use crate::p2m::{Access, PinError};
use machine::frame::Pin;
use machine::{DomId, Gfn, PAGE_SIZE, memory};
use public_abi::domid::DOMID_SELF;
use public_abi::grant_table::*;

/// What one side of a copy names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    /// A grant of a domain, by the number in the request.
    Grant(u16, u32),
    /// A guest frame of the caller's.
    Frame(u64),
}

impl Name {
    fn of(side: &CopyPtr, is_grant: bool) -> Result<Self, Refusal> {
        let [a, b, c, d, ..] = side.u.to_le_bytes();
        if is_grant {
            Ok(Self::Grant(side.domid, u32::from_le_bytes([a, b, c, d])))
        } else if side.domid == DOMID_SELF {
            Ok(Self::Frame(side.u))
        } else {
            Err(Refusal(GNTST_PERMISSION_DENIED))
        }
    }
}

/// A page in use for copying.
struct Claim<'a> {
    name: Name,
    /// Whose it is.
    domain: Target<'a>,
    page: Pin,
    /// Where its owner sees it.
    gfn: Gfn,
    access: Access,
}

/// Copies for one caller. Pages that are still in use are let go when it is dropped.
pub struct Copier<'c, 'a> {
    caller: &'c Caller<'a>,
    source: Option<Claim<'a>>,
    target: Option<Claim<'a>>,
}

impl<'c, 'a> Copier<'c, 'a> {
    /// Without pages in use.
    pub const fn new(caller: &'c Caller<'a>) -> Self {
        Self { caller, source: None, target: None }
    }

    /// Copies one piece.
    ///
    /// # Errors
    /// `GNTST_PERMISSION_DENIED` for a frame of another domain; `GNTST_BAD_DOMAIN`; as `GrantTable::acquire`; `GNTST_BAD_PAGE`
    /// for a frame that is not RAM of the caller's own; `GNTST_BAD_COPY_ARG` if the piece crosses a page.
    pub fn copy(&mut self, request: &GrantCopy) -> Result<(), Refusal> {
        let result = self.try_copy(request);
        if result.is_err() {
            self.let_go();
        }
        result
    }

    fn try_copy(&mut self, request: &GrantCopy) -> Result<(), Refusal> {
        let from = Name::of(&request.source, request.flags & GNTCOPY_SOURCE_GREF != 0)?;
        let from_domain = self.domain_unless_held(self.source.as_ref(), from, request.source.domid)?;
        let into = Name::of(&request.dest, request.flags & GNTCOPY_DEST_GREF != 0)?;
        // Both domains must be there before anything of either is used.
        let into_domain = self.domain_unless_held(self.target.as_ref(), into, request.dest.domid)?;
        let user = self.caller.domain.id;
        if let Some(domain) = from_domain {
            release(user, self.source.take());
            self.source = Some(claim(user, domain, from, Access::Read)?);
        }
        if let Some(domain) = into_domain {
            release(user, self.target.take());
            self.target = Some(claim(user, domain, into, Access::Write)?);
        }
        let (Some(source), Some(target)) = (&self.source, &self.target) else {
            return Err(Refusal(GNTST_GENERAL_ERROR));
        };
        let length = usize::from(request.len);
        let (start, place) = (usize::from(request.source.offset), usize::from(request.dest.offset));
        if start.max(place).saturating_add(length) > PAGE_SIZE {
            return Err(Refusal(GNTST_BAD_COPY_ARG));
        }
        target.domain.p2m.mark_dirty(target.gfn);
        if memory::copy(&source.page, start, &target.page, place, length) {
            Ok(())
        } else {
            Err(Refusal(GNTST_BAD_COPY_ARG))
        }
    }

    /// The domain of a side, unless its page is in use already.
    fn domain_unless_held(&self, held: Option<&Claim<'a>>, name: Name, id: u16) -> Result<Option<Target<'a>>, Refusal> {
        if held.is_some_and(|claim| claim.name == name) {
            return Ok(None);
        }
        self.caller.target(id, Need::Nothing).map(Some).map_err(|_| Refusal(GNTST_BAD_DOMAIN))
    }

    fn let_go(&mut self) {
        release(self.caller.domain.id, self.source.take());
        release(self.caller.domain.id, self.target.take());
    }
}

impl Drop for Copier<'_, '_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn claim(user: DomId, domain: Target<'_>, name: Name, access: Access) -> Result<Claim<'_>, Refusal> {
    let (page, gfn) = match name {
        Name::Grant(_, reference) => {
            let acquired = domain.grants.table().acquire(&domain, reference, user, access, Purpose::Copy)?;
            (acquired.page, acquired.gfn)
        }
        Name::Frame(frame) => {
            let gfn = Gfn::new(frame);
            let page = domain.p2m.pin_for_others(gfn, access).map_err(|error| match error {
                PinError::Paged => Refusal(GNTST_EAGAIN),
                PinError::NoRam | PinError::ReadOnly => Refusal(GNTST_BAD_PAGE),
            })?;
            (page, gfn)
        }
    };
    Ok(Claim { name, domain, page, gfn, access })
}

fn release(user: DomId, claim: Option<Claim<'_>>) {
    let Some(claim) = claim else { return };
    if let Name::Grant(_, reference) = claim.name {
        // Every piece has marked what it wrote.
        let _gfn = claim.domain.grants.table().release_use(reference, user, claim.access, claim.page.mfn());
    }
}

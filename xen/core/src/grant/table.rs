//! One domain's grants: the frames it shares, and which of the entries are in use by whom.
//!
//! The entry in the shared frame is the guest's and can change at any time; so it is taken over once, when it comes into use:
//! user, page and access are then the active entry's, and the guest sees READING and WRITING until the last user is gone
//! (public/grant_table.h, "active entries" of Xen's description). Active entries exist in chunks, as they are needed.

use super::Refusal;
use crate::domain::Domain;
use crate::guest_mem::SharedPage;
use crate::p2m::{Access, PinError};
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::boxed::{Boxed, OutOfMemory};
use machine::frame::Pin;
use machine::{DomId, Gfn, Mfn, PAGE_SIZE, memory};
use public_abi::grant_table::*;

/// Entries in a frame.
const PER_FRAME: u32 = 512;
const _: () = assert!(PAGE_SIZE / size_of::<GrantEntryV1>() == PER_FRAME as usize);
/// Active entries in a chunk.
const CHUNK: u32 = 64;
/// Users of one kind that an entry may have; Xen keeps 8-bit counts and stops in their middle.
const MOST_USERS: u8 = 128;
/// How often an entry that the guest keeps changing is tried.
const TRIES: u32 = 5;

/// What a user wants of a grant, besides access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To map it: the grant must be of the whole page.
    Map,
    /// To copy bytes.
    Copy,
}

/// A grant in use, or not.
#[derive(Debug)]
struct Active {
    /// The page, while in use.
    page: Option<Pin>,
    /// The granted guest frame.
    gfn: u32,
    user: DomId,
    readers: u8,
    writers: u8,
}

impl Active {
    const UNUSED: Self = Self { page: None, gfn: 0, user: DomId(0), readers: 0, writers: 0 };

    const fn is_used(&self) -> bool {
        self.readers != 0 || self.writers != 0
    }

    const fn users(&mut self, access: Access) -> &mut u8 {
        match access {
            Access::Read => &mut self.readers,
            Access::Write => &mut self.writers,
        }
    }
}

/// A use of a grant.
#[derive(Debug)]
pub struct Acquired {
    /// The page.
    pub page: Pin,
    /// The guest frame that the granting domain sees it at.
    pub gfn: Gfn,
}

/// The table.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<SharedPage>,
    active: Vec<Option<Boxed<[Active; CHUNK as usize]>>>,
}

const fn index(number: u32) -> usize {
    number as usize
}

impl GrantTable {
    /// Without frames.
    pub const fn new() -> Self {
        Self { frames: Vec::new(), active: Vec::new() }
    }

    /// Frames.
    pub fn frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// A frame.
    pub fn frame(&self, number: u32) -> Option<Mfn> {
        self.frames.get(index(number)).map(SharedPage::mfn)
    }

    /// Grows to so many frames; does not shrink.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the frames that it has then stay.
    pub fn grow(&mut self, owner: DomId, frames: u32) -> Result<(), OutOfMemory> {
        let missing = index(frames).saturating_sub(self.frames.len());
        self.frames.try_reserve(missing).map_err(|_| OutOfMemory)?;
        let chunks = index(PER_FRAME / CHUNK);
        self.active.try_reserve(missing.saturating_mul(chunks)).map_err(|_| OutOfMemory)?;
        for _ in 0..missing {
            self.frames.push(SharedPage::try_new(owner)?);
            let length = self.active.len().saturating_add(chunks);
            self.active.resize_with(length, || None);
        }
        Ok(())
    }

    /// The frame of an entry and its place there.
    #[inline]
    fn place(&self, reference: u32) -> Option<(&Pin, usize)> {
        let frame = self.frames.get(index(reference / PER_FRAME))?;
        Some((frame.pin(), index(reference % PER_FRAME).saturating_mul(size_of::<GrantEntryV1>())))
    }

    /// The word of flags (lower half) and domain of an entry.
    #[inline]
    fn header(&self, reference: u32) -> Option<&AtomicU32> {
        let (page, offset) = self.place(reference)?;
        memory::atomic::<u32>(page, offset)
    }

    fn active_mut(&mut self, reference: u32) -> Option<&mut Active> {
        let chunk = self.active.get_mut(index(reference / CHUNK))?.as_mut()?;
        chunk.get_mut(index(reference % CHUNK))
    }

    /// The active entry, made if need be.
    fn make_active(&mut self, reference: u32) -> Result<&mut Active, Refusal> {
        let place = self.active.get_mut(index(reference / CHUNK)).ok_or(Refusal(GNTST_BAD_GNTREF))?;
        if place.is_none() {
            let fresh = [const { Active::UNUSED }; index(CHUNK)];
            *place = Some(Boxed::try_new(fresh).map_err(|_| Refusal(GNTST_GENERAL_ERROR))?);
        }
        place.as_mut().and_then(|chunk| chunk.get_mut(index(reference % CHUNK))).ok_or(Refusal(GNTST_BAD_GNTREF))
    }

    /// Begins a use of a grant of `granter`, whose table this is, by `user`.
    ///
    /// # Errors
    /// `GNTST_BAD_GNTREF` for an entry that does not exist; `GNTST_GENERAL_ERROR` for one that does not grant this;
    /// `GNTST_BAD_PAGE` if there is no RAM of the granter's own; `GNTST_EAGAIN` if the pager has it.
    #[inline]
    pub fn acquire(
        &mut self,
        granter: &Domain,
        reference: u32,
        user: DomId,
        access: Access,
        purpose: Purpose,
    ) -> Result<Acquired, Refusal> {
        const REFUSED: Refusal = Refusal(GNTST_GENERAL_ERROR);
        if self.header(reference).is_none() {
            return Err(Refusal(GNTST_BAD_GNTREF));
        }
        let active = self.make_active(reference)?;
        let (was_used, had_writers) = (active.is_used(), active.writers != 0);
        if was_used && (active.user != user || *active.users(access) >= MOST_USERS) {
            return Err(REFUSED);
        }
        if !was_used || access == Access::Write && !had_writers {
            self.announce(reference, user, access, purpose, was_used)?;
            if let Err(refusal) = self.take_page(granter, reference, user, access) {
                self.settle(reference, access);
                return Err(refusal);
            }
        }
        let active = self.active_mut(reference).ok_or(REFUSED)?;
        let gfn = Gfn::new(u64::from(active.gfn));
        // One more reference, for the user; the active entry keeps its own.
        let page = active.page.as_ref().and_then(|page| Pin::take(page.mfn(), granter.id));
        let Some(page) = page else {
            self.settle(reference, access);
            return Err(REFUSED);
        };
        let users = active.users(access);
        *users = users.saturating_add(1);
        Ok(Acquired { page, gfn })
    }

    /// Sets READING, and WRITING for a writer, in an entry that grants this: in one step with the check, so that the guest
    /// cannot take the grant back in between.
    fn announce(
        &self,
        reference: u32,
        user: DomId,
        access: Access,
        purpose: Purpose,
        was_used: bool,
    ) -> Result<(), Refusal> {
        let header = self.header(reference).ok_or(Refusal(GNTST_BAD_GNTREF))?;
        let mask = GTF_TYPE_MASK | if purpose == Purpose::Map { GTF_SUB_PAGE } else { 0 };
        let wanted = if access == Access::Write { GTF_READING | GTF_WRITING } else { GTF_READING };
        let mut seen = header.load(Ordering::SeqCst);
        for _ in 0..TRIES {
            let (flags, domain) = split(seen);
            // What is in use was checked when it came into use, and stays granted until it is no longer used.
            let is_granted = was_used || flags & mask == GTF_PERMIT_ACCESS && domain == user.0;
            if !is_granted || access == Access::Write && flags & GTF_READONLY != 0 {
                return Err(Refusal(GNTST_GENERAL_ERROR));
            }
            match header.compare_exchange(seen, seen | u32::from(wanted), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
        Err(Refusal(GNTST_GENERAL_ERROR))
    }

    /// Fills the active entry; for one in use already, checks that its page may also be written.
    fn take_page(&mut self, granter: &Domain, reference: u32, user: DomId, access: Access) -> Result<(), Refusal> {
        let (frame, offset) = self.place(reference).ok_or(Refusal(GNTST_BAD_GNTREF))?;
        let granted = memory::atomic::<u32>(frame, offset + offset_of!(GrantEntryV1, frame))
            .ok_or(Refusal(GNTST_BAD_GNTREF))?
            .load(Ordering::SeqCst);
        let active = self.active_mut(reference).ok_or(Refusal(GNTST_BAD_GNTREF))?;
        let gfn = if active.is_used() { active.gfn } else { granted };
        let page = granter.p2m.pin_for_others(Gfn::new(u64::from(gfn)), access).map_err(|error| match error {
            PinError::Paged => Refusal(GNTST_EAGAIN),
            PinError::NoRam | PinError::ReadOnly => Refusal(GNTST_BAD_PAGE),
        })?;
        match &active.page {
            // The granter has put another page there since: what is in use stays, but nothing more is given.
            Some(used) if used.mfn() != page.mfn() => Err(Refusal(GNTST_GENERAL_ERROR)),
            Some(_) => Ok(()),
            None => {
                (active.page, active.gfn, active.user) = (Some(page), gfn, user);
                Ok(())
            }
        }
    }

    /// Ends a use. Gives the guest frame, if the user can have written it. Nothing happens for a use that is not there, as
    /// when the granting domain is another one of the same number.
    #[inline]
    pub fn release_use(&mut self, reference: u32, user: DomId, access: Access, page: Mfn) -> Option<Gfn> {
        let active = self.active_mut(reference)?;
        let is_it = active.user == user && active.page.as_ref().is_some_and(|used| used.mfn() == page);
        let users = active.users(access);
        if !is_it || *users == 0 {
            return None;
        }
        *users = users.saturating_sub(1);
        let gfn = Gfn::new(u64::from(active.gfn));
        self.settle(reference, access);
        (access == Access::Write).then_some(gfn)
    }

    /// Clears the bits that no user needs any more, and lets the page go after the last one.
    fn settle(&mut self, reference: u32, access: Access) {
        let Some(active) = self.active_mut(reference) else { return };
        let (is_used, has_writers) = (active.is_used(), active.writers != 0);
        let page = if is_used { None } else { active.page.take() };
        let mut clear = if is_used { 0 } else { GTF_READING };
        if access == Access::Write && !has_writers {
            clear |= GTF_WRITING;
        }
        if clear != 0
            && let Some(header) = self.header(reference)
        {
            header.fetch_and(!u32::from(clear), Ordering::SeqCst);
        }
        drop(page);
    }

    /// Exchanges two entries that are not in use.
    ///
    /// # Errors
    /// `GNTST_BAD_GNTREF`, `GNTST_EAGAIN`.
    pub fn swap(&mut self, first: u32, second: u32) -> Result<(), Refusal> {
        for reference in [first, second] {
            if self.header(reference).is_none() {
                return Err(Refusal(GNTST_BAD_GNTREF));
            }
        }
        if first == second {
            return Ok(());
        }
        for reference in [first, second] {
            if self.active_mut(reference).is_some_and(|active| active.is_used()) {
                return Err(Refusal(GNTST_EAGAIN));
            }
        }
        let word = |reference| self.place(reference).and_then(|(page, offset)| memory::atomic::<u64>(page, offset));
        let (Some(one), Some(two)) = (word(first), word(second)) else { return Err(Refusal(GNTST_BAD_GNTREF)) };
        let before = one.swap(two.load(Ordering::SeqCst), Ordering::SeqCst);
        two.store(before, Ordering::SeqCst);
        Ok(())
    }
}

/// Flags and domain of an entry's header.
const fn split(header: u32) -> (u16, u16) {
    let [a, b, c, d] = header.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

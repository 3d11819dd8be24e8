//! Grant tables: pages that a domain lets another one use.
//!
//! A granting domain writes entries into frames that it shares with the hypervisor (`table`); another one maps such a page
//! at a guest frame of its own (`map`, remembered in `maptrack`) or has bytes copied (`copy`). While a grant is in use the
//! entry says so in its READING and WRITING bits, and the hypervisor holds a reference to the page.
//!
//! Only version 1 of the entries is offered, as with Xen's `gnttab=max-ver:1`: Linux uses it in HVM and PVH guests unless
//! their memory needs more than 44 address bits.
//!
//! Two tables are never locked at once: a mapping's own side is reserved first, then the granting side changed, then the own
//! side finished.

pub mod copy;
pub mod map;
mod maptrack;
mod table;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use crate::domain::{Domain, Settings};
use crate::host::Host;
use crate::outcome::Stop;
use machine::boxed::OutOfMemory;
use machine::frame::{self, Pin};
use machine::lock::{Guard, Lock, rank};
use machine::{DomId, cpu};
use maptrack::Maptrack;
use public_abi::Errno;
use table::GrantTable;

/// Why an operation failed: a `GNTST_*` of public/grant_table.h, never `GNTST_OKAY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub i16);

/// The version of the entries.
pub const VERSION: u32 = 1;

/// What a domain grants and what it has mapped of others' grants.
#[derive(Debug)]
pub struct DomainGrants {
    id: DomId,
    max_frames: u32,
    table: Lock<GrantTable, { rank::GRANT }>,
    maptrack: Lock<Maptrack, { rank::GRANT }>,
}

impl DomainGrants {
    /// Nothing granted, in a table of one frame; nothing mapped.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(id: DomId, settings: &Settings) -> Result<Self, OutOfMemory> {
        let mut table = GrantTable::new();
        if settings.max_grant_frames > 0 {
            table.grow(id, 1)?;
        }
        Ok(Self {
            id,
            max_frames: settings.max_grant_frames,
            table: Lock::new(table),
            maptrack: Lock::new(Maptrack::new(settings.max_maptrack_frames)),
        })
    }

    #[inline]
    fn table(&self) -> Guard<'_, GrantTable, { rank::GRANT }> {
        self.table.lock()
    }

    #[inline]
    fn maptrack(&self) -> Guard<'_, Maptrack, { rank::GRANT }> {
        self.maptrack.lock()
    }

    /// Frames that the table has, and may have.
    pub fn size(&self) -> (u32, u32) {
        (self.table().frames(), self.max_frames)
    }

    /// Makes the table have at least `frames` frames.
    ///
    /// # Errors
    /// `EINVAL` for more than it may have, `ENOMEM`.
    pub fn grow(&self, frames: u32) -> Result<(), Errno> {
        if frames > self.max_frames {
            return Err(Errno::EINVAL);
        }
        self.table().grow(self.id, frames).map_err(|OutOfMemory| Errno::ENOMEM)
    }

    /// A frame of the table, to be mapped; the table grows to it if it may.
    ///
    /// # Errors
    /// `EINVAL` for a frame that the table cannot have, `ENOMEM`.
    pub fn shared_frame(&self, index: u32) -> Result<Pin, Errno> {
        self.grow(index.checked_add(1).ok_or(Errno::EINVAL)?)?;
        let mfn = self.table().frame(index).ok_or(Errno::EINVAL)?;
        Pin::take(mfn, self.id).ok_or(Errno::EINVAL)
    }

    /// Where the domain last saw a frame of its table; the highest number if it has not mapped it.
    pub fn frame_gfn(&self, index: u32) -> u64 {
        let mfn = self.table().frame(index);
        mfn.and_then(frame::gfn).map_or(u64::MAX, machine::Gfn::number)
    }

    /// Exchanges two entries that are not in use (GNTTABOP_swap_grant_ref).
    ///
    /// # Errors
    /// `GNTST_BAD_GNTREF` for an entry that does not exist, `GNTST_EAGAIN` for one that is in use.
    pub fn swap(&self, first: u32, second: u32) -> Result<(), Refusal> {
        self.table().swap(first, second)
    }
}

/// How many mappings are let go between two looks at whether others must run.
const PREEMPT_EVERY: u32 = 64;

/// Lets go of all that a dying domain has mapped of others' grants. Its guest frames still show the pages, but nothing of it
/// runs any more, and the p2m keeps its own references until it is taken apart. Restarts until it is done.
///
/// # Errors
/// Only `Restart`.
pub fn relinquish(host: &Host, domain: &Domain) -> Result<(), Stop> {
    let mut handle = domain.grants.maptrack().close();
    loop {
        let next = domain.grants.maptrack().take_next(handle);
        let Some((found, mapping)) = next else { return Ok(()) };
        map::release(host, domain, &mapping);
        domain.grants.maptrack().release(found);
        handle = found.saturating_add(1);
        if handle.is_multiple_of(PREEMPT_EVERY) && cpu::must_yield() {
            domain.grants.maptrack().cursor = handle;
            return Err(Stop::Restart(None));
        }
    }
}

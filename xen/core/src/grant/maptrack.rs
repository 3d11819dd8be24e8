//! Which grants of others a domain has mapped: a handle for each mapping.
//!
//! 16 bytes for a handle, in chunks that are allocated as they are needed; a freed handle is the next to be given out.

use super::Refusal;
use crate::p2m::Access;
use alloc::vec::Vec;
use machine::boxed::Boxed;
use machine::{DomId, Mfn};
use public_abi::grant_table::*;

/// Handles in a chunk, and in what the limit counts as a frame.
const CHUNK: u32 = 256;
/// The end of the list of free handles.
const NONE: u32 = u32::MAX;

/// A mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The page.
    pub page: Mfn,
    /// The entry in the granter's table.
    pub reference: u32,
    /// Who granted it.
    pub granter: DomId,
    /// What the mapping allows.
    pub access: Access,
}

/// What a handle is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Free; the next free one.
    Free(u32),
    /// Being mapped or unmapped.
    Busy,
    /// Mapped.
    Mapped(Mapping),
}

/// The handles.
#[derive(Debug)]
pub struct Maptrack {
    chunks: Vec<Boxed<[Place; CHUNK as usize]>>,
    first_free: u32,
    max_frames: u32,
    /// The domain is dying.
    is_closing: bool,
    /// Where a preempted end goes on.
    pub cursor: u32,
}

const fn index(number: u32) -> usize {
    number as usize
}

impl Maptrack {
    /// No handle; `max_frames` times 256 at the most.
    pub const fn new(max_frames: u32) -> Self {
        Self { chunks: Vec::new(), first_free: NONE, max_frames, is_closing: false, cursor: 0 }
    }

    fn place(&mut self, handle: u32) -> Option<&mut Place> {
        self.chunks.get_mut(index(handle / CHUNK))?.get_mut(index(handle % CHUNK))
    }

    /// A handle for a mapping that is about to be made.
    ///
    /// # Errors
    /// `GNTST_NO_SPACE` when all are in use, memory is out, or the domain is dying.
    pub fn reserve(&mut self) -> Result<u32, Refusal> {
        const FULL: Refusal = Refusal(GNTST_NO_SPACE);
        if self.is_closing {
            return Err(FULL);
        }
        if self.first_free == NONE {
            self.grow().ok_or(FULL)?;
        }
        let handle = self.first_free;
        let place = self.place(handle).ok_or(FULL)?;
        let Place::Free(next) = *place else { return Err(FULL) };
        *place = Place::Busy;
        self.first_free = next;
        Ok(handle)
    }

    fn grow(&mut self) -> Option<()> {
        let chunks = u32::try_from(self.chunks.len()).ok().filter(|chunks| *chunks < self.max_frames)?;
        self.chunks.try_reserve(1).ok()?;
        let first = chunks.checked_mul(CHUNK)?;
        let mut fresh = Boxed::try_new([Place::Free(NONE); index(CHUNK)]).ok()?;
        for (place, next) in fresh.iter_mut().zip(first.checked_add(1)?..first.checked_add(CHUNK)?) {
            *place = Place::Free(next);
        }
        self.chunks.push(fresh);
        self.first_free = first;
        Some(())
    }

    /// A reserved handle's mapping is there; also gives it back after an unmapping that failed.
    pub fn set(&mut self, handle: u32, mapping: Mapping) {
        if let Some(place) = self.place(handle) {
            *place = Place::Mapped(mapping);
        }
    }

    /// Frees a busy handle.
    pub fn release(&mut self, handle: u32) {
        let next = self.first_free;
        if let Some(place) = self.place(handle) {
            *place = Place::Free(next);
            self.first_free = handle;
        }
    }

    /// What a handle maps.
    ///
    /// # Errors
    /// `GNTST_BAD_HANDLE` if it maps nothing.
    pub fn get(&mut self, handle: u32) -> Result<Mapping, Refusal> {
        match self.place(handle) {
            Some(Place::Mapped(mapping)) => Ok(*mapping),
            _ => Err(Refusal(GNTST_BAD_HANDLE)),
        }
    }

    /// Makes a mapped handle busy, so that nobody else unmaps it.
    ///
    /// # Errors
    /// `GNTST_BAD_HANDLE` if it maps nothing, or somebody else is at it.
    pub fn take(&mut self, handle: u32) -> Result<Mapping, Refusal> {
        let mapping = self.get(handle)?;
        if let Some(place) = self.place(handle) {
            *place = Place::Busy;
        }
        Ok(mapping)
    }

    /// No handle is given out any more; where letting go begins, or goes on.
    pub const fn close(&mut self) -> u32 {
        self.is_closing = true;
        self.cursor
    }

    /// Makes the first mapped handle from `from` on busy.
    pub fn take_next(&mut self, from: u32) -> Option<(u32, Mapping)> {
        let end = u32::try_from(self.chunks.len()).ok()?.checked_mul(CHUNK)?;
        (from..end).find_map(|handle| self.take(handle).ok().map(|mapping| (handle, mapping)))
    }
}

const _: () = assert!(size_of::<Place>() == 16);

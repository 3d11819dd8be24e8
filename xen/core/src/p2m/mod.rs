//! The guest frame map of a domain: the one truth of what every guest frame is, and the transaction that changes it.

use crate::domain::Settings;
use alloc::vec::Vec;
use machine::boxed::OutOfMemory;
use machine::frame::Pin;
use machine::lock::{Lock, rank};
use machine::{DomId, Gfn, Mfn};

/// What a page is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read it.
    Read,
    /// To write it.
    Write,
}

/// A page cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinError;

/// A domain's guest frame map and the views derived from it.
#[derive(Debug)]
pub struct DomainP2m {
    root: Mfn,
    id: DomId,
    pages: Lock<Vec<(Gfn, Mfn)>, { rank::P2M }>,
}

impl DomainP2m {
    /// An empty map.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(id: DomId, _settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self { root: Mfn::new(0), id, pages: Lock::new(Vec::new()) })
    }

    /// The table that hardware walks.
    pub fn root(&self) -> Mfn {
        self.root
    }

    /// A reference to the page of a guest frame.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn pin(&self, gfn: Gfn, _access: Access) -> Result<Pin, PinError> {
        let mfn = self.pages.lock().iter().find(|page| page.0 == gfn).map(|page| page.1).ok_or(PinError)?;
        Pin::take(mfn, self.id).ok_or(PinError)
    }

    /// Adds a page, for tests.
    #[cfg(test)]
    pub fn add_for_test(&self, gfn: Gfn, mfn: Mfn) {
        self.pages.lock().push((gfn, mfn));
    }
}

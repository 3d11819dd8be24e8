//! The guest frame map of a domain: the one truth of what every guest frame is, and the transaction that changes it.

use crate::domain::Settings;
use machine::boxed::OutOfMemory;
use machine::{DomId, Mfn};

/// A domain's guest frame map and the views derived from it.
#[derive(Debug)]
pub struct DomainP2m {
    root: Mfn,
}

impl DomainP2m {
    /// An empty map.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(_id: DomId, _settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self { root: Mfn::new(0) })
    }

    /// The table that hardware walks.
    pub fn root(&self) -> Mfn {
        self.root
    }
}

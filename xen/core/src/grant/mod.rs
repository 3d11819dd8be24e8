//! Grant tables.

use crate::domain::Settings;
use machine::DomId;
use machine::boxed::OutOfMemory;

/// What a domain grants and what it has mapped of others' grants.
#[derive(Debug)]
pub struct DomainGrants {}

impl DomainGrants {
    /// Nothing granted.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(_id: DomId, _settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self {})
    }
}

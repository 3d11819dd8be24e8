//! Pages of the hypervisor that belong to a domain, as the modules that own them give them out: shared_info and the grant
//! table. `hypercall::memory` maps them; this file alone knows whom to ask.

use crate::domain::Domain;
use machine::frame::Pin;
use public_abi::Errno;

/// Which frames of a domain's grant table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantFrames {
    /// The entries.
    Shared,
    /// The status words of version 2.
    Status,
}

/// The domain's shared_info page.
///
/// # Errors
/// `EINVAL`, if it has none.
pub fn shared_info(domain: &Domain) -> Result<Pin, Errno> {
    Pin::take(domain.events.shared_info_mfn(), domain.id).ok_or(Errno::EINVAL)
}

/// A frame of the domain's grant table; the table grows to it if it may.
///
/// # Errors
/// `EINVAL` for a frame that the table cannot have; `ENOMEM`.
pub fn grant_frame(domain: &Domain, frames: GrantFrames, index: u64) -> Result<Pin, Errno> {
    match frames {
        GrantFrames::Shared => domain.grants.shared_frame(u32::try_from(index).map_err(|_| Errno::EINVAL)?),
        // Version 2 is not offered.
        GrantFrames::Status => Err(Errno::EINVAL),
    }
}

/// Frames that the domain's grant table may have at the most.
pub fn most_grant_frames(domain: &Domain, frames: GrantFrames) -> u32 {
    match frames {
        GrantFrames::Shared => domain.settings.max_grant_frames,
        // One 2-byte status word for each 16-byte entry of version 2.
        GrantFrames::Status => match domain.settings.max_grant_version {
            2 => domain.settings.max_grant_frames.div_ceil(8),
            _ => 0,
        },
    }
}

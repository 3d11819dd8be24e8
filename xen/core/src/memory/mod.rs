//! Memory verbs: check both sides, then apply both.
//!
//! `hypercall::memory` decodes and checks who may ask; the verbs here decide what happens to frames, and `p2m` writes it
//! down. In the order in which a domain meets them: `identity` (the control domain's own pages), `populate`, `map` (pages
//! of the hypervisor, of other domains, granted ones), `remove` (ballooning), `claim`, `account`, and `destroy`.

mod account;
mod claim;
mod destroy;
mod identity;
mod map;
mod populate;
mod remove;
mod replace;
pub mod special;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_end;
#[cfg(test)]
mod tests_identity;
#[cfg(test)]
mod tests_model;

pub use account::Accounting;
pub use claim::{claim, release_claim};
pub use destroy::relinquish;
pub use identity::{adopt, map_device, map_reserved, mark_emulated, unmap_device};
pub use map::{foreign_page, map_foreign, map_grant, map_shared, move_frame, remove_from_physmap, unmap_grant};
pub use populate::{MAX_ORDER, populate};
pub use remove::decrease;

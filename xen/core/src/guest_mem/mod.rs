//! The only door to guest memory.
//!
//! [`LinearMemory`] is where hypercall pointers lead: it walks the caller's own page tables (`walk`) and keeps what it found
//! ([`Pages`]). [`PhysicalMemory`] is
//! memory by guest physical address, for emulated devices and the toolstack. [`SharedPage`] is a page of the hypervisor that
//! a guest may map. All of them copy by value, fetch each byte once, and mark what they write as dirty in one function
//! (INV-8).
//!
//! What comes before: the families of `hypercall`. What comes after: `p2m`, `machine::memory`.

mod linear;
mod pages;
mod physical;
mod run;
mod shared;
#[cfg(test)]
mod tests;
mod walk;

pub use linear::LinearMemory;
pub use pages::Pages;
pub use physical::PhysicalMemory;
pub use run::Run;
pub use shared::SharedPage;

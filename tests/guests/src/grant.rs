//! The grant table, version 1: its frames and entries.

use core::sync::atomic::Ordering;

use public_abi::grant_table::{GTF_PERMIT_ACCESS, GrantEntryV1};
use public_abi::memory::MapSpace;
use rt::memory;

use crate::shared;

/// The first frame of the table, mapped in place of one of our pages.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    page: u64,
}

impl Table {
    /// Maps frame 0.
    ///
    /// # Errors
    /// The hypercall's result.
    pub fn map() -> Result<Self, i64> {
        let page = memory::take_pages(1);
        match shared::map_space(MapSpace::GrantTable, 0, page >> 12) {
            0 => Ok(Self { page }),
            error => Err(error),
        }
    }

    fn address(self, reference: u32) -> u64 {
        self.page + u64::from(reference) * size_of::<GrantEntryV1>() as u64
    }

    /// Lets `domain` use the page at `address`; `flags` in addition to the type.
    pub fn permit(self, reference: u32, domain: u16, address: u64, flags: u16) {
        memory::write(self.address(reference) + 4, (address >> 12) as u32);
        memory::write(self.address(reference) + 2, domain);
        memory::atomic_16(self.address(reference)).store(GTF_PERMIT_ACCESS | flags, Ordering::SeqCst);
    }

    /// The entry's flags.
    #[must_use]
    pub fn flags(self, reference: u32) -> u16 {
        memory::atomic_16(self.address(reference)).load(Ordering::SeqCst)
    }

    /// Ends a grant.
    pub fn clear(self, reference: u32) {
        memory::atomic_16(self.address(reference)).store(0, Ordering::SeqCst);
    }
}

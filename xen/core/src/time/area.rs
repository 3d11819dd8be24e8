//! A small structure in guest memory that the hypervisor keeps up to date: run state and time areas.
//!
//! The guest names it by a linear address, and it may cross a page. Both pages are pinned when it is registered, so that it
//! can be written at any time, whoever runs, without walking the guest's page tables. (Xen walks them at each update. Guests
//! do not move these areas after registering them.)

use core::sync::atomic::{Ordering, fence};
use machine::PAGE_SIZE;
use machine::frame::Pin;
use machine::memory;
use public_abi::Errno;

/// The place.
#[derive(Debug)]
pub struct Area {
    first: Pin,
    offset: usize,
    /// The page of the rest, if it crosses one.
    second: Option<Pin>,
}

impl Area {
    /// The `length` bytes at a linear address, which `pin` turns into a writable page and a place in it.
    ///
    /// # Errors
    /// What `pin` says; EFAULT if the address wraps around.
    pub fn try_new(
        address: u64,
        length: usize,
        mut pin: impl FnMut(u64) -> Result<(Pin, usize), Errno>,
    ) -> Result<Self, Errno> {
        let (first, offset) = pin(address)?;
        let in_first = PAGE_SIZE.saturating_sub(offset);
        let second = if in_first < length {
            let rest =
                u64::try_from(in_first).ok().and_then(|bytes| address.checked_add(bytes)).ok_or(Errno::EFAULT)?;
            Some(pin(rest)?.0)
        } else {
            None
        };
        Ok(Self { first, offset, second })
    }

    /// Writes bytes `at` bytes into the structure. What would lie beyond the pinned pages is left out.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let start = self.offset.saturating_add(at);
        let split = PAGE_SIZE.saturating_sub(start).min(bytes.len());
        let (here, there) = bytes.split_at(split);
        // Both are inside their pages: `split` ends at the page's end, and a structure is smaller than a page.
        let is_written = here.is_empty() || memory::write(&self.first, start, here);
        if let Some(second) = self.second.as_ref().filter(|_| is_written && !there.is_empty()) {
            let is_rest_written = memory::write(second, start.saturating_sub(PAGE_SIZE), there);
            debug_assert!(is_rest_written, "a structure is smaller than a page");
        }
        fence(Ordering::Release);
    }

    /// Reads bytes back that the guest may have changed. What lies beyond the pinned pages stays as it is in `bytes`.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        let start = self.offset.saturating_add(at);
        let split = PAGE_SIZE.saturating_sub(start).min(bytes.len());
        let (here, there) = bytes.split_at_mut(split);
        let is_read = here.is_empty() || memory::read(&self.first, start, here);
        if let Some(second) = self.second.as_ref().filter(|_| is_read && !there.is_empty()) {
            let is_rest_read = memory::read(second, start.saturating_sub(PAGE_SIZE), there);
            debug_assert!(is_rest_read, "a structure is smaller than a page");
        }
    }
}

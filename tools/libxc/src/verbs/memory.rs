//! Memory of a domain: populating it, and its map. Copying into it is in [`super::copy`].

use public_abi::memory::{E820Entry, ForeignMemoryMap, MemoryMap, MemoryOp, MemoryReservation, PodTarget};
use public_abi::{Errno, GuestPtr, Request};
use zerocopy::IntoBytes;

use image::GpaRange;

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::plan::layout::{self, MapEntry};
use crate::trap::Trap;

/// Sizes of memory that the hypervisor maps as one, as powers of two in pages, largest first: 1 GiB, 2 MiB, 4 KiB.
const ORDERS: [u32; 3] = [18, 9, 0];
/// Extents in one call.
const MOST_EXTENTS: u64 = 1024;

impl<T: Trap> Handle<T> {
    /// Puts memory under all of `range`. With `large`, in pieces as large as alignment and the hypervisor's memory allow.
    pub fn populate(&self, domain: u16, range: GpaRange, large: bool) -> Result<()> {
        let orders = if large { &ORDERS[..] } else { &ORDERS[2..] };
        let end = layout::first_gfn(range) + layout::pages(range);
        let mut next = layout::first_gfn(range);
        // What was refused in a large size is not asked for again in that size.
        let mut refused_below = [0; ORDERS.len()];
        while next < end {
            let mut placed = 0;
            for (index, &order) in orders.iter().enumerate() {
                let size = 1 << order;
                let count = ((end - next) / size).min(MOST_EXTENTS);
                if count == 0 || !next.is_multiple_of(size) || next < refused_below[index] {
                    continue;
                }
                // A smaller size stops where a larger one can go on.
                let count = match index.checked_sub(1).map(|larger| 1 << orders[larger]) {
                    Some(larger) => count.min(((next + 1).next_multiple_of(larger) - next).div_ceil(size)),
                    None => count,
                };
                placed = self.populate_extents(domain, next, order, count)?;
                if placed < count {
                    refused_below[index] = next + count * size;
                }
                next += placed * size;
                if placed > 0 {
                    break;
                }
            }
            if placed == 0 {
                return Err(Error::Protocol(format!(
                    "the hypervisor is out of memory: {} of {} pages are missing",
                    end - next,
                    layout::pages(range)
                )));
            }
        }
        Ok(())
    }

    /// Has `pages` set aside for a domain, those included that it has; 0 gives up what it has not got yet.
    pub fn claim_pages(&self, domain: u16, pages: u64) -> Result<()> {
        let mut request = MemoryReservation { nr_extents: pages, domid: domain, ..MemoryReservation::default() };
        let operation = MemoryOp::ClaimPages;
        let call = |arg| Request::MemoryOp { cmd: operation.number().into(), arg };
        match self.exchange(operation.name(), &mut request, Array::None, |_, _| (), call) {
            Err(Error::Hypercall { errno: Errno::ENOMEM, .. }) => {
                Err(Error::Protocol(format!("the hypervisor is out of memory: {pages} pages of RAM cannot be claimed")))
            }
            other => other.map(|_| ()),
        }
    }

    /// Populates `count` extents from `gfn` on; gives how many there was memory for.
    fn populate_extents(&self, domain: u16, gfn: u64, order: u32, count: u64) -> Result<u64> {
        let extents: Vec<u64> = (0..count).map(|index| gfn + (index << order)).collect();
        let mut request =
            MemoryReservation { nr_extents: count, extent_order: order, domid: domain, ..MemoryReservation::default() };
        let operation = MemoryOp::PopulatePhysmap;
        self.exchange(
            operation.name(),
            &mut request,
            Array::In(extents.as_bytes()),
            |request, address| request.extent_start = GuestPtr::from_address(address),
            |arg| Request::MemoryOp { cmd: operation.number().into(), arg },
        )
    }

    /// Tells the hypervisor the memory map that it shows to the domain.
    pub fn set_memory_map(&self, domain: u16, map: &[MapEntry]) -> Result<()> {
        let entries: Vec<E820Entry> =
            map.iter().map(|entry| E820Entry::new(entry.range.start(), entry.range.len(), entry.kind)).collect();
        let nr_entries = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let mut request = ForeignMemoryMap {
            domid: domain,
            map: MemoryMap { nr_entries, ..MemoryMap::default() },
            ..ForeignMemoryMap::default()
        };
        let operation = MemoryOp::SetMemoryMap;
        self.exchange(
            operation.name(),
            &mut request,
            Array::In(entries.as_bytes()),
            |request, address| request.map.buffer = GuestPtr::from_address(address),
            |arg| Request::MemoryOp { cmd: operation.number().into(), arg },
        )
        .map(|_| ())
    }

    /// Tells the hypervisor how many pages a domain shall have, which matters to one that was started with less memory
    /// than its address space has (populate on demand).
    pub fn set_pod_target(&self, domain: u16, target_pages: u64) -> Result<()> {
        let mut request = PodTarget { target_pages, domid: domain, ..PodTarget::default() };
        let operation = MemoryOp::SetPodTarget;
        let call = |arg| Request::MemoryOp { cmd: operation.number().into(), arg };
        self.exchange(operation.name(), &mut request, Array::None, |_, _| (), call).map(|_| ())
    }
}

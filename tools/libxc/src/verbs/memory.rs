//! Memory of a domain: populating it, its map, and copying into it.

use public_abi::memory::{E820Entry, ForeignMemoryMap, MemoryMap, MemoryOp, MemoryReservation, PodTarget};
use public_abi::{Errno, GuestPtr, Request};
use zerocopy::IntoBytes;

use image::GpaRange;

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::plan::layout::{self, MapEntry, PAGE};
use crate::trap::{Foreign, Trap};

/// Sizes of memory that the hypervisor maps as one, as powers of two in pages, largest first: 1 GiB, 2 MiB, 4 KiB.
const ORDERS: [u32; 3] = [18, 9, 0];
/// Extents in one call.
const MOST_EXTENTS: u64 = 1024;
/// Pages mapped at a time when copying: enough to make the cost of a mapping small, few enough for a soft real-time
/// kernel, which unmaps page by page.
const WINDOW: u64 = 512;

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

    /// Opens a domain's memory for copying.
    pub fn guest_memory(&self, domain: u16) -> GuestMemory<'_, T> {
        GuestMemory { handle: self, domain, window: None }
    }
}

/// A domain's memory, seen through a window of mapped pages that moves along.
pub struct GuestMemory<'a, T: Trap> {
    handle: &'a Handle<T>,
    domain: u16,
    window: Option<Window<T>>,
}

struct Window<T: Trap> {
    /// First frame in it.
    first: u64,
    pages: T::Foreign,
}

impl<T: Trap> GuestMemory<'_, T> {
    /// Copies bytes to an address. `limit` is the end of the populated range that the bytes lie in: no page beyond it is
    /// mapped.
    pub fn write(&mut self, address: u64, bytes: &[u8], limit: u64) -> Result<()> {
        self.pieces(address, bytes.len() as u64, limit, |pages, offset, done, count| {
            pages.write_at(offset, &bytes[done..done + count]);
        })
    }

    /// Sets `length` bytes from an address on to zero.
    pub fn clear(&mut self, address: u64, length: u64, limit: u64) -> Result<()> {
        self.pieces(address, length, limit, |pages, offset, _, count| pages.clear_at(offset, count))
    }

    /// Goes through a range window by window: `act` gets the window, the offset in it, the bytes done and the bytes to do.
    fn pieces(
        &mut self,
        address: u64,
        length: u64,
        limit: u64,
        mut act: impl FnMut(&mut T::Foreign, usize, usize, usize),
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let at = address + done;
            let window = self.window_at(at / PAGE, limit.div_ceil(PAGE))?;
            let offset = at - window.first * PAGE;
            let count = (length - done).min(window.pages.len() as u64 - offset);
            act(&mut window.pages, offset as usize, done as usize, count as usize);
            done += count;
        }
        Ok(())
    }

    /// The window that has a frame in it: the present one, or a new one up to the next multiple of the window's size.
    fn window_at(&mut self, gfn: u64, end: u64) -> Result<&mut Window<T>> {
        let inside = |window: &Window<T>| {
            gfn.checked_sub(window.first).is_some_and(|index| index * PAGE < window.pages.len() as u64)
        };
        let kept = self.window.take().filter(inside);
        let window = match kept {
            Some(window) => window,
            None => {
                let last = (gfn + 1).next_multiple_of(WINDOW).min(end.max(gfn + 1));
                let gfns: Vec<u64> = (gfn..last).collect();
                Window { first: gfn, pages: self.handle.trap().foreign(self.domain, &gfns)? }
            }
        };
        Ok(self.window.insert(window))
    }
}

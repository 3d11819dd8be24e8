//! Copying into a domain's memory.
//!
//! A control domain that is a PVH guest pays for each page that it maps of another domain: two hypercalls, and a flush. So long
//! copies are left to the hypervisor, by a request that was made for debuggers (gdbsx_guestmemio) and knows nothing of them; Xen
//! can be built without it, and then pages are mapped, as for what is short.

use public_abi::Errno;
use public_abi::domctl::DomctlOp;
use public_abi::domctl_debug::GdbsxMemio;

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::plan::layout::PAGE;
use crate::trap::{Buf, Foreign, Trap};

/// Pages mapped at a time when copying: enough to make the cost of a mapping small, few enough for a soft real-time
/// kernel, which unmaps page by page.
const WINDOW: u64 = 512;
/// Bytes that the hypervisor copies at a time: the buffer is memory that the kernel keeps in place, so it is not large.
const BUFFER: usize = 256 << 10;
/// From so many bytes on it is worth the buffer.
const LEAST: usize = 64 << 10;
/// Without paging a processor has addresses of 32 bits.
const REACH: u64 = 1 << 32;

impl<T: Trap> Handle<T> {
    /// Opens a domain's memory for copying.
    pub fn guest_memory(&self, domain: u16) -> GuestMemory<'_, T> {
        GuestMemory { handle: self, domain, window: None, copies: Copies::Unknown }
    }

    /// Has the hypervisor copy the first `length` bytes of a buffer to an address that is one of the domain's physical addresses as
    /// long as its first vCPU has not turned paging on.
    fn copy_to_domain(&self, domain: u16, address: u64, buffer: &T::Buf, length: usize) -> Result<()> {
        let len = u32::try_from(length).map_err(|_| Error::Protocol(format!("{length} bytes are no copy")))?;
        let request = GdbsxMemio { gva: address, uva: buffer.address(), len, gwr: 1, ..GdbsxMemio::default() };
        self.domctl(DomctlOp::GdbsxGuestMemio, domain, Array::None, |_| request).map(|_| ())
    }
}

/// A domain's memory: a window of mapped pages that moves along, and long copies by the hypervisor.
pub struct GuestMemory<'a, T: Trap> {
    handle: &'a Handle<T>,
    domain: u16,
    window: Option<Window<T>>,
    copies: Copies<T>,
}

/// Whether the hypervisor copies.
enum Copies<T: Trap> {
    /// It has not been asked yet.
    Unknown,
    /// It does, out of this buffer.
    From(T::Buf),
    /// It does not.
    Never,
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
        let is_in_reach = address.checked_add(bytes.len() as u64).is_some_and(|end| end <= REACH);
        let by_hypervisor = if bytes.len() >= LEAST && is_in_reach { self.have_copied(address, bytes)? } else { 0 };
        let rest = &bytes[by_hypervisor..];
        self.pieces(address + by_hypervisor as u64, rest.len() as u64, limit, |pages, offset, done, count| {
            pages.write_at(offset, &rest[done..done + count]);
        })
    }

    /// Has the hypervisor copy bytes; gives how many it has. It may be built without that, and refuses what is not RAM of the
    /// domain's, which is for the mapping to report.
    fn have_copied(&mut self, address: u64, bytes: &[u8]) -> Result<usize> {
        let (handle, domain) = (self.handle, self.domain);
        let mut done = 0;
        for part in bytes.chunks(BUFFER) {
            let buffer = match &mut self.copies {
                Copies::Never => break,
                Copies::From(buffer) => buffer,
                unknown => {
                    *unknown = Copies::From(handle.trap().alloc(BUFFER)?);
                    let Copies::From(buffer) = unknown else { break };
                    buffer
                }
            };
            buffer.write_at(0, part);
            match handle.copy_to_domain(domain, address + done as u64, buffer, part.len()) {
                Ok(()) => done += part.len(),
                Err(Error::Hypercall { errno: Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EFAULT, .. }) => {
                    self.copies = Copies::Never;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
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

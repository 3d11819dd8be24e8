//! Copying into a domain's memory.
//!
//! A control domain that is a PVH guest pays for each page that it maps of another domain: two hypercalls, and a flush. So long
//! copies are left to the hypervisor, by a request that was made for debuggers (gdbsx_guestmemio) and knows nothing of them; Xen
//! can be built without it, and then pages are mapped, as for what is short.

use std::ops::Range;
use std::os::unix::fs::FileExt;

use public_abi::Errno;
use public_abi::domctl::DomctlOp;
use public_abi::domctl_debug::GdbsxMemio;

use crate::build::Payload;
use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::plan::layout::PAGE;
use crate::trap::{Buf, Foreign, Trap};

/// Pages mapped at a time when copying: enough to make the cost of a mapping small, few enough for a soft real-time
/// kernel, which unmaps page by page.
const WINDOW: u64 = 512;
/// Bytes that the hypervisor copies at a time: the buffer is memory that the kernel keeps in place, so it is not large.
const BUFFER: u64 = 512 << 10;
/// From so many bytes on it is worth the buffer.
const LEAST: u64 = 64 << 10;
/// How Oxen's extra version ends.
const OXEN: &str = "oxen";
/// Without paging a processor has addresses of 32 bits.
const REACH: u64 = 1 << 32;

impl<T: Trap> Handle<T> {
    /// Opens a domain's memory for copying.
    pub fn guest_memory(&self, domain: u16) -> GuestMemory<'_, T> {
        GuestMemory { handle: self, domain, window: None, copies: Copies::Unknown, holds: Holds::Anything }
    }

    /// The same, for memory that nothing was written to since the domain was given it.
    pub fn fresh_memory(&self, domain: u16) -> GuestMemory<'_, T> {
        GuestMemory { holds: Holds::WhatItCameWith, ..self.guest_memory(domain) }
    }

    /// Whether memory that a domain is given is zero for sure: Oxen's is. Xen's may hold what a domain has ballooned out.
    fn gives_zeroes(&self) -> Result<bool> {
        Ok(self.extra_version()?.ends_with(OXEN))
    }

    /// Has the hypervisor copy bytes of a buffer to an address that is one of the domain's physical addresses as
    /// long as its first vCPU has not turned paging on.
    fn copy_to_domain(&self, domain: u16, address: u64, buffer: &T::Buf, bytes: Range<usize>) -> Result<()> {
        let length = bytes.len();
        let len = u32::try_from(length).map_err(|_| Error::Protocol(format!("{length} bytes are no copy")))?;
        let uva = buffer.address() + bytes.start as u64;
        let request = GdbsxMemio { gva: address, uva, len, gwr: 1, ..GdbsxMemio::default() };
        self.domctl(DomctlOp::GdbsxGuestMemio, domain, Array::None, |_| request).map(|_| ())
    }
}

/// Pages of a buffer that go the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Run {
    /// There is something in them.
    Bytes(Range<usize>),
    /// They are there already.
    Zeroes(Range<usize>),
}

impl Run {
    fn len(&self) -> usize {
        let (Run::Bytes(bytes) | Run::Zeroes(bytes)) = self;
        bytes.len()
    }
}

/// The runs of a buffer's first `length` bytes.
fn runs(length: usize, mut is_zero: impl FnMut(Range<usize>) -> bool) -> Vec<Run> {
    let mut runs = Vec::new();
    for start in (0..length).step_by(PAGE as usize) {
        let page = start..length.min(start + PAGE as usize);
        match (runs.last_mut(), is_zero(page.clone())) {
            (Some(Run::Zeroes(run)), true) | (Some(Run::Bytes(run)), false) => run.end = page.end,
            (_, true) => runs.push(Run::Zeroes(page)),
            (_, false) => runs.push(Run::Bytes(page)),
        }
    }
    runs
}

fn reading(error: std::io::Error) -> Error {
    Error::system("reading what is to be loaded", error)
}

/// A domain's memory: a window of mapped pages that moves along, and long copies by the hypervisor.
pub struct GuestMemory<'a, T: Trap> {
    handle: &'a Handle<T>,
    domain: u16,
    window: Option<Window<T>>,
    copies: Copies<T>,
    holds: Holds,
}

/// What is in the memory before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// It is not known.
    Anything,
    /// What the hypervisor has given; it has not been asked yet what that is.
    WhatItCameWith,
    /// Zeroes.
    Zeroes,
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
    pub fn write(&mut self, address: u64, bytes: Payload<'_>, limit: u64) -> Result<()> {
        let length = bytes.len();
        let is_in_reach = address.checked_add(length).is_some_and(|end| end <= REACH);
        let done = if length >= LEAST && is_in_reach { self.have_copied(address, &bytes)? } else { 0 };
        self.pieces(address + done, length - done, limit, |pages, offset, at, count| {
            match bytes.part(done + at as u64, count as u64) {
                Some(Payload::Bytes(bytes)) => pages.write_at(offset, bytes),
                Some(Payload::File { file, offset: from, .. }) => {
                    let mut bytes = vec![0; count];
                    file.read_exact_at(&mut bytes, from).map_err(reading)?;
                    pages.write_at(offset, &bytes);
                }
                None => {}
            }
            Ok(())
        })
    }

    /// Has the hypervisor copy bytes; gives how many it has. It may be built without that, and refuses what is not RAM of the
    /// domain's, which is for the mapping to report.
    fn have_copied(&mut self, address: u64, bytes: &Payload<'_>) -> Result<u64> {
        let (handle, domain) = (self.handle, self.domain);
        if self.holds == Holds::WhatItCameWith {
            self.holds = if handle.gives_zeroes()? { Holds::Zeroes } else { Holds::Anything };
        }
        let skips = self.holds == Holds::Zeroes && address.is_multiple_of(PAGE);
        let mut done = 0;
        while let Some(part) = bytes.part(done, (bytes.len() - done).min(BUFFER)).filter(|part| !part.is_empty()) {
            let buffer = match &mut self.copies {
                Copies::Never => break,
                Copies::From(buffer) => buffer,
                unknown => {
                    let spare = handle.spare.take();
                    *unknown = Copies::From(spare.map_or_else(|| handle.trap().alloc(BUFFER as usize), Ok)?);
                    let Copies::From(buffer) = unknown else { break };
                    buffer
                }
            };
            let length = part.len() as usize;
            match part {
                Payload::Bytes(bytes) => buffer.write_at(0, bytes),
                Payload::File { file, offset, .. } => buffer.read_file(file, offset, length).map_err(reading)?,
            }
            let mut copied = Ok(());
            for run in runs(length, |bytes| skips && buffer.is_zero(bytes.start, bytes.len())) {
                if let Run::Bytes(bytes) = &run {
                    copied = handle.copy_to_domain(domain, address + done, buffer, bytes.clone());
                    if copied.is_err() {
                        break;
                    }
                }
                done += run.len() as u64;
            }
            match copied {
                Ok(()) => {}
                Err(Error::Hypercall { errno: Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EFAULT, .. }) => {
                    self.copies = Copies::Never;
                }
                Err(error) => return Err(error),
            }
        }
        // The next copy finds it again.
        match std::mem::replace(&mut self.copies, Copies::Unknown) {
            Copies::From(buffer) => drop(handle.spare.replace(Some(buffer))),
            other => self.copies = other,
        }
        Ok(done)
    }

    /// Sets `length` bytes from an address on to zero.
    pub fn clear(&mut self, address: u64, length: u64, limit: u64) -> Result<()> {
        self.pieces(address, length, limit, |pages, offset, _, count| {
            pages.clear_at(offset, count);
            Ok(())
        })
    }

    /// Goes through a range window by window: `act` gets the window, the offset in it, the bytes done and the bytes to do.
    fn pieces(
        &mut self,
        address: u64,
        length: u64,
        limit: u64,
        mut act: impl FnMut(&mut T::Foreign, usize, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let at = address + done;
            let window = self.window_at(at / PAGE, limit.div_ceil(PAGE))?;
            let offset = at - window.first * PAGE;
            let count = (length - done).min(window.pages.len() as u64 - offset);
            act(&mut window.pages, offset as usize, done as usize, count as usize)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_go_together() {
        const P: usize = PAGE as usize;
        let zero = |pages: &'static [usize]| move |bytes: Range<usize>| pages.contains(&(bytes.start / P));
        assert_eq!(runs(0, zero(&[])), []);
        assert_eq!(runs(5, zero(&[0])), [Run::Zeroes(0..5)]);
        assert_eq!(runs(3 * P + 1, zero(&[])), [Run::Bytes(0..3 * P + 1)]);
        let mixed =
            [Run::Zeroes(0..2 * P), Run::Bytes(2 * P..3 * P), Run::Zeroes(3 * P..4 * P), Run::Bytes(4 * P..4 * P + 9)];
        assert_eq!(runs(4 * P + 9, zero(&[0, 1, 3])), mixed);
    }

    #[test]
    fn zeroes_are_all_zero() {
        for length in [0, 1, 31, 32, 33, 256, 259] {
            assert!(crate::trap::is_zero(&vec![0; length]));
            for place in [0, 7, 31, 32, 255, 258].into_iter().filter(|place| *place < length) {
                for bit in [0, 127] {
                    let mut words = vec![0; length];
                    words[place] = 1 << bit;
                    assert!(!crate::trap::is_zero(&words), "{place} of {length}");
                }
            }
        }
    }
}

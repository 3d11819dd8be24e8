//! Access to the content of RAM pages that guests share with the hypervisor.
//!
//! No Rust reference to such memory ever exists, because a guest may write it at any time: copies are volatile and fetch
//! each byte once, and shared words are atomics whose borrow cannot outlive the [`Pin`] that keeps the page.

use crate::arch;
use crate::frame::Pin;
use crate::units::{Mfn, PAGE_SIZE};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// Zeroes a page.
pub fn zero_page(mfn: Mfn) {
    // SAFETY: `page` gives the address of a whole mapped page; the caller's page is being given a new owner, so that
    // nobody else relies on its content. Volatile is not needed: the compiler sees an opaque address.
    unsafe { core::ptr::write_bytes(page(mfn), 0, PAGE_SIZE) }
}

/// Copies from a page, starting `offset` bytes into it. False (and nothing copied) if that would cross the page's end.
#[must_use]
#[inline]
pub fn read(pin: &Pin, offset: usize, out: &mut [u8]) -> bool {
    if !fits(offset, out.len()) {
        return false;
    }
    let mut from = page(pin.mfn()).wrapping_add(offset);
    // Most often it is one word.
    if from.addr().is_multiple_of(8)
        && let Ok(word) = <&mut [u8; 8]>::try_from(&mut *out)
    {
        // SAFETY: inside the page by the check above, aligned by the test above; else as below.
        *word = unsafe { from.cast::<u64>().read_volatile() }.to_le_bytes();
        return true;
    }
    // Words if the place is aligned for them, else halves of words, else bytes; what is left of a word goes byte by byte.
    let mut rest = out;
    if from.addr().is_multiple_of(8) {
        rest = read_units::<8>(&mut from, rest, |place| {
            // SAFETY: `read_units` stays inside of `rest`, and with it of the page by the check above; aligned by the test
            // above. The page is mapped for the hypervisor's whole life, and a racing guest write can only make the value
            // one or the other.
            unsafe { place.cast::<u64>().read_volatile() }.to_le_bytes()
        });
        if rest.is_empty() {
            return true;
        }
    }
    if from.addr().is_multiple_of(4) {
        rest = read_units::<4>(&mut from, rest, |place| {
            // SAFETY: as above.
            unsafe { place.cast::<u32>().read_volatile() }.to_le_bytes()
        });
    }
    read_units::<1>(&mut from, rest, |place| {
        // SAFETY: as above; bytes need no alignment.
        [unsafe { place.read_volatile() }]
    });
    true
}

/// Fills as much of `out` as `N` bytes at a time can, from `from` on. Gives what is left.
#[inline]
fn read_units<'o, const N: usize>(
    from: &mut *mut u8,
    out: &'o mut [u8],
    read: impl Fn(*mut u8) -> [u8; N],
) -> &'o mut [u8] {
    let (units, rest) = out.as_chunks_mut::<N>();
    for unit in units {
        *unit = read(*from);
        *from = from.wrapping_add(N);
    }
    rest
}

/// Copies to a page, starting `offset` bytes into it. False (and nothing copied) if that would cross the page's end.
#[must_use]
#[inline]
pub fn write(pin: &Pin, offset: usize, bytes: &[u8]) -> bool {
    if !fits(offset, bytes.len()) {
        return false;
    }
    let base = page(pin.mfn()).wrapping_add(offset);
    let (words, rest) = if base.addr().is_multiple_of(8) { bytes.as_chunks::<8>() } else { (&[][..], bytes) };
    for (word, value) in words.iter().enumerate() {
        let place = base.cast::<u64>().wrapping_add(word);
        // SAFETY: inside the page by the check above, aligned by the test above; only raw pointers and atomics reach
        // guest pages, so no reference is invalidated.
        unsafe { place.write_volatile(u64::from_le_bytes(*value)) };
    }
    for (byte, value) in rest.iter().enumerate() {
        // SAFETY: inside the page by the check above.
        unsafe { base.wrapping_add(words.len() * 8 + byte).write_volatile(*value) };
    }
    true
}

/// Copies `length` bytes from one page to another, or within one. False (and nothing copied) if that would cross the end of
/// either.
#[must_use]
pub fn copy(source: &Pin, from: usize, target: &Pin, to: usize, length: usize) -> bool {
    if !fits(from, length) || !fits(to, length) {
        return false;
    }
    let (from, to) = (page(source.mfn()).wrapping_add(from), page(target.mfn()).wrapping_add(to));
    // SAFETY: inside both pages by the check above, which may be the same page; only raw pointers and atomics reach guest
    // pages. Nobody looks at the bytes, so it does not matter if a guest changes them meanwhile.
    unsafe { core::ptr::copy(from, to, length) };
    true
}

/// Fills `length` bytes of a page with `value`. False (and nothing written) if that would cross the page's end.
#[must_use]
pub fn fill(pin: &Pin, offset: usize, length: usize, value: u8) -> bool {
    if !fits(offset, length) {
        return false;
    }
    // SAFETY: inside the page by the check above; only raw pointers and atomics reach guest pages.
    unsafe { core::ptr::write_bytes(page(pin.mfn()).wrapping_add(offset), value, length) };
    true
}

#[inline]
fn fits(offset: usize, length: usize) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= PAGE_SIZE)
}

#[inline]
fn page(mfn: Mfn) -> *mut u8 {
    arch::page_address(mfn)
}

/// An aligned word of 8 bytes in a page of RAM that stays where it is. Found once and read often: a read is one load.
/// It holds a [`Pin`] of the page without the room for one.
#[derive(Debug)]
pub struct PinnedWord(core::ptr::NonNull<AtomicU64>);

// SAFETY: what it points to is mapped on all processors and is only ever loaded, atomically.
unsafe impl Send for PinnedWord {}
// SAFETY: as above.
unsafe impl Sync for PinnedWord {}

impl PinnedWord {
    /// The word `offset` bytes into the page; `None` if it is not aligned or crosses the page's end.
    pub fn new(pin: Pin, offset: usize) -> Option<Self> {
        let word = core::ptr::NonNull::from_ref(atomic::<u64>(&pin, offset)?);
        pin.into_entry();
        Some(Self(word))
    }

    /// Whether it lies in a frame.
    #[inline]
    pub fn lies_in(&self, mfn: Mfn) -> bool {
        arch::lies_in(self.0.as_ptr().cast(), mfn)
    }

    /// The page that it lies in.
    pub fn into_pin(self) -> Pin {
        let page = arch::page_of(self.0.as_ptr().cast());
        // Its reference of the page goes to the pin.
        core::mem::forget(self);
        Pin::from_entry(page)
    }

    /// Reads it.
    #[inline]
    pub fn load(&self) -> u64 {
        // SAFETY: `atomic` made the pointer from a valid reference, and the pin's reference has kept the page since.
        unsafe { self.0.as_ref() }.load(core::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for PinnedWord {
    fn drop(&mut self) {
        drop(Pin::from_entry(arch::page_of(self.0.as_ptr().cast())));
    }
}

/// Integers that have an atomic form of the same size and place.
pub trait Shareable: private::Sealed {
    /// The atomic form.
    type Atomic;
}

mod private {
    pub trait Sealed {}
}

macro_rules! shareable {
    ($($plain:ty => $atomic:ty),*) => {
        $(
            impl private::Sealed for $plain {}
            impl Shareable for $plain {
                type Atomic = $atomic;
            }
        )*
    };
}
shareable!(u8 => AtomicU8, u16 => AtomicU16, u32 => AtomicU32, u64 => AtomicU64);

/// The atomic integer `offset` bytes into a page: `None` if it is not aligned or crosses the page's end.
#[inline]
pub fn atomic<T: Shareable>(pin: &Pin, offset: usize) -> Option<&T::Atomic> {
    let size = size_of::<T::Atomic>();
    if !fits(offset, size) || !offset.is_multiple_of(size) {
        return None;
    }
    let place = page(pin.mfn()).wrapping_add(offset).cast::<T::Atomic>();
    // SAFETY: inside a mapped page and aligned by the checks above. The pin, which the borrow cannot outlive, keeps the
    // page from becoming anything that is accessed other than by atomics, volatile copies, or the guest.
    Some(unsafe { &*place })
}

//! Memory by address: plain and fault-catching accesses, and pages for tests to use up.
//!
//! Tests share memory with the hypervisor and with devices, by addresses that no Rust object has; all of that goes
//! through the volatile accesses here.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::trap::{self, Fault};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// Pages that a guest can take.
pub const POOL_PAGES: usize = 768;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u8; 4096]; POOL_PAGES]>);
// SAFETY: pages are handed out once; whoever takes one decides who uses it.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; 4096]; POOL_PAGES]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Takes zeroed pages, never to be given back. The address is virtual and guest physical at once.
#[must_use]
pub fn take_pages(count: usize) -> u64 {
    let first = TAKEN.fetch_add(count, Ordering::SeqCst);
    assert!(first + count <= POOL_PAGES, "out of pages");
    POOL.0.get().expose_provenance() as u64 + first as u64 * PAGE_SIZE
}

/// An integer that one instruction reads or writes.
pub trait Word: Copy {
    /// Reads it at `address`; a fault is a panic.
    fn read(address: u64) -> Self;
    /// Writes it at `address`; a fault is a panic.
    fn write(address: u64, value: Self);
    /// Reads it at `address`.
    ///
    /// # Errors
    /// The fault.
    fn try_read(address: u64) -> Result<Self, Fault>;
    /// Writes it at `address`.
    ///
    /// # Errors
    /// The fault.
    fn try_write(address: u64, value: Self) -> Result<(), Fault>;
}

macro_rules! word {
    ($type:ty, $class:ident, $suffix:literal) => {
        impl Word for $type {
            fn read(address: u64) -> Self {
                let value: Self;
                // SAFETY: the address is the test's; a bad one ends in a panic.
                unsafe {
                    asm!(concat!("mov {value", $suffix, "}, [{address}]"), value = out($class) value,
                        address = in(reg) address, options(nostack, preserves_flags, readonly));
                }
                value
            }

            fn write(address: u64, value: Self) {
                // SAFETY: the address is the test's, of memory that no Rust reference covers.
                unsafe {
                    asm!(concat!("mov [{address}], {value", $suffix, "}"), value = in($class) value,
                        address = in(reg) address, options(nostack, preserves_flags));
                }
            }

            fn try_read(address: u64) -> Result<Self, Fault> {
                let value: Self;
                trap::arm();
                // SAFETY: as in `read`; a fault continues at the label 2.
                unsafe {
                    asm!("lea {resume}, [rip + 2f]", "mov gs:[8], {resume}",
                        concat!("mov {value", $suffix, "}, [{address}]"), "2:", "mov qword ptr gs:[8], 0",
                        resume = out(reg) _, value = inout($class) <$type>::MIN => value, address = in(reg) address,
                        options(nostack));
                }
                trap::outcome().map(|()| value)
            }

            fn try_write(address: u64, value: Self) -> Result<(), Fault> {
                trap::arm();
                // SAFETY: as in `write`; a fault continues at the label 2.
                unsafe {
                    asm!("lea {resume}, [rip + 2f]", "mov gs:[8], {resume}",
                        concat!("mov [{address}], {value", $suffix, "}"), "2:", "mov qword ptr gs:[8], 0",
                        resume = out(reg) _, value = in($class) value, address = in(reg) address, options(nostack));
                }
                trap::outcome()
            }
        }
    };
}

word!(u8, reg_byte, "");
word!(u16, reg, ":x");
word!(u32, reg, ":e");
word!(u64, reg, ":r");

/// Reads at `address`.
#[must_use]
pub fn read<T: Word>(address: u64) -> T {
    T::read(address)
}

/// Writes at `address`.
pub fn write<T: Word>(address: u64, value: T) {
    T::write(address, value);
}

macro_rules! atomic_view {
    ($name:ident, $type:ty) => {
        /// The atomic at `address`, an address of a page that lives for ever and is suitably aligned.
        #[must_use]
        pub fn $name(address: u64) -> &'static $type {
            assert!(address % core::mem::align_of::<$type>() as u64 == 0, "unaligned {address:#x}");
            // SAFETY: guests never unmap what they view like this; other users of the memory use atomics, too.
            unsafe { &*core::ptr::with_exposed_provenance::<$type>(address as usize) }
        }
    };
}

atomic_view!(atomic_8, AtomicU8);
atomic_view!(atomic_16, AtomicU16);
atomic_view!(atomic_32, AtomicU32);
atomic_view!(atomic_64, AtomicU64);

/// Copies bytes to `address`.
pub fn write_bytes(address: u64, bytes: &[u8]) {
    for (offset, byte) in (0..).zip(bytes) {
        write(address + offset, *byte);
    }
}

/// Whether `count` bytes at `address` all equal `value`; gives the offset of the first that differs.
///
/// # Errors
/// That offset.
pub fn all_bytes(address: u64, count: u64, value: u8) -> Result<(), u64> {
    (0..count).find(|offset| read::<u8>(address + offset) != value).map_or(Ok(()), Err)
}

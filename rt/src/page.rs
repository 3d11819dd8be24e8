//! Hypercalls through the hypercall page, as the `xen-sys` crate makes them: numbers, instructions and calling convention are
//! other people's reading of the ABI, not ours.
//!
//! Before: [`crate::hypercall`], which is the instruction itself. After: the guest that tests the page.

use core::cell::UnsafeCell;

/// Where `xen-sys` looks for the page.
#[repr(C, align(4096))]
struct HypercallPage(UnsafeCell<[u8; 4096]>);

// SAFETY: only the hypervisor writes it, when a guest asks for that.
unsafe impl Sync for HypercallPage {}

#[unsafe(no_mangle)]
static HYPERCALL_PAGE: HypercallPage = HypercallPage(UnsafeCell::new([0; 4096]));

/// The address to give to the hypercall page's MSR.
pub fn hypercall_page() -> u64 {
    HYPERCALL_PAGE.0.get().addr() as u64
}

/// Asks for the version through the page, which the hypervisor must have filled: `__HYPERVISOR_xen_version` with a command and
/// the address of its argument.
pub fn xen_version_by_page(command: u32, argument: u64) -> i64 {
    // SAFETY: the page is filled, its stubs change RAX and RDI to R8 only, and there is no red zone for the call to hit.
    unsafe { xen_sys::hypercall_2(xen_sys::__HYPERVISOR_xen_version, u64::from(command), argument) }
}

/// Writes a text to the console through the page, with `xen-sys`'s own function for it.
pub fn console_by_page(text: &[u8]) -> i64 {
    // SAFETY: as above.
    unsafe { xen_sys::hypercall::console_io(xen_sys::hypercall::ConsoleIO::Write, text) }
}

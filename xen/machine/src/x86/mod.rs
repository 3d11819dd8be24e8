//! The real machine: x86-64 with AMD SVM and nested paging.
//!
//! In the order of a boot: `boot` (loader's data, moving the image) → `paging` → `traps` → `cpu` (per-CPU data) → `apic`,
//! `time` → `svm`; `smp` starts the other processors when the core says so.

mod apic;
mod boot;
mod cpu;
mod heap;
mod io_apic;
mod lazy;
mod machine_check;
mod paging;
mod panic;
mod ports;
mod serial;
mod smp;
mod svm;
mod time;
mod traps;

pub use apic::{acknowledge as end_interrupt, kick, local_apic, own_id as apic_id, set_timer};
pub use boot::build_id;
pub use cpu::{
    cpu_count, current_cpu, has_work, held_ranks, idle, interrupt_window, pass, relax, set_held_ranks, set_working_for,
    take_device_vectors, take_work,
};
pub use io_apic::{mask_interrupts, pin_count, route_console, set_pin};
pub use lazy::{
    extended_state_bytes, load_debug_registers, load_lazy, save_debug_registers, save_lazy, set_tsc_aux, set_xcr0,
    supported_xcr0,
};
pub use panic::{restart, set_no_reboot, stop};
pub use serial::{console_port, console_receive, console_write};
pub use smp::start_other_cpus;
pub use svm::{check_control_block, control_block_address, permission_maps, run};
pub use time::{timestamp, timestamp_khz, wall_clock_seconds};

use crate::frame::FrameTable;
use crate::units::{Maddr, Mfn};

/// Firmware memory, for reading tables: maps it if it is not mapped yet.
pub use paging::read_firmware;
/// Ports and device registers that the core may use for a hardware domain.
pub use ports::{device_read, device_write, port_read, port_write};

/// Where hardware finds the permission maps.
#[derive(Clone, Copy, Debug)]
pub struct PermissionMaps {
    /// One bit a port.
    pub ports: Maddr,
    /// Two bits an MSR.
    pub msrs: Maddr,
}

/// CPUID of this processor.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

static HOST: spin::Once<&'static (dyn core::any::Any + Send + Sync)> = spin::Once::new();

pub fn set_host(host: &'static (dyn core::any::Any + Send + Sync)) {
    HOST.call_once(|| host);
}

pub fn host() -> Option<&'static (dyn core::any::Any + Send + Sync)> {
    HOST.get().copied()
}

/// Works on the frame table.
#[inline]
pub fn with_frames<R>(work: impl FnOnce(&FrameTable) -> R) -> R {
    work(boot::frames())
}

/// Whether an allocation of frames may be tried; only the fake machine ever says no.
#[inline]
pub fn may_allocate() -> bool {
    true
}

/// The page of RAM behind an address of the hypervisor's.
#[inline]
pub fn page_of(place: *const u8) -> Mfn {
    paging::page_of(place)
}

/// Whether an address of the hypervisor's, in the map of all RAM, is in the page with that number.
#[inline]
pub fn lies_in(place: *const u8, mfn: Mfn) -> bool {
    page_address(mfn).addr() == place.addr() & !(crate::units::PAGE_SIZE - 1)
}

/// Where the hypervisor sees a page of RAM.
#[inline]
pub fn page_address(mfn: Mfn) -> *mut u8 {
    paging::direct(mfn.address())
}

/// Bytes that are written back in one go (CLFLUSH; CPUID 1, EBX 15:8, which is 8 times 8 on all processors of this architecture).
const LINE_BYTES: usize = 64;

/// Writes a page of the hypervisor's RAM back to memory, for devices that read past the caches.
pub fn write_back(mfn: Mfn) {
    for line in (0..crate::units::PAGE_SIZE).step_by(LINE_BYTES) {
        write_back_line(page_address(mfn).wrapping_add(line));
    }
}

/// As [`write_back`], the line with one word of the page, counted in 8 bytes.
pub fn write_back_word(mfn: Mfn, word: usize) {
    write_back_line(page_address(mfn).wrapping_add(word * 8));
}

fn write_back_line(place: *const u8) {
    // SAFETY: all RAM that the hypervisor uses is mapped; the instruction changes no content.
    unsafe { core::arch::x86_64::_mm_clflush(place) };
}

//! Starts the other processors (AMD APM volume 2, 16.7.3: INIT, then start-up interrupts).
//!
//! They begin in real mode in a page below 1 MiB. That page belongs to the control domain later, so its content is put
//! back when all have started.

use super::{apic, cpu, paging, svm, time};
use crate::units::{CpuId, Maddr, PAGE_SIZE_U64};
use core::arch::asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Where the trampoline goes: any free page below 640 KiB will do; this one is RAM on every PC.
const PLACE: u64 = 0x8000;

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_gdt_base: u8;
    static trampoline_gdt: u8;
    static trampoline_target: u8;
    static trampoline_long: u8;
    static trampoline_cr3: u8;
    static trampoline_stack: u8;
    static trampoline_argument: u8;
    static trampoline_entry: u8;
}

/// What a started processor runs; the argument is its number.
pub type SecondaryEntry = fn(CpuId) -> !;

static ENTRY: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// The number of the processor that has arrived last.
static ARRIVED: AtomicU32 = AtomicU32::new(0);

fn offset(label: *const u8) -> u64 {
    (label.addr() - addr_of!(trampoline_start).addr()) as u64
}

fn put<T>(label: *const u8, value: T) {
    let place = paging::direct(Maddr::new(PLACE + offset(label))).cast::<T>();
    // SAFETY: inside the trampoline's copy, which `start_other_cpus` made.
    unsafe { place.write_unaligned(value) };
}

/// Starts the processors with these APIC ids, one after the other; each calls `entry` with its number, which counts on
/// from 1. Gives the number of those that came up.
pub fn start_other_cpus(apic_ids: impl Iterator<Item = u32>, entry: SecondaryEntry) -> usize {
    ENTRY.store(entry as *mut (), Ordering::Release);
    let length = offset(addr_of!(trampoline_end)) as usize;
    let page = paging::direct(Maddr::new(PLACE));
    let mut saved = [0u8; PAGE_SIZE_U64 as usize];
    // SAFETY: page 8 is RAM that nothing uses during boot; source and target are mapped and do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(page, saved.as_mut_ptr(), saved.len()) };
    // SAFETY: the trampoline is shorter than a page (asserted by the copy's own bounds: it has no data but these words).
    unsafe { core::ptr::copy_nonoverlapping(addr_of!(trampoline_start), page, length) };
    paging::set_low_identity(true);
    put(addr_of!(trampoline_gdt_base), (PLACE + offset(addr_of!(trampoline_gdt))) as u32);
    put(addr_of!(trampoline_target), (PLACE + offset(addr_of!(trampoline_long))) as u32);
    put(addr_of!(trampoline_cr3), paging::root().number() as u32);
    put(addr_of!(trampoline_entry), secondary_main as *const () as u64);
    let mut started = 0;
    for apic_id in apic_ids {
        let number = CpuId(started as u16 + 1);
        if number.index() >= cpu::MAX_CPUS {
            crate::log!(Warning, "only {} processors are used", cpu::MAX_CPUS);
            break;
        }
        put(addr_of!(trampoline_stack), cpu::main_stack(number));
        put(addr_of!(trampoline_argument), u64::from(number.0));
        if start_one(apic_id, number) {
            started += 1;
        } else {
            crate::log!(Warning, "the processor with APIC id {apic_id} does not start");
        }
    }
    paging::set_low_identity(false);
    // SAFETY: as for the copy above; no processor is in the trampoline any more.
    unsafe { core::ptr::copy_nonoverlapping(saved.as_ptr(), page, saved.len()) };
    started
}

fn start_one(apic_id: u32, number: CpuId) -> bool {
    apic::send(apic_id, apic::COMMAND_INIT);
    wait_microseconds(10_000, || false);
    for _ in 0..2 {
        apic::send(apic_id, apic::COMMAND_START | (PLACE >> 12) as u32);
        if wait_microseconds(200_000, || ARRIVED.load(Ordering::Acquire) == u32::from(number.0)) {
            return true;
        }
    }
    // A machine may be slow: give it ten seconds before it is left alone.
    wait_microseconds(10_000_000, || ARRIVED.load(Ordering::Acquire) == u32::from(number.0))
}

/// Waits until `done` or until the time is over; says which.
fn wait_microseconds(microseconds: u64, done: impl Fn() -> bool) -> bool {
    let end = cpu::read_tsc() + microseconds * time::timestamp_khz() / 1000;
    while cpu::read_tsc() < end {
        if done() {
            return true;
        }
        cpu::relax();
    }
    done()
}

extern "C" fn secondary_main(number: u64) -> ! {
    let number = CpuId(number as u16);
    // SAFETY: the same settings as the boot CPU: write protection on, caches on, monitored coprocessor off.
    unsafe { asm!("mov {s}, cr0", "and {s:e}, 0x9ffeffff", "or {s:e}, 0x10002", "mov cr0, {s}", s = out(reg) _) };
    cpu::adopt(number);
    svm::enable();
    apic::enable();
    cpu::count_online();
    ARRIVED.store(u32::from(number.0), Ordering::Release);
    let entry = ENTRY.load(Ordering::Acquire);
    // SAFETY: `start_other_cpus` stored a function of this type there.
    let entry: SecondaryEntry = unsafe { core::mem::transmute(entry) };
    entry(number)
}

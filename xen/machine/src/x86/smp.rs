//! Starts the other processors (AMD APM volume 2, 16.7.3: INIT, then start-up interrupts).
//!
//! They begin in real mode in a page below 1 MiB. That page belongs to the control domain later, so its content is put
//! back when all have started. A processor that has started waits until the last has, and one that does not answer is
//! stopped for good before the next gets its number: it must not come late to a stack that is another's by then.

use super::{apic, boot, cpu, paging, svm, time};
use crate::codec::placement::trampoline_page;
use crate::frame::{FrameInfo, Kind};
use crate::platform::{ApicIds, MAX_CPUS};
use crate::units::{CpuId, Maddr, Mfn, PAGE_SIZE_U64};
use core::ptr::addr_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

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
/// The number of the processor that has arrived last; 0 while nobody has.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// All have arrived that ever will: they may go on.
static GO_ON: AtomicBool = AtomicBool::new(false);

fn offset(label: *const u8) -> u64 {
    (label.addr() - addr_of!(trampoline_start).addr()) as u64
}

fn put<T>(page: Maddr, label: *const u8, value: T) {
    let place = paging::direct(page).wrapping_add(offset(label) as usize).cast::<T>();
    // SAFETY: inside the trampoline's copy, which `start_other_cpus` made. `apic::send` makes it visible before the interrupt.
    unsafe { place.write_unaligned(value) };
}

/// Starts the processors with these APIC ids, one after the other; each calls `entry` with its number, which counts on
/// from 1. Gives the APIC ids of those that came up, in the order of their numbers.
pub fn start_other_cpus(apic_ids: impl Iterator<Item = u32>, entry: SecondaryEntry) -> ApicIds {
    let mut started = ApicIds::new();
    let mut apic_ids = apic_ids.peekable();
    if apic_ids.peek().is_none() {
        return started;
    }
    let is_unused =
        |mfn| boot::frames().info(mfn).map(FrameInfo::state).is_some_and(|state| state.kind == Kind::Reserved);
    let Some(place) = trampoline_page(is_unused).map(Mfn::address) else {
        crate::log!(Warning, "no RAM below 640 KiB to start other processors from: one is used");
        return started;
    };
    ENTRY.store(entry as *mut (), Ordering::Release);
    let length = offset(addr_of!(trampoline_end)) as usize;
    let page = paging::direct(place);
    let mut saved = [0u8; PAGE_SIZE_U64 as usize];
    // SAFETY: RAM that nobody uses yet, by the look into the frame table; source and target are mapped and do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(page, saved.as_mut_ptr(), saved.len()) };
    // SAFETY: the trampoline is shorter than a page (asserted by the copy's own bounds: it has no data but these words).
    unsafe { core::ptr::copy_nonoverlapping(addr_of!(trampoline_start), page, length) };
    paging::set_low_identity(true);
    let low = |label| (place.number() + offset(label)) as u32;
    put(place, addr_of!(trampoline_gdt_base), low(addr_of!(trampoline_gdt)));
    put(place, addr_of!(trampoline_target), low(addr_of!(trampoline_long)));
    put(place, addr_of!(trampoline_cr3), paging::root().number() as u32);
    put(place, addr_of!(trampoline_entry), secondary_main as *const () as u64);
    for apic_id in apic_ids {
        let number = CpuId(started.len() as u16 + 1);
        if started.is_full() {
            crate::log!(Warning, "only {MAX_CPUS} processors are used");
            break;
        }
        if !apic::reaches(apic_id) {
            crate::log!(Warning, "the processor with APIC id {apic_id} is left out: firmware has not turned x2APIC on");
            continue;
        }
        put(place, addr_of!(trampoline_stack), cpu::main_stack(number));
        put(place, addr_of!(trampoline_argument), u64::from(number.0));
        if start_one(apic_id, number, place) && started.push(apic_id).is_ok() {
            cpu::admit(number);
        } else {
            crate::log!(Warning, "the processor with APIC id {apic_id} does not start");
        }
    }
    paging::set_low_identity(false);
    // SAFETY: as for the copy above; no processor is in the trampoline any more.
    unsafe { core::ptr::copy_nonoverlapping(saved.as_ptr(), page, saved.len()) };
    GO_ON.store(true, Ordering::Release);
    started
}

fn start_one(apic_id: u32, number: CpuId, place: Maddr) -> bool {
    let has_arrived = || ARRIVED.load(Ordering::Acquire) == u32::from(number.0);
    ARRIVED.store(0, Ordering::Release);
    apic::send(apic_id, apic::COMMAND_INIT);
    wait_microseconds(10_000, || false);
    for _ in 0..2 {
        apic::send(apic_id, apic::COMMAND_START | place.frame().number() as u32);
        if wait_microseconds(200_000, has_arrived) {
            return true;
        }
    }
    // A machine may be slow: give it ten seconds before it is stopped, wherever it is by then.
    if wait_microseconds(10_000_000, has_arrived) {
        return true;
    }
    apic::send(apic_id, apic::COMMAND_INIT);
    wait_microseconds(10_000, || false);
    false
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
    cpu::adopt(number);
    svm::enable();
    apic::enable();
    ARRIVED.store(u32::from(number.0), Ordering::Release);
    while !GO_ON.load(Ordering::Acquire) {
        cpu::relax();
    }
    // The low addresses that it began at are mapped no more.
    paging::forget_translations();
    let entry = ENTRY.load(Ordering::Acquire);
    // SAFETY: `start_other_cpus` stored a function of this type there.
    let entry: SecondaryEntry = unsafe { core::mem::transmute(entry) };
    entry(number)
}

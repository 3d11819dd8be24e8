//! What each processor keeps for itself, found through the GS base: number, noted work, descriptor tables, stacks.
//! `begin` comes first of all, `adopt` when memory can be had.

use super::traps::{self, TaskState};
use super::{apic, paging};
use crate::codec::registers::{cr0, cr4, msr};
use crate::codec::tags::Tags;
use crate::frame::{self, Fill, Kind};
use crate::platform::MAX_CPUS;
use crate::units::{CpuId, DomId, Mfn, PAGE_SIZE_U64};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Pages of a processor's main stack, and of each of the three for exceptions that must not trust the current one.
const STACK_PAGES: u64 = 8;
const EXCEPTION_STACK_PAGES: u64 = 3;
/// Address space set aside for one stack, so that what is below it is not mapped.
const STACK_STRIDE: u64 = 0x1_0000;

/// A processor's own data. Other processors touch only the atomics.
#[repr(C, align(64))]
pub(super) struct PerCpu {
    /// Its own address, read through GS: first, because `this` reads GS:0.
    this: AtomicU64,
    pub(super) id: AtomicU32,
    pub(super) apic_id: AtomicU32,
    work: AtomicU32,
    /// Vectors of devices that have come, one bit each.
    vectors: [AtomicU64; 4],
    held_ranks: AtomicU64,
    working_for: AtomicU64,
    /// Where the hypervisor was when the last non-maskable interrupt came.
    interrupted_at: AtomicU64,
    /// Physical address of the page where VMRUN keeps the hypervisor's own state.
    pub(super) save_area: AtomicU64,
    /// Physical address of the page for VMSAVE of the hypervisor's own hidden state.
    pub(super) host_state: AtomicU64,
    /// Its address-space tags; no other processor looks at them.
    pub(super) tags: Cell<Tags>,
    pub(super) task_state: UnsafeCell<TaskState>,
    pub(super) descriptors: UnsafeCell<[u64; 7]>,
    /// It takes part: a processor that is only being started is not.
    pub(super) online: AtomicBool,
}

// SAFETY: two of the cells are written by their own processor during its start, before anything else can use them; the tags are
// reached by their own processor only, and not by its interrupt handlers.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new() -> Self {
        Self {
            this: AtomicU64::new(0),
            id: AtomicU32::new(0),
            apic_id: AtomicU32::new(0),
            work: AtomicU32::new(0),
            vectors: [const { AtomicU64::new(0) }; 4],
            held_ranks: AtomicU64::new(0),
            working_for: AtomicU64::new(u64::MAX),
            interrupted_at: AtomicU64::new(0),
            save_area: AtomicU64::new(0),
            host_state: AtomicU64::new(0),
            tags: Cell::new(Tags::new(CpuId(0))),
            task_state: UnsafeCell::new(TaskState::new()),
            descriptors: UnsafeCell::new([0; 7]),
            online: AtomicBool::new(false),
        }
    }
}

static CPUS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Another processor's data.
pub(super) fn per_cpu(cpu: CpuId) -> Option<&'static PerCpu> {
    CPUS.get(cpu.index())
}

/// This processor's data.
#[inline]
pub(super) fn this() -> &'static PerCpu {
    let address: usize;
    // SAFETY: after `begin` or `adopt` the GS base points to this processor's entry of `CPUS`, whose first field is its address.
    unsafe { asm!("mov {}, gs:[0]", out(reg) address, options(nostack, preserves_flags, readonly, pure)) };
    let place = core::ptr::with_exposed_provenance::<PerCpu>(address);
    // SAFETY: see above; statics live for ever.
    unsafe { &*place }
}

/// Gives this processor its data as number `cpu`: from here on there are locks, messages and panics. The very first thing on
/// every processor.
pub(super) fn begin(cpu: CpuId) -> &'static PerCpu {
    let me = &CPUS[cpu.index()];
    let address = core::ptr::from_ref(me).expose_provenance() as u64;
    me.this.store(address, Ordering::Relaxed);
    me.id.store(u32::from(cpu.0), Ordering::Relaxed);
    super::svm::write_msr(msr::GS_BASE, address);
    me
}

/// Makes this processor number `cpu` for good: its data, descriptor tables, exception stacks, control registers.
pub(super) fn adopt(cpu: CpuId) {
    let me = begin(cpu);
    me.tags.set(Tags::new(cpu));
    for (number, _) in traps::EXCEPTION_STACKS.iter().enumerate() {
        let top = make_stack(cpu, number as u64 + 1, EXCEPTION_STACK_PAGES);
        // SAFETY: this processor's own cell, before the task state is loaded.
        unsafe { (*me.task_state.get()).set_stack(number, top) };
    }
    traps::load(me);
    set_control_registers();
}

/// The page attribute table after reset: write-back, write-through, uncached (weakly), uncached, twice (APM volume 2, 7.8.2).
/// `paging` counts on it.
const PAT: u64 = 0x0007_0406_0007_0406;

/// Sets what loaders, firmware and INIT leave in different ways: caches on, read-only pages kept from the hypervisor, too, no
/// trap at floating-point instructions, machine checks reported, and memory types by the usual table. `lazy` adds what it
/// needs.
fn set_control_registers() {
    let machine_check = if __cpuid(1).edx & 1 << 7 == 0 { 0 } else { cr4::MCE };
    // SAFETY: paging and protected mode stay on, and all code and data are mapped as write protection and these memory types
    // want it.
    unsafe {
        asm!("mov cr0, {}", in(reg) cr0::PG | cr0::WP | cr0::NE | cr0::ET | cr0::MP | cr0::PE, options(nostack));
    }
    // SAFETY: as above; PAE is what long mode needs.
    unsafe { asm!("mov cr4, {}", in(reg) cr4::PAE | machine_check, options(nostack)) };
    super::svm::write_msr(msr::PAT, PAT);
}

/// Maps a stack of `pages` for a processor and gives its top. Number 0 is the main stack. What a processor that did not start
/// has left is used again.
pub(super) fn make_stack(cpu: CpuId, number: u64, pages: u64) -> u64 {
    let slot = u64::from(cpu.0) * 4 + number;
    let top = paging::STACKS + (slot + 1) * STACK_STRIDE;
    for page in 1..=pages {
        let at = top - page * PAGE_SIZE_U64;
        let mapped = paging::is_mapped(at) || allocate_early().is_some_and(|mfn| paging::map_own(at, mfn));
        assert!(mapped, "no memory for the stacks of processor {}", cpu.0);
    }
    top
}

/// A zeroed page of the hypervisor's own: of those that `boot` set aside, then from the pool, as soon as there is one.
pub(super) fn allocate_early() -> Option<Mfn> {
    let allocate = || frame::allocate(0, Kind::Hypervisor, DomId(0), Fill::Zero);
    paging::spare_page().or_else(|| super::boot::has_frames().then(allocate).flatten())
}

/// The main stack of another processor.
pub(super) fn main_stack(cpu: CpuId) -> u64 {
    make_stack(cpu, 0, STACK_PAGES)
}

/// Sets up the data of the processor that booted.
pub(super) fn initialise_boot_cpu() {
    adopt(CpuId(0));
    CPUS[0].online.store(true, Ordering::Release);
}

/// Whether 1 GiB pages exist (CPUID 80000001 EDX bit 26).
pub(super) fn has_gib_pages() -> bool {
    __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// Lets a processor that has started take part.
pub(super) fn admit(cpu: CpuId) {
    CPUS[cpu.index()].online.store(true, Ordering::Release);
    COUNT.fetch_add(1, Ordering::AcqRel);
}

/// Notes work for this processor; called by interrupt handlers.
pub(super) fn note_work(bits: u32) {
    this().work.fetch_or(bits, Ordering::AcqRel);
}

/// Notes a device's vector for this processor; called by its interrupt handler.
pub(super) fn note_vector(vector: u8) {
    this().vectors[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::AcqRel);
}

pub fn take_device_vectors() -> [u64; 4] {
    this().vectors.each_ref().map(|part| part.swap(0, Ordering::AcqRel))
}

/// A non-maskable interrupt: a note of this module's own among the work, because whoever is interrupted may hold any lock.
const NON_MASKABLE: u32 = 1 << 31;
const _: () = assert!(crate::cpu::Work::all().bits() & NON_MASKABLE == 0);

/// Notes a non-maskable interrupt, to be reported when this processor next takes its work.
pub(super) fn note_non_maskable(rip: u64) {
    this().interrupted_at.store(rip, Ordering::Relaxed);
    note_work(NON_MASKABLE);
}

/// Notes work for another processor, to be followed by an interrupt.
pub(super) fn note_work_for(cpu: CpuId, bits: u32) {
    if let Some(other) = per_cpu(cpu) {
        other.work.fetch_or(bits, Ordering::AcqRel);
    }
}

#[inline]
pub fn current_cpu() -> CpuId {
    CpuId(this().id.load(Ordering::Relaxed) as u16)
}

pub fn cpu_count() -> usize {
    COUNT.load(Ordering::Acquire)
}

#[inline]
pub fn take_work() -> u32 {
    let work = &this().work;
    if work.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    let bits = work.swap(0, Ordering::AcqRel);
    if bits & NON_MASKABLE != 0 {
        report_non_maskable();
    }
    bits & !NON_MASKABLE
}

#[cold]
fn report_non_maskable() {
    let rip = this().interrupted_at.load(Ordering::Relaxed);
    crate::log!(Error, "CPU {}: non-maskable interrupt at {rip:#x}", current_cpu().0);
}

#[inline]
pub fn has_work() -> bool {
    this().work.load(Ordering::Acquire) != 0
}

#[inline]
pub fn relax() {
    core::hint::spin_loop();
}

pub fn pass(ticks: u64) {
    let begin = read_tsc();
    while read_tsc().wrapping_sub(begin) < ticks {
        relax();
    }
}

pub fn interrupt_window() {
    // SAFETY: handlers only note work and acknowledge; one instruction is between, because STI delays by one.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}

pub fn idle() {
    if !has_work() {
        // SAFETY: as in `interrupt_window`. STI holds interrupts off until HLT has begun, so none is missed.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
    } else {
        interrupt_window();
    }
}

pub fn held_ranks() -> u64 {
    this().held_ranks.load(Ordering::Relaxed)
}

pub fn set_held_ranks(ranks: u64) {
    this().held_ranks.store(ranks, Ordering::Relaxed);
}

#[inline]
pub fn set_working_for(domain: DomId, vcpu: u16) {
    this().working_for.store(u64::from(domain.0) << 16 | u64::from(vcpu), Ordering::Relaxed);
}

/// The domain and vCPU that a processor works for, if any.
pub(super) fn working_for() -> Option<(DomId, u16)> {
    match this().working_for.load(Ordering::Relaxed) {
        u64::MAX => None,
        packed => Some((DomId((packed >> 16) as u16), packed as u16)),
    }
}

/// The time stamp counter.
#[inline]
pub(super) fn read_tsc() -> u64 {
    // SAFETY: every processor with SVM has a time stamp counter, and CR4.TSD is clear here.
    unsafe { _rdtsc() }
}

/// All processors that run, except this one.
pub(super) fn others() -> impl Iterator<Item = &'static PerCpu> {
    let me = this();
    CPUS.iter().filter(|cpu| cpu.online.load(Ordering::Acquire)).filter(move |cpu| !core::ptr::eq(*cpu, me))
}

/// Stores this processor's APIC id.
pub(super) fn record_apic_id() {
    this().apic_id.store(apic::own_id(), Ordering::Relaxed);
}

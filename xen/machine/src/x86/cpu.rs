//! What each processor keeps for itself, found through the GS base: number, noted work, descriptor tables, stacks.

use super::traps::{self, TaskState};
use super::{apic, paging};
use crate::frame::{self, Fill, Kind};
use crate::units::{CpuId, DomId, Mfn, PAGE_SIZE_U64};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Processors at the most.
pub(super) const MAX_CPUS: usize = 64;
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
    held_ranks: AtomicU64,
    working_for: AtomicU64,
    /// Physical address of the page for VMSAVE of the hypervisor's own hidden state.
    pub(super) host_state: AtomicU64,
    /// Address-space tags: the next free one and how often they wrapped around.
    pub(super) next_tag: AtomicU32,
    pub(super) tag_generation: AtomicU64,
    pub(super) task_state: UnsafeCell<TaskState>,
    pub(super) descriptors: UnsafeCell<[u64; 7]>,
    pub(super) online: AtomicBool,
}

// SAFETY: the two cells are written by their own processor during its start, before anything else can use them.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new() -> Self {
        Self {
            this: AtomicU64::new(0),
            id: AtomicU32::new(0),
            apic_id: AtomicU32::new(0),
            work: AtomicU32::new(0),
            held_ranks: AtomicU64::new(0),
            working_for: AtomicU64::new(u64::MAX),
            host_state: AtomicU64::new(0),
            next_tag: AtomicU32::new(1),
            tag_generation: AtomicU64::new(1),
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
    // SAFETY: after `adopt` the GS base points to this processor's entry of `CPUS`, whose first field is its address.
    unsafe { asm!("mov {}, gs:[0]", out(reg) address, options(nostack, preserves_flags, readonly, pure)) };
    let place = core::ptr::with_exposed_provenance::<PerCpu>(address);
    // SAFETY: see above; statics live for ever.
    unsafe { &*place }
}

/// Makes this processor number `cpu`: GS base, descriptor tables, exception stacks.
pub(super) fn adopt(cpu: CpuId) -> &'static PerCpu {
    let me = &CPUS[cpu.index()];
    let address = core::ptr::from_ref(me).expose_provenance() as u64;
    me.this.store(address, Ordering::Relaxed);
    me.id.store(u32::from(cpu.0), Ordering::Relaxed);
    super::svm::write_msr(crate::codec::registers::msr::GS_BASE, address);
    for (number, _) in traps::EXCEPTION_STACKS.iter().enumerate() {
        let top = make_stack(cpu, number as u64 + 1, EXCEPTION_STACK_PAGES);
        // SAFETY: this processor's own cell, before the task state is loaded.
        unsafe { (*me.task_state.get()).set_stack(number, top) };
    }
    traps::load(me);
    me.online.store(true, Ordering::Release);
    me
}

/// Maps a stack of `pages` for a processor and gives its top. Number 0 is the main stack.
pub(super) fn make_stack(cpu: CpuId, number: u64, pages: u64) -> u64 {
    let slot = u64::from(cpu.0) * 4 + number;
    let top = paging::STACKS + (slot + 1) * STACK_STRIDE;
    for page in 1..=pages {
        let at = top - page * PAGE_SIZE_U64;
        let mapped = allocate_early().is_some_and(|mfn| paging::map_own(at, mfn));
        assert!(mapped, "no memory for the stacks of processor {}", cpu.0);
    }
    top
}

/// A page of the hypervisor's own, from what `boot` set aside until the core fills the pool.
pub(super) fn allocate_early() -> Option<Mfn> {
    paging::spare_page().or_else(|| frame::allocate(0, Kind::Hypervisor, DomId(0), Fill::Zero))
}

/// The main stack of another processor.
pub(super) fn main_stack(cpu: CpuId) -> u64 {
    make_stack(cpu, 0, STACK_PAGES)
}

/// Sets up the data of the processor that booted.
pub(super) fn initialise_boot_cpu() {
    adopt(CpuId(0));
}

/// Whether 1 GiB pages exist (CPUID 80000001 EDX bit 26).
pub(super) fn has_gib_pages() -> bool {
    __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// Counts one more running processor.
pub(super) fn count_online() {
    COUNT.fetch_add(1, Ordering::AcqRel);
}

/// Notes work for this processor; called by interrupt handlers.
pub(super) fn note_work(bits: u32) {
    this().work.fetch_or(bits, Ordering::AcqRel);
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
    if work.load(Ordering::Relaxed) == 0 { 0 } else { work.swap(0, Ordering::AcqRel) }
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
    let me = this().apic_id.load(Ordering::Relaxed);
    CPUS.iter()
        .filter(|cpu| cpu.online.load(Ordering::Acquire))
        .filter(move |cpu| cpu.apic_id.load(Ordering::Relaxed) != me)
}

/// Stores this processor's APIC id.
pub(super) fn record_apic_id() {
    this().apic_id.store(apic::own_id(), Ordering::Relaxed);
}

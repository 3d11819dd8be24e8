//! Further processors: started by INIT-SIPI-SIPI or by the hypervisor's own call.
//!
//! The trampoline is in ap.s. One processor is started at a time; it runs a function and then halts for good, or goes on
//! for ever if the function does.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::cpu::MAX_CPUS;
use crate::{apic, cpu, memory, paging};

global_asm!(include_str!("ap.s"), options(att_syntax));

/// Page below 1 MiB to which the trampoline is copied.
pub const TRAMPOLINE: u64 = 0x8000;
const STACK_PAGES: usize = 8;

static NEXT_INDEX: AtomicUsize = AtomicUsize::new(0);
static NEXT_FUNCTION: AtomicUsize = AtomicUsize::new(0);
static RUNNING: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

unsafe extern "C" {
    static rt_ap_begin: u8;
    static rt_ap_end: u8;
    static rt_ap_64: u8;
    static rt_ap_stack: AtomicU64;
}

/// Registers for a processor that starts in 64-bit mode.
#[derive(Clone, Copy, Debug)]
pub struct StartState {
    /// First instruction.
    pub rip: u64,
    /// Stack.
    pub rsp: u64,
    /// Control register 0: protected mode with paging.
    pub cr0: u64,
    /// Page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended features: long mode.
    pub efer: u64,
}

/// Says what processor `index` (below [`MAX_CPUS`], not 0) is to run when it starts, and prepares a stack for it.
#[must_use]
pub fn prepare(index: usize, function: fn()) -> StartState {
    let stack = memory::take_pages(STACK_PAGES) + STACK_PAGES as u64 * memory::PAGE_SIZE;
    // SAFETY: an atomic of ap.s.
    unsafe { rt_ap_stack.store(stack, Ordering::SeqCst) };
    NEXT_INDEX.store(index, Ordering::SeqCst);
    NEXT_FUNCTION.store(function as usize, Ordering::SeqCst);
    RUNNING[index].store(0, Ordering::SeqCst);
    let rip = (&raw const rt_ap_64).expose_provenance() as u64;
    StartState { rip, rsp: stack, cr0: 0x8001_0033, cr3: paging::root(), cr4: 0x620, efer: 0xd00 }
}

/// Whether processor `index` has entered its function (1) or left it (2).
#[must_use]
pub fn progress(index: usize) -> u64 {
    RUNNING[index].load(Ordering::SeqCst)
}

/// Starts the processor with APIC identifier `apic_id` as number `index`; [`progress`] tells when it runs.
pub fn start_cpu(index: usize, apic_id: u32, function: fn()) {
    let _state = prepare(index, function);
    let begin = (&raw const rt_ap_begin).expose_provenance() as u64;
    let end = (&raw const rt_ap_end).expose_provenance() as u64;
    for offset in 0..end - begin {
        memory::write(TRAMPOLINE + offset, memory::read::<u8>(begin + offset));
    }
    apic::send(apic_id, apic::DELIVERY_INIT | apic::ASSERT);
    let startup = apic::DELIVERY_STARTUP | apic::ASSERT | (TRAMPOLINE >> 12) as u32;
    apic::send(apic_id, startup);
    apic::send(apic_id, startup);
}

/// Called by ap.s on the new processor.
#[unsafe(no_mangle)]
extern "C" fn rt_ap_main() -> ! {
    let index = NEXT_INDEX.load(Ordering::SeqCst);
    let function = NEXT_FUNCTION.load(Ordering::SeqCst);
    cpu::init(index);
    RUNNING[index].store(1, Ordering::SeqCst);
    // SAFETY: `prepare` stored a `fn()`.
    let function = unsafe { core::mem::transmute::<usize, fn()>(function) };
    function();
    RUNNING[index].store(2, Ordering::SeqCst);
    crate::halt()
}

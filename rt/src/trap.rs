//! Exceptions and interrupts: expected faults become values, interrupts are counted and acknowledged.
//!
//! The gates are in trap.s. An exception that nobody expects is a panic that names it. An interrupt is counted per
//! processor and vector; it is acknowledged at the local APIC if, and only if, the APIC says that it is in service: an
//! event-channel callback that the hypervisor injects past the APIC must not be.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::cpu::{self, KERNEL_CODE, KERNEL_DATA, MAX_CPUS, NO_FAULT, TablePointer};

global_asm!(include_str!("trap.s"), options(att_syntax));

/// The gate by which user code returns.
pub(crate) const USER_RETURN: u64 = 0x81;
const NMI: u64 = 2;
const FLAG_INTERRUPT: u64 = 1 << 9;
const FLAG_TRAP: u64 = 1 << 8;

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Vector: 6 #UD, 13 #GP, 14 #PF …
    pub vector: u8,
    /// Error code, 0 for vectors that have none.
    pub error: u32,
    /// Address of the instruction.
    pub rip: u64,
    /// CR2 at that moment: the address for #PF.
    pub cr2: u64,
}

impl fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "fault {}({:#x}) at {:#x} cr2 {:#x}", self.vector, self.error, self.rip, self.cr2)
    }
}

/// #UD, invalid opcode.
pub const INVALID_OPCODE: u8 = 6;
/// #GP, general protection.
pub const GENERAL_PROTECTION: u8 = 13;
/// #PF, page fault.
pub const PAGE_FAULT: u8 = 14;

/// Registers as trap.s pushes them.
#[repr(C)]
struct TrapFrame {
    general: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

struct Gates(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: every processor writes the same values before it uses them.
unsafe impl Sync for Gates {}
static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; 256]));

static COUNTS: [[AtomicU32; 256]; MAX_CPUS] = [const { [const { AtomicU32::new(0) }; 256] }; MAX_CPUS];
static IN_SERVICE: [[AtomicU32; 256]; MAX_CPUS] = [const { [const { AtomicU32::new(0) }; 256] }; MAX_CPUS];
static HANDLERS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static HELD: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static rt_gates: [[u8; 16]; 256];
}

/// Fills the gates and points this processor to them.
pub(crate) fn load_gates() {
    let first = (&raw const rt_gates).expose_provenance() as u64;
    // SAFETY: see `Gates`: another processor may be reading equal values.
    let gates = unsafe { &mut *GATES.0.get() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        let target = first + 16 * vector as u64;
        let level: u64 = if vector as u64 == USER_RETURN { 3 } else { 0 };
        // A 64-bit interrupt gate (AMD APM volume 2, section 4.8.4).
        let access = (0x8e | level << 5) << 40;
        *gate = [target & 0xffff | KERNEL_CODE << 16 | access | (target >> 16 & 0xffff) << 48, target >> 32];
    }
    let pointer = TablePointer::new(GATES.0.get().expose_provenance() as u64, 4096);
    // SAFETY: all 256 gates lead to trap.s.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags)) };
}

/// Makes every further exception a triple fault.
pub fn forget_gates() {
    let pointer = TablePointer::new(0, 1);
    // SAFETY: the caller wants the end of this processor.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags)) };
}

/// Before code that may fault: forgets the last fault.
pub(crate) fn arm() {
    cpu::this().fault_vector.store(NO_FAULT, Ordering::Relaxed);
}

/// After code that may fault: whether it did.
pub(crate) fn outcome() -> Result<(), Fault> {
    let cpu = cpu::this();
    match cpu.fault_vector.load(Ordering::Relaxed) {
        NO_FAULT | USER_RETURN => Ok(()),
        vector => Err(Fault {
            vector: vector as u8,
            error: cpu.fault_error.load(Ordering::Relaxed) as u32,
            rip: cpu.fault_rip.load(Ordering::Relaxed),
            cr2: cpu.fault_cr2.load(Ordering::Relaxed),
        }),
    }
}

/// How many interrupts of `vector` processor `cpu` has taken.
#[must_use]
pub fn interrupts(cpu: usize, vector: u8) -> u32 {
    COUNTS[cpu][usize::from(vector)].load(Ordering::SeqCst)
}

/// How many of them were in service at the local APIC, and so were acknowledged there.
#[must_use]
pub fn interrupts_in_service(cpu: usize, vector: u8) -> u32 {
    IN_SERVICE[cpu][usize::from(vector)].load(Ordering::SeqCst)
}

/// Calls `handler` at each interrupt of `vector`, before it is acknowledged, with interrupts off.
pub fn on_interrupt(vector: u8, handler: fn()) {
    HANDLERS[usize::from(vector)].store(handler as usize, Ordering::SeqCst);
}

/// Leaves interrupts of `vector` unacknowledged (0: acknowledges all again).
pub fn hold(vector: u8) {
    HELD.store(u64::from(vector), Ordering::SeqCst);
}

fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading a control register changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

fn interrupt(vector: u64) {
    let cpu = cpu::cpu_index();
    let slot = (vector & 0xff) as usize;
    COUNTS[cpu][slot].fetch_add(1, Ordering::SeqCst);
    let handler = HANDLERS[slot].load(Ordering::SeqCst);
    if handler != 0 {
        // SAFETY: only `on_interrupt` stores here, and it stores a `fn()`.
        let handler = unsafe { core::mem::transmute::<usize, fn()>(handler) };
        handler();
    }
    if vector >= 16 && vector != NMI && crate::apic::in_service(vector as u8) {
        IN_SERVICE[cpu][slot].fetch_add(1, Ordering::SeqCst);
        if HELD.load(Ordering::SeqCst) != vector {
            crate::apic::end_of_interrupt();
        }
    }
}

/// Called by trap.s with interrupts off.
#[unsafe(no_mangle)]
extern "C" fn rt_trap(frame: &mut TrapFrame) {
    let vector = frame.vector;
    if vector == NMI || (vector >= 32 && vector != USER_RETURN) {
        interrupt(vector);
        return;
    }
    let cpu = cpu::this();
    let recover = cpu.recover.swap(0, Ordering::Relaxed);
    assert!(
        recover != 0,
        "unexpected exception {vector} error {:#x} at {:#x} cr2 {:#x} rsp {:#x}",
        frame.error,
        frame.rip,
        cr2(),
        frame.rsp
    );
    cpu.fault_vector.store(vector, Ordering::Relaxed);
    cpu.fault_error.store(frame.error, Ordering::Relaxed);
    cpu.fault_rip.store(frame.rip, Ordering::Relaxed);
    cpu.fault_cr2.store(cr2(), Ordering::Relaxed);
    frame.rip = recover;
    frame.rflags &= !FLAG_TRAP;
    if frame.cs & 3 != 0 {
        // The stack pointer is user code's until execute.s has taken its own back: no interrupt before that.
        frame.rflags &= !FLAG_INTERRUPT;
        frame.cs = KERNEL_CODE;
        frame.ss = KERNEL_DATA;
    }
}

//! Per-processor data: the block that GS points to, a descriptor table and a task state of its own.
//!
//! `init` runs first on each processor; traps (`trap.rs`) and code that may fault (`execute.rs`) rely on it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::msr;

/// Processors that a guest can use.
pub const MAX_CPUS: usize = 8;

/// Selector of 64-bit kernel code.
pub const KERNEL_CODE: u64 = 0x08;
/// Selector of kernel data.
pub const KERNEL_DATA: u64 = 0x10;
/// Selector of 32-bit user code.
pub const USER_CODE_32: u64 = 0x1b;
/// Selector of user data.
pub const USER_DATA: u64 = 0x23;
/// Selector of 64-bit user code.
pub const USER_CODE: u64 = 0x2b;

const TASK_STATE: u16 = 0x30;
const GDT_ENTRIES: usize = 9;
const MSR_GS_BASE: u32 = 0xc000_0101;
/// Value of [`Cpu::fault_vector`] while nothing has faulted.
pub(crate) const NO_FAULT: u64 = u64::MAX;

/// What GS points to. The assembly files know the offsets.
#[repr(C)]
pub(crate) struct Cpu {
    own_address: AtomicU64,
    pub(crate) recover: AtomicU64,
    stack: AtomicU64,
    code: AtomicU64,
    scratch: AtomicU64,
    index: AtomicU64,
    pub(crate) fault_vector: AtomicU64,
    pub(crate) fault_error: AtomicU64,
    pub(crate) fault_rip: AtomicU64,
    pub(crate) fault_cr2: AtomicU64,
    task_state: AtomicU64,
}

/// Tables that the processor itself reads and, in the case of the task descriptor's busy bit, writes.
#[repr(C, align(16))]
struct Tables {
    gdt: [u64; GDT_ENTRIES],
    task_state: [u8; 104],
}

struct Shared<T>(UnsafeCell<T>);
// SAFETY: each element is written by one processor, before that processor uses it.
unsafe impl<T> Sync for Shared<T> {}

static CPUS: [Cpu; MAX_CPUS] = [const { Cpu::new() }; MAX_CPUS];
static TABLES: [Shared<Tables>; MAX_CPUS] =
    [const { Shared(UnsafeCell::new(Tables { gdt: [0; GDT_ENTRIES], task_state: [0; 104] })) }; MAX_CPUS];

unsafe extern "C" {
    static rt_gdt: [u64; GDT_ENTRIES];
}

impl Cpu {
    const fn new() -> Self {
        Self {
            own_address: AtomicU64::new(0),
            recover: AtomicU64::new(0),
            stack: AtomicU64::new(0),
            code: AtomicU64::new(0),
            scratch: AtomicU64::new(0),
            index: AtomicU64::new(0),
            fault_vector: AtomicU64::new(NO_FAULT),
            fault_error: AtomicU64::new(0),
            fault_rip: AtomicU64::new(0),
            fault_cr2: AtomicU64::new(0),
            task_state: AtomicU64::new(0),
        }
    }
}

/// This processor's block.
pub(crate) fn this() -> &'static Cpu {
    let address: usize;
    // SAFETY: `init` has set GS to the block, whose first word is its own address.
    unsafe { asm!("mov {}, gs:[0]", out(reg) address, options(nostack, preserves_flags, readonly)) };
    // SAFETY: the address of an element of CPUS, a static.
    unsafe { &*core::ptr::with_exposed_provenance::<Cpu>(address) }
}

/// This processor's number as counted by this guest: 0 for the first, then as passed to [`crate::start_cpu`].
#[must_use]
pub fn cpu_index() -> usize {
    this().index.load(Ordering::Relaxed) as usize
}

/// Gives this processor its block, tables and gates. `index` is below [`MAX_CPUS`].
pub(crate) fn init(index: usize) {
    let cpu = &CPUS[index];
    let address = core::ptr::from_ref(cpu).expose_provenance() as u64;
    cpu.own_address.store(address, Ordering::Relaxed);
    cpu.index.store(index as u64, Ordering::Relaxed);
    msr::write(MSR_GS_BASE, address);

    let tables = TABLES[index].0.get();
    let task_state = tables.expose_provenance() as u64 + core::mem::offset_of!(Tables, task_state) as u64;
    cpu.task_state.store(task_state, Ordering::Relaxed);
    // SAFETY: only this processor touches its tables, and it does not use them yet.
    let tables = unsafe { &mut *tables };
    // SAFETY: a constant table of the entry code.
    tables.gdt = unsafe { rt_gdt };
    // An available 64-bit task state of 104 bytes (AMD APM volume 2, section 4.8.3).
    tables.gdt[6] = 103 | ((task_state & 0xff_ffff) << 16) | (0x89 << 40) | ((task_state >> 24 & 0xff) << 56);
    tables.gdt[7] = task_state >> 32;
    // No I/O permission map.
    tables.task_state[102] = 104;
    let pointer = TablePointer::new(core::ptr::from_ref(&tables.gdt).expose_provenance() as u64, GDT_ENTRIES * 8);
    // SAFETY: the new table has the same entries as the one in use, and the task state it names lives for ever.
    unsafe {
        asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TASK_STATE, options(nostack, preserves_flags));
    }
    crate::trap::load_gates();
}

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
pub(crate) struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    pub(crate) const fn new(base: u64, bytes: usize) -> Self {
        Self { limit: bytes as u16 - 1, base }
    }
}

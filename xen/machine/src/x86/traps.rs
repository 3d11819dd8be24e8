//! Descriptor tables and the hypervisor's own interrupts and exceptions.
//!
//! Interrupts note work and return. An exception in the hypervisor is its own fault and ends in a panic with the registers.

use super::cpu::{self, PerCpu};
use super::{apic, serial};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

/// Interrupt vectors of the hypervisor.
pub(super) mod vector {
    pub(in crate::x86) const SERIAL: u8 = 0xf2;
    pub(in crate::x86) const KICK: u8 = 0xf1;
    pub(in crate::x86) const TIMER: u8 = 0xf0;
    pub(in crate::x86) const SPURIOUS: u8 = 0xff;
}

/// Vectors of devices. Nothing above them in their priority classes is theirs, so that the hypervisor's own always come through.
const DEVICE_VECTORS: core::ops::RangeInclusive<u8> =
    crate::platform::DeviceVector::FIRST..=crate::platform::DeviceVector::LAST;

/// Exceptions with stacks of their own, in the order of the task state's interrupt stack table: double fault, NMI, #MC.
pub(super) const EXCEPTION_STACKS: [u8; 3] = [8, 2, 18];

const CODE: u16 = 8;
const TASK: u16 = 24;

/// The 64-bit task state segment: only its interrupt stacks matter here.
#[repr(C, packed(4))]
pub(super) struct TaskState {
    reserved_0: u32,
    stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    port_map: u16,
}

impl TaskState {
    pub(super) const fn new() -> Self {
        Self {
            reserved_0: 0,
            stacks: [0; 3],
            reserved_1: 0,
            interrupt_stacks: [0; 7],
            reserved_2: 0,
            reserved_3: 0,
            port_map: size_of::<Self>() as u16,
        }
    }

    pub(super) fn set_stack(&mut self, number: usize, top: u64) {
        let mut stacks = self.interrupt_stacks;
        stacks[number] = top;
        self.interrupt_stacks = stacks;
    }
}

#[repr(C, packed(2))]
struct TablePointer {
    limit: u16,
    base: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

struct Gates(UnsafeCell<[Gate; 256]>);
// SAFETY: written once by the boot CPU before any other CPU runs, then only read by the processors' interrupt logic.
unsafe impl Sync for Gates {}
static GATES: Gates = Gates(UnsafeCell::new([Gate { low: 0, high: 0 }; 256]));

/// What an exception or interrupt leaves on the stack, lowest address first; `stubs` pushes the upper half.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Frame {
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rdi: u64,
    pub(super) rsi: u64,
    pub(super) rbp: u64,
    pub(super) rbx: u64,
    pub(super) rdx: u64,
    pub(super) rcx: u64,
    pub(super) rax: u64,
    pub(super) vector: u64,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

// One stub of 16 bytes for each vector: exceptions with an error code have it pushed by the processor, the others get a 0.
global_asm!(
    r#"
.section .text.traps, "ax", @progbits
.balign 16
trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
.endr
trap_common:
    cld
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    call trap_entry
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// Fills the interrupt descriptor table.
pub(super) fn initialise() {
    let stubs = core::ptr::addr_of!(trap_stubs) as u64;
    for vector in 0..256usize {
        let handler = stubs + vector as u64 * 16;
        let stack = EXCEPTION_STACKS.iter().position(|v| usize::from(*v) == vector).map_or(0, |n| n as u64 + 1);
        let low = handler & 0xffff | u64::from(CODE) << 16 | stack << 32 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48;
        // SAFETY: the boot CPU alone, before the table is loaded anywhere.
        unsafe { (*GATES.0.get())[vector] = Gate { low, high: handler >> 32 } };
    }
}

/// Loads descriptor tables and task state of a processor.
pub(super) fn load(me: &'static PerCpu) {
    let base = me.task_state.get().addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let task_low = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let table = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, task_low, base >> 32, 0, 0];
    // SAFETY: this processor's own cell, which nothing has loaded yet.
    unsafe { *me.descriptors.get() = table };
    let gdt = TablePointer { limit: 7 * 8 - 1, base: me.descriptors.get().addr() as u64 };
    let idt = TablePointer { limit: 256 * 16 - 1, base: GATES.0.get().addr() as u64 };
    // SAFETY: both tables are statics, filled above and in `initialise`; code and data selectors keep their meaning, and
    // the far return reloads CS. Loading null into FS does not touch the GS base, which `adopt` set.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "lidt [{idt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov {scratch:e}, 16",
            "mov ss, {scratch:e}",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "xor {scratch:e}, {scratch:e}",
            "lldt {scratch:x}",
            "ltr {task:x}",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            code = in(reg) u64::from(CODE),
            task = in(reg) u64::from(TASK),
            scratch = out(reg) _,
        );
    }
}

#[unsafe(no_mangle)]
extern "C" fn trap_entry(frame: &Frame) {
    match frame.vector as u8 {
        vector::TIMER => {
            cpu::note_work(crate::cpu::Work::TIMER.bits());
            apic::acknowledge();
        }
        // Whoever kicks has noted the work already.
        vector::KICK => apic::acknowledge(),
        vector::SERIAL => {
            serial::interrupt();
            cpu::note_work(crate::cpu::Work::CONSOLE.bits());
            apic::acknowledge();
        }
        vector::SPURIOUS => {}
        // The core ends it, after it has silenced a line that would ask again at once.
        device if DEVICE_VECTORS.contains(&device) => {
            cpu::note_vector(device);
            cpu::note_work(crate::cpu::Work::DEVICE.bits());
        }
        2 => super::panic::non_maskable(frame),
        0..=31 => super::panic::exception(frame),
        other => {
            apic::acknowledge();
            crate::log!(Warning, "interrupt on vector {other:#x} that nobody asked for");
        }
    }
}

//! Runs given machine code, in ring 0 or ring 3, with given registers, and tells how it ended.
//!
//! Tests that are about an instruction's exact bytes (prefixes, lengths, illegal operands, page ends) use this; the
//! compiler's own choice of encoding would not do. The switch itself is in execute.s.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use crate::cpu::{self, MAX_CPUS, USER_CODE, USER_CODE_32, USER_DATA};
use crate::paging::{self, PRESENT, USER, WRITABLE};
use crate::trap::{self, Fault, USER_RETURN};

global_asm!(include_str!("execute.s"), options(att_syntax));

/// Longest code that [`execute`] and [`execute_user`] take.
pub const MAX_CODE: usize = 1024;
const CODE_PAGE: usize = 4096;
/// Where user code and its stack are mapped; two pages per processor.
const USER_WINDOW: u64 = 0x0000_0100_0000_0000;
/// The same for 32-bit code, below 4 GiB: a page-table page replaces the 2 MiB page at this address.
const USER_WINDOW_32: u64 = 0xc000_0000;
const FLAGS: u64 = 0x2;

/// The general registers and flags before and after. Not RSP: the code runs on a stack of this crate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "registers by their names")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rflags: u64,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            rax: 0,
            rbx: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            rbp: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
            rflags: FLAGS,
        }
    }
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; CODE_PAGE]>);
// SAFETY: each page belongs to one processor.
unsafe impl Sync for Page {}

static CODE: [Page; MAX_CPUS] = [const { Page(UnsafeCell::new([0; CODE_PAGE])) }; MAX_CPUS];
static STACKS: [Page; MAX_CPUS] = [const { Page(UnsafeCell::new([0; CODE_PAGE])) }; MAX_CPUS];

unsafe extern "C" {
    fn rt_execute(code: u64, registers: *mut Registers);
    fn rt_execute_user(code: u64, registers: *mut Registers, stack: u64, code_selector: u64, stack_selector: u64);
}

/// Copies code and what ends it to this processor's page and gives the page's address.
fn place(code: &[u8], ending: &[u8]) -> u64 {
    assert!(code.len() <= MAX_CODE, "code of {} bytes", code.len());
    let page = &CODE[cpu::cpu_index()];
    // SAFETY: only this processor uses the page, and nothing executes in it now.
    let bytes = unsafe { &mut *page.0.get() };
    bytes[..code.len()].copy_from_slice(code);
    bytes[code.len()..code.len() + ending.len()].copy_from_slice(ending);
    page.0.get().expose_provenance() as u64
}

/// Runs `code` (RET is added) in ring 0.
///
/// # Errors
/// The first fault, at which the code ended; `registers` are those of that moment.
pub fn execute(code: &[u8], registers: &mut Registers) -> Result<(), Fault> {
    let address = place(code, &[0xc3]);
    execute_at(address, registers)
}

/// Runs the code at `address`, which ends with RET, in ring 0.
///
/// # Errors
/// As [`execute`].
pub fn execute_at(address: u64, registers: &mut Registers) -> Result<(), Fault> {
    trap::arm();
    // SAFETY: execute.s keeps the callee-saved registers and the stack, also across a fault. What the code does to memory
    // is the test's business, as with every instruction that a test chooses.
    unsafe { rt_execute(address, registers) };
    trap::outcome()
}

/// Runs `code` in ring 3, in 64-bit mode.
///
/// # Errors
/// As [`execute`].
pub fn execute_user(code: &[u8], registers: &mut Registers) -> Result<(), Fault> {
    run_user(code, registers, USER_WINDOW, USER_CODE)
}

/// Runs `code` in ring 3, in 32-bit compatibility mode.
///
/// # Errors
/// As [`execute`].
pub fn execute_user_32(code: &[u8], registers: &mut Registers) -> Result<(), Fault> {
    run_user(code, registers, USER_WINDOW_32, USER_CODE_32)
}

fn run_user(code: &[u8], registers: &mut Registers, window: u64, selector: u64) -> Result<(), Fault> {
    let physical = place(code, &[0xcd, USER_RETURN as u8]);
    let index = cpu::cpu_index();
    let base = window + index as u64 * 0x2000;
    paging::map(base, physical, PRESENT | WRITABLE | USER);
    paging::map(base + 0x1000, STACKS[index].0.get().expose_provenance() as u64, PRESENT | WRITABLE | USER);
    trap::arm();
    // SAFETY: as in `execute_at`; user code can reach its own two pages only.
    unsafe { rt_execute_user(base, registers, base + 0x1ff0, selector, USER_DATA) };
    trap::outcome()
}

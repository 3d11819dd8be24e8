//! x86-64: what the instruction set has no safe name for.

use core::arch::{asm, global_asm};

global_asm!(include_str!("entry.s"), options(att_syntax));

/// Names the function that a guest begins with: `fn(start_info: u64) -> !`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        #[expect(unsafe_code, reason = "the entry code finds it by this name")]
        extern "C" fn rt_main(start_info: u64) -> ! {
            let main: fn(u64) -> ! = $main;
            main(start_info)
        }
    };
}

/// Makes a hypercall with up to five arguments and gives what RAX holds afterwards. One function for all, never inlined: so
/// each hypercall comes from the same instruction, as with the hypercall page that kernels use.
#[inline(never)]
pub fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = arguments;
    let result: i64;
    // SAFETY: what a hypercall does to this guest's memory is what its arguments ask for; callers pass addresses of their
    // own buffers. No `nomem`: the compiler must assume that memory changes.
    unsafe {
        asm!("vmmcall", inout("rax") number => result, inout("rdi") a => _, inout("rsi") b => _, inout("rdx") c => _,
            inout("r10") d => _, inout("r8") e => _);
    }
    result
}

/// Reads a byte from a port.
pub fn input_8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: a port access changes no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads four bytes from a port.
pub fn input_32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `input_8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port.
pub fn output_8(port: u16, value: u8) {
    // SAFETY: as in `input_8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// CPUID: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The time stamp counter.
#[inline]
pub fn timestamp() -> u64 {
    // SAFETY: every 64-bit processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits for an interrupt with interrupts off: the end of this vCPU.
pub fn halt() -> ! {
    loop {
        // SAFETY: stops this vCPU; nothing is expected to go on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Stands in loops that wait for another processor or for time to pass.
#[inline]
pub fn pause() {
    core::hint::spin_loop();
}

/// Lets interrupts in.
pub fn enable_interrupts() {
    // SAFETY: the gates are set; handlers count and return.
    unsafe { asm!("sti", options(nostack)) };
}

/// Keeps interrupts out.
pub fn disable_interrupts() {
    // SAFETY: always allowed in ring 0.
    unsafe { asm!("cli", options(nostack)) };
}

/// Sleeps until an interrupt has been taken, with interrupts on meanwhile and off afterwards.
pub fn wait_for_interrupt() {
    // SAFETY: as in `enable_interrupts`; STI holds interrupts off for one more instruction, so none is slept through.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

macro_rules! registers {
    ($($name:ident, $set:ident, $register:literal;)*) => {$(
        #[doc = concat!("Reads ", $register, ".")]
        #[must_use]
        pub fn $name() -> u64 {
            let value: u64;
            // SAFETY: reading it changes nothing.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }

        #[doc = concat!("Writes ", $register, ", a value that leaves this code running.")]
        pub fn $set(value: u64) {
            // SAFETY: the caller chooses a value with which the same memory stays mapped and executable.
            unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    )*};
}

registers! {
    cr0, set_cr0, "cr0";
    cr3, set_cr3, "cr3";
    cr4, set_cr4, "cr4";
    dr0, set_dr0, "dr0";
    dr1, set_dr1, "dr1";
    dr2, set_dr2, "dr2";
    dr3, set_dr3, "dr3";
    dr6, set_dr6, "dr6";
    dr7, set_dr7, "dr7";
}

/// Tells an instruction-counting emulator that a measured operation begins (`nopl 0x4b4d0001(%rax)`).
#[inline]
pub fn marker_begin() {
    // SAFETY: a NOP.
    unsafe { asm!("nop dword ptr [rax + 0x4b4d0001]", options(nomem, nostack, preserves_flags)) };
}

/// Tells an instruction-counting emulator that a measured operation has ended (`nopl 0x4b4d0002(%rax)`).
#[inline]
pub fn marker_end() {
    // SAFETY: a NOP.
    unsafe { asm!("nop dword ptr [rax + 0x4b4d0002]", options(nomem, nostack, preserves_flags)) };
}

/// Tells an instruction-counting emulator that another operation is measured from now on (`nopl 0x4b4d0003(%rax)`).
#[inline]
pub fn marker_row() {
    // SAFETY: a NOP.
    unsafe { asm!("nop dword ptr [rax + 0x4b4d0003]", options(nomem, nostack, preserves_flags)) };
}

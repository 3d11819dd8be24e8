//! The end: a panic's epitaph on the console and in memory, and the ways to stop or restart the machine.

use super::traps::Frame;
use super::{apic, cpu, ports, serial};
use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Bytes of epitaph that a dump reader finds.
const EPITAPH_BYTES: usize = 4096;

/// What a reader of a memory dump looks for: a magic text, the length, then the epitaph as it went to the console.
#[repr(C, align(16))]
struct Epitaph {
    magic: [u8; 16],
    length: AtomicUsize,
    text: [AtomicU32; EPITAPH_BYTES / 4],
}

#[unsafe(no_mangle)]
static OXEN_EPITAPH: Epitaph = Epitaph {
    magic: *b"OXEN-EPITAPH-1\0\0",
    length: AtomicUsize::new(0),
    text: [const { AtomicU32::new(0) }; EPITAPH_BYTES / 4],
};

/// Seconds between the epitaph and the restart, as in Xen.
const SECONDS_TO_READ: u64 = 5;

static DYING: AtomicBool = AtomicBool::new(false);
static KEEP_STANDING: AtomicBool = AtomicBool::new(false);

/// Halt instead of restarting after a panic (`noreboot`).
pub fn set_no_reboot() {
    KEEP_STANDING.store(true, Ordering::Relaxed);
}

/// Writes past the console's lock, which the dying CPU may hold.
struct LastWords;

impl Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let at = OXEN_EPITAPH.length.load(Ordering::Relaxed);
            if let Some(word) = OXEN_EPITAPH.text.get(at / 4) {
                word.fetch_or(u32::from(byte) << (at % 4 * 8), Ordering::Relaxed);
                OXEN_EPITAPH.length.store(at + 1, Ordering::Relaxed);
            }
        }
        serial::console_write(text.as_bytes());
        Ok(())
    }
}

fn say(arguments: fmt::Arguments<'_>) {
    // `LastWords` cannot fail.
    LastWords.write_str("(XEN) ").and_then(|()| LastWords.write_fmt(arguments)).ok();
    LastWords.write_str("\n").ok();
}

/// Stops the other processors and makes sure that only the first to die speaks.
fn begin_dying() {
    if DYING.swap(true, Ordering::AcqRel) {
        halt();
    }
    for other in cpu::others() {
        apic::send(other.apic_id.load(Ordering::Relaxed), apic::COMMAND_NMI);
    }
    say(format_args!(""));
    say(format_args!("****************************************"));
    say(format_args!("Panic on CPU {}:", cpu::current_cpu().0));
}

fn end_dying() -> ! {
    match cpu::working_for() {
        Some((domain, vcpu)) => say(format_args!("while working for {domain}v{vcpu}")),
        None => say(format_args!("while working for no domain")),
    }
    say(format_args!("****************************************"));
    if KEEP_STANDING.load(Ordering::Relaxed) {
        say(format_args!("Manual reset required ('noreboot' specified)"));
        halt();
    }
    say(format_args!("Reboot in five seconds..."));
    cpu::pass(super::timestamp_khz() * 1000 * SECONDS_TO_READ);
    restart()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin_dying();
    if let Some(place) = info.location() {
        say(format_args!("{} at {}:{}", info.message(), place.file(), place.line()));
    } else {
        say(format_args!("{}", info.message()));
    }
    say_stack();
    end_dying()
}

/// Words on this stack that look like code addresses, for `addr2line`.
fn say_stack() {
    let stack: u64;
    // SAFETY: reads the stack pointer.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack)) };
    let [start, constants, ..] = super::boot::image_bounds();
    let top = (stack + 1).next_multiple_of(0x1000);
    say(format_args!("code addresses on the stack:"));
    for place in (stack..top).step_by(8).take(512) {
        // SAFETY: inside the page that the stack pointer is in, which is mapped.
        let word = unsafe { core::ptr::with_exposed_provenance::<u64>(place as usize).read_volatile() };
        if (start..constants).contains(&word) {
            say(format_args!("  {word:#x}"));
        }
    }
}

/// An exception in the hypervisor's own code.
pub(super) fn exception(frame: &Frame) -> ! {
    begin_dying();
    let (cr2, cr3): (u64, u64);
    // SAFETY: reads control registers.
    unsafe { asm!("mov {}, cr2", "mov {}, cr3", out(reg) cr2, out(reg) cr3, options(nomem, nostack)) };
    say(format_args!("exception {} (error code {:#x}) at {:#x}", frame.vector, frame.error_code, frame.rip));
    say(format_args!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", frame.rax, frame.rbx, frame.rcx, frame.rdx));
    say(format_args!("rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}", frame.rsi, frame.rdi, frame.rbp, frame.rsp));
    say(format_args!("r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", frame.r8, frame.r9, frame.r10, frame.r11));
    say(format_args!("r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}", frame.r12, frame.r13, frame.r14, frame.r15));
    say(format_args!("cs {:x} ss {:x} rflags {:x} cr2 {cr2:016x} cr3 {cr3:016x}", frame.cs, frame.ss, frame.rflags));
    say_stack();
    end_dying()
}

/// A non-maskable interrupt: a dying processor's order to stop, or a machine's cry.
pub(super) fn non_maskable(frame: &Frame) {
    if DYING.load(Ordering::Acquire) {
        halt();
    }
    crate::log!(Error, "non-maskable interrupt at {:#x}", frame.rip);
}

fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off only an NMI or SMI ends HLT; then it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Stops all processors for good.
pub fn stop() -> ! {
    if !DYING.swap(true, Ordering::AcqRel) {
        for other in cpu::others() {
            apic::send(other.apic_id.load(Ordering::Relaxed), apic::COMMAND_NMI);
        }
    }
    halt()
}

/// Restarts the machine: by the reset register of PC chipsets, by the keyboard controller, and if all else fails by a
/// fault that cannot be delivered.
pub fn restart() -> ! {
    ports::output_8(0xcf9, 0x02);
    ports::output_8(0xcf9, 0x06);
    ports::output_8(0x64, 0xfe);
    let empty = [0u16; 5];
    // SAFETY: an empty descriptor table makes the exception a triple fault, which resets the machine: that is the wish.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const empty) };
    halt()
}

//! The registers of the local APIC, by their offset in the page; as MSRs, offset / 16 counts from 0x800.

use super::{LVT_ENTRIES, SOFTWARE_ENABLE, WINDOW, ipi, lvt, timer};
use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::Vcpu;
use crate::x86::control::Refused;
use crate::x86::interrupts;
use core::sync::atomic::Ordering;
use machine::codec::registers::msr;
use machine::vcpu::Vcpu as Hardware;

/// Offsets (APM volume 2, table 16-2).
#[expect(missing_docs, reason = "the manual's own names")]
pub mod offset {
    pub const ID: u16 = 0x20;
    pub const VERSION: u16 = 0x30;
    pub const TPR: u16 = 0x80;
    pub const PPR: u16 = 0xa0;
    pub const EOI: u16 = 0xb0;
    pub const LDR: u16 = 0xd0;
    pub const DFR: u16 = 0xe0;
    pub const SPURIOUS: u16 = 0xf0;
    pub const ISR: u16 = 0x100;
    pub const TMR: u16 = 0x180;
    pub const IRR: u16 = 0x200;
    pub const IRR_LAST: u16 = 0x270;
    pub const ESR: u16 = 0x280;
    pub const CMCI: u16 = 0x2f0;
    pub const ICR: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_THERMAL: u16 = 0x330;
    pub const LVT_PERFORMANCE: u16 = 0x340;
    pub const LVT_LINT0: u16 = 0x350;
    pub const LVT_LINT1: u16 = 0x360;
    pub const LVT_ERROR: u16 = 0x370;
    pub const TIMER_INITIAL: u16 = 0x380;
    pub const TIMER_CURRENT: u16 = 0x390;
    pub const TIMER_DIVIDE: u16 = 0x3e0;
    pub const SELF_IPI: u16 = 0x3f0;
}
use offset::{
    CMCI, DFR, EOI, ESR, ICR, ICR_HIGH, ID, IRR, IRR_LAST, ISR, LDR, LVT_ERROR, LVT_LINT0, LVT_LINT1, LVT_PERFORMANCE,
    LVT_THERMAL, LVT_TIMER, PPR, SELF_IPI, SPURIOUS, TIMER_CURRENT, TIMER_DIVIDE, TIMER_INITIAL, TMR, TPR, VERSION,
};

/// Version 0x14 with six local vector table entries, as Xen's.
pub const VERSION_VALUE: u32 = 0x0005_0014;

/// Bits that an entry of the local vector table keeps.
const LVT_COMMON: u32 = lvt::MASKED | 1 << 12 | lvt::VECTOR;
const LVT_MODE: u32 = 7 << 8;
const LVT_PINS: u32 = LVT_COMMON | LVT_MODE | 1 << 13 | 1 << 14 | 1 << 15;
pub(super) const LVT_BITS: [u32; LVT_ENTRIES] =
    [LVT_COMMON | 1 << 17, LVT_COMMON | LVT_MODE, LVT_COMMON | LVT_MODE, LVT_PINS, LVT_PINS, LVT_COMMON];

/// Bits of a command that a guest may write in x2APIC mode.
const COMMAND_BITS: u64 = 0xffff_ffff_000c_cfff;
/// The delivery status of a command: it is never pending here.
const COMMAND_PENDING: u32 = 1 << 12;

fn lvt_index(register: u16) -> Option<usize> {
    let index = usize::from(register.checked_sub(LVT_TIMER)? >> 4);
    (index < LVT_ENTRIES).then_some(index)
}

/// What a register reads as; zero if there is none at this offset.
#[inline]
pub fn read(vcpu: &Vcpu, register: u16) -> u32 {
    let lapic = &vcpu.x86.lapic;
    let load = |register: &core::sync::atomic::AtomicU32| register.load(Ordering::Acquire);
    match register & 0xff0 {
        ID if lapic.is_x2apic() => lapic.id(),
        ID => lapic.id() << 24,
        VERSION => VERSION_VALUE,
        TPR => load(&lapic.task_priority),
        PPR => u32::from(lapic.processor_priority()),
        LDR => load(&lapic.logical),
        DFR if lapic.is_x2apic() => 0,
        DFR => load(&lapic.format),
        SPURIOUS => load(&lapic.spurious),
        ESR => load(&lapic.errors),
        ICR => (lapic.command.load(Ordering::Acquire) & 0xffff_ffff) as u32,
        ICR_HIGH => (lapic.command.load(Ordering::Acquire) >> 32) as u32,
        TIMER_INITIAL => lapic.timer.initial(),
        TIMER_CURRENT => timer::current_count(vcpu),
        TIMER_DIVIDE => lapic.timer.divide_configuration(),
        other => match (other, lvt_index(other)) {
            (_, Some(index)) => lapic.lvt.get(index).map_or(0, load),
            (ISR..TMR, None) => lapic.in_service.register(usize::from(other - ISR) >> 4),
            (TMR..IRR, None) => lapic.level.register(usize::from(other - TMR) >> 4),
            (IRR..=IRR_LAST, None) => lapic.requested.register(usize::from(other - IRR) >> 4),
            _ => 0,
        },
    }
}

/// Writes a register; read-only ones and places without one are ignored.
pub fn write(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, register: u16, value: u32) {
    let lapic = &vcpu.x86.lapic;
    let store = |register: &core::sync::atomic::AtomicU32, value| register.store(value, Ordering::Release);
    match register & 0xff0 {
        EOI => {
            if let Some(vector) = lapic.end_of_interrupt() {
                domain.x86.end_of_interrupt(host, domain, vector);
            }
        }
        TPR => {
            lapic.set_task_priority((value & 0xff) as u8);
            hardware.set_task_priority(u64::from(value >> 4 & 0xf));
        }
        LDR if !lapic.is_x2apic() => store(&lapic.logical, value & 0xff00_0000),
        DFR if !lapic.is_x2apic() => store(&lapic.format, value | 0x0fff_ffff),
        SPURIOUS => write_spurious(host, domain, vcpu, value),
        ESR => store(&lapic.errors, lapic.new_errors.swap(0, Ordering::AcqRel)),
        ICR => {
            let low = value & !COMMAND_PENDING;
            let high = lapic.command.load(Ordering::Acquire) >> 32;
            lapic.command.store(high << 32 | u64::from(low), Ordering::Release);
            ipi::send(host, domain, vcpu, low, high as u32);
        }
        ICR_HIGH => {
            let low = lapic.command.load(Ordering::Acquire) & 0xffff_ffff;
            lapic.command.store(u64::from(value & 0xff00_0000) << 32 | low, Ordering::Release);
        }
        TIMER_INITIAL => timer::set_initial(host, vcpu, value),
        TIMER_DIVIDE => timer::set_divide(host, vcpu, value),
        other => write_lvt(host, vcpu, other, value),
    }
}

fn write_lvt(host: &Host, vcpu: &Vcpu, register: u16, value: u32) {
    let lapic = &vcpu.x86.lapic;
    let Some(index) = lvt_index(register) else { return };
    let (Some(entry), Some(bits)) = (lapic.lvt.get(index), LVT_BITS.get(index)) else { return };
    let is_off = lapic.spurious.load(Ordering::Acquire) & SOFTWARE_ENABLE == 0;
    let value = value & bits | if is_off { lvt::MASKED } else { 0 };
    if register == LVT_TIMER {
        timer::change(host, vcpu, || entry.store(value, Ordering::Release));
    } else {
        entry.store(value, Ordering::Release);
    }
}

/// Turning the APIC off masks all local sources. Turning it on delivers the events that came while it was off: their
/// vector was dropped then.
fn write_spurious(host: &Host, domain: &Domain, vcpu: &Vcpu, value: u32) {
    let lapic = &vcpu.x86.lapic;
    let old = lapic.spurious.swap(value & 0x3ff, Ordering::AcqRel);
    if value & SOFTWARE_ENABLE == 0 {
        for entry in &lapic.lvt {
            entry.fetch_or(lvt::MASKED, Ordering::AcqRel);
        }
    } else if old & SOFTWARE_ENABLE == 0 {
        interrupts::repeat_upcall(host, domain, vcpu);
    }
}

/// Reads an x2APIC register.
///
/// # Errors
/// [`Refused`] outside of x2APIC mode, and for what cannot be read.
pub fn read_msr(vcpu: &Vcpu, number: u32) -> Result<u64, Refused> {
    let register = msr_offset(vcpu, number)?;
    let is_readable = matches!(
        register,
        ID | VERSION | TPR | PPR | LDR | SPURIOUS | ISR..=IRR_LAST | ESR | ICR | CMCI | LVT_TIMER..=TIMER_CURRENT | TIMER_DIVIDE
    );
    if !is_readable {
        return Err(Refused);
    }
    if register == ICR {
        return Ok(vcpu.x86.lapic.command.load(Ordering::Acquire));
    }
    Ok(u64::from(read(vcpu, register)))
}

/// Writes an x2APIC register.
///
/// # Errors
/// [`Refused`] outside of x2APIC mode, for reserved bits, and for what cannot be written.
pub fn write_msr(
    host: &Host,
    domain: &Domain,
    vcpu: &Vcpu,
    hardware: &mut Hardware,
    number: u32,
    value: u64,
) -> Result<(), Refused> {
    let register = msr_offset(vcpu, number)?;
    let allowed: u64 = match register {
        TPR | SELF_IPI => 0xff,
        EOI | ESR => 0,
        SPURIOUS => 0x3ff,
        ICR => COMMAND_BITS,
        LVT_TIMER => u64::from(LVT_COMMON | 0b11 << 17),
        LVT_THERMAL | LVT_PERFORMANCE | CMCI => u64::from(LVT_COMMON | LVT_MODE),
        LVT_LINT0 | LVT_LINT1 => u64::from(LVT_PINS),
        LVT_ERROR => u64::from(LVT_COMMON),
        TIMER_INITIAL => u64::from(u32::MAX),
        TIMER_DIVIDE => 0b1011,
        _ => return Err(Refused),
    };
    if value & !allowed != 0 {
        return Err(Refused);
    }
    let low = (value & 0xffff_ffff) as u32;
    match register {
        ICR => {
            vcpu.x86.lapic.command.store(value, Ordering::Release);
            ipi::send(host, domain, vcpu, low, (value >> 32) as u32);
        }
        SELF_IPI => super::post_vector(host, domain, vcpu, (low & 0xff) as u8),
        _ => write(host, domain, vcpu, hardware, register, low),
    }
    Ok(())
}

fn msr_offset(vcpu: &Vcpu, number: u32) -> Result<u16, Refused> {
    let index = number.checked_sub(msr::X2APIC_FIRST).filter(|index| *index < 0x100).ok_or(Refused)?;
    if !vcpu.x86.lapic.is_x2apic() {
        return Err(Refused);
    }
    u16::try_from(index << 4).map_err(|_| Refused)
}

/// Reads `size` bytes of the register page. Registers are 4 bytes at every 16; what lies between reads as zeroes.
#[inline]
pub fn mmio_read(vcpu: &Vcpu, address: u64, size: u8) -> u64 {
    let at = (address & (WINDOW - 1)) as u16;
    let inside = u32::from(at & 0xf);
    if inside > 3 {
        return 0;
    }
    let value = u64::from(read(vcpu, at)) >> (inside * 8);
    if size >= 8 { value } else { value & ((1 << (u32::from(size) * 8)) - 1) }
}

/// Writes to the register page. Only aligned 4-byte writes reach a register, and the last of 8 bytes are dropped; narrower
/// writes change their part of it, as in Xen.
pub fn mmio_write(
    host: &Host,
    domain: &Domain,
    vcpu: &Vcpu,
    hardware: &mut Hardware,
    address: u64,
    size: u8,
    value: u64,
) {
    let at = (address & (WINDOW - 1)) as u16;
    let inside = u32::from(at & 0xf);
    if inside > 3 {
        return;
    }
    let value = (value & 0xffff_ffff) as u32;
    if size >= 4 && inside == 0 {
        return write(host, domain, vcpu, hardware, at, value);
    }
    let mask = (1u32.checked_shl(u32::from(size) * 8).unwrap_or(0)).wrapping_sub(1) << (inside * 8);
    let merged = read(vcpu, at) & !mask | value << (inside * 8) & mask;
    write(host, domain, vcpu, hardware, at, merged);
}

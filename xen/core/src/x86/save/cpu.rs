//! The CPU record: registers, segments, system-call MSRs, the event in delivery.

use crate::domain::Domain;
use crate::x86::control::{CR0_BITS, cr4_bits, efer_bits};
use crate::x86::interrupts;
use machine::codec::registers::{Register, cr0, cr4, efer, rflags};
use machine::codec::vmcb::{GuestState, Segment, event};
use machine::vcpu::{InterruptShadow, Vcpu as Hardware};
use public_abi::Errno;
use public_abi::arch_hvm_save::{FPU_INITIALISED, HvmHwCpu};

/// Bits of RFLAGS that exist.
const RFLAGS: u64 = 0x003f_7fd5;

/// Attributes as the VMCB and the record have them: descriptor bits 47:40 in bits 7:0, 55:52 in bits 11:8. Old streams
/// from Intel hosts have the latter in bits 15:12, which Xen's tools and Xen itself have long ceased to write.
const fn packed(attributes: u32) -> u16 {
    let is_old = attributes & 0xf000 != 0 && attributes & 0x0f00 == 0;
    let high = if is_old { attributes >> 4 } else { attributes } & 0xf00;
    (attributes & 0xff | high) as u16
}

/// A segment register from the record's four fields.
fn segment(selector: u32, attributes: u32, limit: u32, base: u64) -> Result<Segment, Errno> {
    let selector = u16::try_from(selector).map_err(|_| Errno::EINVAL)?;
    Ok(Segment { selector, attributes: packed(attributes), limit, base })
}

/// The state of a vCPU that is off its CPU.
pub(super) fn save(hardware: &Hardware) -> HvmHwCpu {
    let state = hardware.guest();
    let lazy = hardware.lazy();
    let register = |register| hardware.register(register);
    let [dr0, dr1, dr2, dr3] = lazy.debug_address;
    let event = interrupts::event_in_delivery(hardware.control());
    let is_pending = event & event::VALID != 0;
    let mut record = HvmHwCpu {
        rax: register(Register::Rax),
        rbx: register(Register::Rbx),
        rcx: register(Register::Rcx),
        rdx: register(Register::Rdx),
        rbp: register(Register::Rbp),
        rsi: register(Register::Rsi),
        rdi: register(Register::Rdi),
        rsp: register(Register::Rsp),
        r8: register(Register::R8),
        r9: register(Register::R9),
        r10: register(Register::R10),
        r11: register(Register::R11),
        r12: register(Register::R12),
        r13: register(Register::R13),
        r14: register(Register::R14),
        r15: register(Register::R15),
        rip: state.rip,
        rflags: state.rflags,
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        dr0,
        dr1,
        dr2,
        dr3,
        dr6: state.dr6,
        dr7: state.dr7,
        sysenter_cs: state.sysenter_cs,
        sysenter_esp: state.sysenter_esp,
        sysenter_eip: state.sysenter_eip,
        shadow_gs: state.kernel_gs_base,
        msr_lstar: state.lstar,
        msr_star: state.star,
        msr_cstar: state.cstar,
        msr_syscall_mask: state.sfmask,
        msr_efer: state.efer(),
        msr_tsc_aux: lazy.tsc_aux,
        tsc: machine::cpu::timestamp().wrapping_add(hardware.control().tsc_offset),
        pending_event: if is_pending { (event & 0xffff_ffff) as u32 } else { 0 },
        error_code: if is_pending { (event >> 32) as u32 } else { 0 },
        flags: FPU_INITIALISED,
        ..HvmHwCpu::default()
    };
    super::xsave::copy_legacy(lazy, &mut record.fpu_regs);
    save_segments(state, &mut record);
    record
}

macro_rules! segments {
    ($($name:ident: $selector:ident $limit:ident $base:ident $attributes:ident;)*) => {
        fn save_segments(state: &GuestState, record: &mut HvmHwCpu) {
            $(
                record.$selector = u32::from(state.$name.selector);
                record.$limit = state.$name.limit;
                record.$base = state.$name.base;
                record.$attributes = u32::from(state.$name.attributes);
            )*
            (record.idtr_limit, record.idtr_base) = (state.idtr.limit, state.idtr.base);
            (record.gdtr_limit, record.gdtr_base) = (state.gdtr.limit, state.gdtr.base);
        }

        fn load_segments(state: &mut GuestState, record: &HvmHwCpu) -> Result<(), Errno> {
            $(state.$name = segment(record.$selector, record.$attributes, record.$limit, record.$base)?;)*
            let table = |limit, base| Segment { selector: 0, attributes: 0, limit, base };
            state.idtr = table(record.idtr_limit, record.idtr_base);
            state.gdtr = table(record.gdtr_limit, record.gdtr_base);
            Ok(())
        }
    };
}
segments! {
    cs: cs_sel cs_limit cs_base cs_arbytes;
    ds: ds_sel ds_limit ds_base ds_arbytes;
    es: es_sel es_limit es_base es_arbytes;
    fs: fs_sel fs_limit fs_base fs_arbytes;
    gs: gs_sel gs_limit gs_base gs_arbytes;
    ss: ss_sel ss_limit ss_base ss_arbytes;
    tr: tr_sel tr_limit tr_base tr_arbytes;
    ldtr: ldtr_sel ldtr_limit ldtr_base ldtr_arbytes;
}

fn is_canonical(address: u64) -> bool {
    let high = address.cast_signed() >> 47;
    high == 0 || high == -1
}

/// The event that is to be delivered first, if it is one that a VMCB may hold (APM volume 2, 15.20).
fn pending_event(record: &HvmHwCpu) -> Result<u64, Errno> {
    const KNOWN: u64 = event::VALID | event::HAS_ERROR | event::TYPE_MASK | event::VECTOR_MASK;
    let bits = u64::from(record.pending_event);
    if bits & event::VALID == 0 {
        return Ok(0);
    }
    let vector = bits & event::VECTOR_MASK;
    let is_good = match bits & event::TYPE_MASK {
        event::INTERRUPT | event::SOFTWARE => true,
        event::NMI => vector == 2,
        event::EXCEPTION => vector != 2 && vector < 32,
        _ => false,
    };
    if !is_good || bits & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(bits | u64::from(record.error_code) << 32)
}

/// Checks what does not depend on other registers' new values.
fn check(domain: &Domain, record: &HvmHwCpu) -> Result<(), Errno> {
    let policy = domain.x86.policy();
    let is_on = |bit: u64| record.cr0 & bit != 0;
    let (lme, lma) = (record.msr_efer & efer::LME != 0, record.msr_efer & efer::LMA != 0);
    let pages = [record.fs_base, record.gs_base, record.shadow_gs, record.msr_lstar, record.msr_cstar];
    let more = [record.sysenter_esp, record.sysenter_eip, record.gdtr_base, record.idtr_base, record.tr_base];
    let good = record.cr0 & !CR0_BITS == 0
        && (!is_on(cr0::PG) || is_on(cr0::PE))
        && (!is_on(cr0::NW) || is_on(cr0::CD))
        && record.cr4 & !cr4_bits(&policy) == 0
        && record.msr_efer & !(efer_bits(&policy) | efer::LMA) == 0
        && lma == (lme && is_on(cr0::PG))
        && (!lma || record.cr4 & cr4::PAE != 0)
        && (lma || record.cr4 & cr4::PCIDE == 0)
        && record.cr3.checked_shr(policy.physical_address_bits()).unwrap_or(0) == 0
        && record.dr6 >> 32 == 0
        && record.dr7 >> 32 == 0
        && record.flags & !FPU_INITIALISED == 0
        && record.pad0 == 0
        && record.msr_tsc_aux >> 32 == 0
        && pages.into_iter().chain(more).all(is_canonical);
    if good { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Takes a record into a vCPU that is off its CPU; all but the time stamp counter, which others show as well.
pub(super) fn load(domain: &Domain, hardware: &mut Hardware, record: &HvmHwCpu) -> Result<(), Errno> {
    check(domain, record)?;
    let event = pending_event(record)?;
    super::xsave::check_legacy(domain, record)?;
    let mut segments = GuestState::ZERO;
    load_segments(&mut segments, record)?;
    segments.set_efer(record.msr_efer);
    // Both L and D: the processor refuses to run that.
    const DEFAULT_32: u16 = 1 << 10;
    if segments.is_64_bit() && segments.cs.attributes & DEFAULT_32 != 0 {
        return Err(Errno::EINVAL);
    }
    // From here nothing fails.
    let state = hardware.guest_mut();
    let from = &segments;
    (state.cs, state.ds, state.es, state.fs, state.gs, state.ss) =
        (from.cs, from.ds, from.es, from.fs, from.gs, from.ss);
    (state.tr, state.ldtr, state.gdtr, state.idtr) = (from.tr, from.ldtr, from.gdtr, from.idtr);
    // The privilege level is the stack segment's.
    state.cpl = (state.ss.attributes >> 5 & 3) as u8;
    (state.rip, state.rflags) = (record.rip, record.rflags & RFLAGS | rflags::RESERVED_1);
    (state.cr0, state.cr2, state.cr3, state.cr4) = (record.cr0 | cr0::ET, record.cr2, record.cr3, record.cr4);
    (state.dr6, state.dr7) = (record.dr6 | 0xffff_0ff0, record.dr7 | 0x400);
    (state.sysenter_cs, state.sysenter_esp) = (record.sysenter_cs, record.sysenter_esp);
    (state.sysenter_eip, state.kernel_gs_base) = (record.sysenter_eip, record.shadow_gs);
    (state.star, state.lstar, state.cstar) = (record.msr_star, record.msr_lstar, record.msr_cstar);
    state.sfmask = record.msr_syscall_mask;
    state.set_efer(record.msr_efer);
    hardware.inject(event);
    let _forgotten = hardware.take_interrupted_event();
    hardware.set_interrupt_shadow(InterruptShadow::No);
    let lazy = hardware.lazy_mut();
    lazy.debug_address = [record.dr0, record.dr1, record.dr2, record.dr3];
    lazy.tsc_aux = record.msr_tsc_aux;
    super::xsave::load_legacy(lazy, record);
    let general = [
        (Register::Rax, record.rax),
        (Register::Rbx, record.rbx),
        (Register::Rcx, record.rcx),
        (Register::Rdx, record.rdx),
        (Register::Rbp, record.rbp),
        (Register::Rsi, record.rsi),
        (Register::Rdi, record.rdi),
        (Register::Rsp, record.rsp),
        (Register::R8, record.r8),
        (Register::R9, record.r9),
        (Register::R10, record.r10),
        (Register::R11, record.r11),
        (Register::R12, record.r12),
        (Register::R13, record.r13),
        (Register::R14, record.r14),
        (Register::R15, record.r15),
    ];
    for (register, value) in general {
        hardware.set_register(register, value);
    }
    hardware.flush_translations();
    Ok(())
}

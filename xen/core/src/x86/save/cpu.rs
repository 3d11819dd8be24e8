//! The CPU record: registers, segments, system-call MSRs, the event in delivery.

use crate::domain::Domain;
use crate::x86::control::{CR0_BITS, cr4_bits, efer_bits};
use crate::x86::instruction::is_64_bit;
use crate::x86::interrupts;
use machine::codec::registers::{Register, cr0, cr4, efer, rflags};
use machine::codec::vmcb::{Segment, Vmcb, event};
use machine::vcpu::Vcpu as Hardware;
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
    let vmcb = hardware.vmcb();
    let lazy = hardware.lazy();
    let register = |register| hardware.register(register);
    let [dr0, dr1, dr2, dr3] = lazy.debug_address;
    let event = interrupts::event_in_delivery(vmcb);
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
        rip: vmcb.rip,
        rflags: vmcb.rflags,
        cr0: vmcb.cr0,
        cr2: vmcb.cr2,
        cr3: vmcb.cr3,
        cr4: vmcb.cr4,
        dr0,
        dr1,
        dr2,
        dr3,
        dr6: vmcb.dr6,
        dr7: vmcb.dr7,
        sysenter_cs: vmcb.sysenter_cs,
        sysenter_esp: vmcb.sysenter_esp,
        sysenter_eip: vmcb.sysenter_eip,
        shadow_gs: vmcb.kernel_gs_base,
        msr_lstar: vmcb.lstar,
        msr_star: vmcb.star,
        msr_cstar: vmcb.cstar,
        msr_syscall_mask: vmcb.sfmask,
        msr_efer: vmcb.efer & !efer::SVME,
        msr_tsc_aux: lazy.tsc_aux,
        tsc: machine::cpu::timestamp().wrapping_add(vmcb.tsc_offset),
        pending_event: if is_pending { (event & 0xffff_ffff) as u32 } else { 0 },
        error_code: if is_pending { (event >> 32) as u32 } else { 0 },
        flags: FPU_INITIALISED,
        ..HvmHwCpu::default()
    };
    super::xsave::copy_legacy(lazy, &mut record.fpu_regs);
    save_segments(vmcb, &mut record);
    record
}

macro_rules! segments {
    ($($name:ident: $selector:ident $limit:ident $base:ident $attributes:ident;)*) => {
        fn save_segments(vmcb: &Vmcb, record: &mut HvmHwCpu) {
            $(
                record.$selector = u32::from(vmcb.$name.selector);
                record.$limit = vmcb.$name.limit;
                record.$base = vmcb.$name.base;
                record.$attributes = u32::from(vmcb.$name.attributes);
            )*
            (record.idtr_limit, record.idtr_base) = (vmcb.idtr.limit, vmcb.idtr.base);
            (record.gdtr_limit, record.gdtr_base) = (vmcb.gdtr.limit, vmcb.gdtr.base);
        }

        fn load_segments(vmcb: &mut Vmcb, record: &HvmHwCpu) -> Result<(), Errno> {
            $(vmcb.$name = segment(record.$selector, record.$attributes, record.$limit, record.$base)?;)*
            let table = |limit, base| Segment { selector: 0, attributes: 0, limit, base };
            vmcb.idtr = table(record.idtr_limit, record.idtr_base);
            vmcb.gdtr = table(record.gdtr_limit, record.gdtr_base);
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
    let mut segments = Vmcb::ZERO;
    load_segments(&mut segments, record)?;
    segments.efer = record.msr_efer;
    // Both L and D: the processor refuses to run that.
    const DEFAULT_32: u16 = 1 << 10;
    if is_64_bit(&segments) && segments.cs.attributes & DEFAULT_32 != 0 {
        return Err(Errno::EINVAL);
    }
    // From here nothing fails.
    let vmcb = hardware.vmcb_mut();
    let from = &segments;
    (vmcb.cs, vmcb.ds, vmcb.es, vmcb.fs, vmcb.gs, vmcb.ss) = (from.cs, from.ds, from.es, from.fs, from.gs, from.ss);
    (vmcb.tr, vmcb.ldtr, vmcb.gdtr, vmcb.idtr) = (from.tr, from.ldtr, from.gdtr, from.idtr);
    // The privilege level is the stack segment's.
    vmcb.cpl = (vmcb.ss.attributes >> 5 & 3) as u8;
    (vmcb.rip, vmcb.rflags) = (record.rip, record.rflags & RFLAGS | rflags::RESERVED_1);
    (vmcb.cr0, vmcb.cr2, vmcb.cr3, vmcb.cr4) = (record.cr0 | cr0::ET, record.cr2, record.cr3, record.cr4);
    (vmcb.dr6, vmcb.dr7) = (record.dr6 | 0xffff_0ff0, record.dr7 | 0x400);
    (vmcb.sysenter_cs, vmcb.sysenter_esp) = (record.sysenter_cs, record.sysenter_esp);
    (vmcb.sysenter_eip, vmcb.kernel_gs_base) = (record.sysenter_eip, record.shadow_gs);
    (vmcb.star, vmcb.lstar, vmcb.cstar) = (record.msr_star, record.msr_lstar, record.msr_cstar);
    vmcb.sfmask = record.msr_syscall_mask;
    vmcb.efer = record.msr_efer | efer::SVME;
    (vmcb.event_injection, vmcb.exit_int_info, vmcb.interrupt_shadow) = (event, 0, 0);
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

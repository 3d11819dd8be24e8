//! VCPUOP_initialise: the first registers of a vCPU that is down (public/hvm/hvm_vcpu.h).
//!
//! The checks are those of Xen 4.17: they refuse states in which a processor cannot begin to run. After this, VCPUOP_up
//! starts the vCPU.

use super::Caller;
use crate::outcome::Stop;
use crate::vcpu::Vcpu;
use crate::x86::control;
use core::sync::atomic::Ordering;
use machine::codec::registers::{Register, cr0, cr4, efer, rflags};
use machine::codec::vmcb::Segment;
use public_abi::vcpu::{VCPU_HVM_MODE_32B, VCPU_HVM_MODE_64B, VcpuHvmContext, VcpuHvmX86_32, VcpuHvmX86_64};
use public_abi::{Errno, GuestPtr};

/// Attribute bits of a segment: accessed, writable (data) or readable (code), code, not a system segment, present, granular.
const ACCESSED: u16 = 1 << 0;
const BUSY: u16 = 1 << 1;
const WRITABLE: u16 = 1 << 1;
const CODE: u16 = 1 << 3;
const NOT_SYSTEM: u16 = 1 << 4;
const PRESENT: u16 = 1 << 7;
const GRANULAR: u16 = 1 << 11;
/// Attributes are 12 bits; type is their lowest four.
const ATTRIBUTES: u16 = 0xfff;
const TYPE: u16 = 0xf;
/// The type of a 32-bit or 64-bit TSS in use.
const BUSY_TSS: u16 = 11;

/// The registers that a context sets; all others are as after reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Registers {
    general: [(Register, u64); 8],
    rip: u64,
    rflags: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    cs: Segment,
    ds: Segment,
    es: Segment,
    ss: Segment,
    tr: Segment,
}

/// Sets the registers of a vCPU of the caller's.
///
/// # Errors
/// EFAULT; EEXIST if they were set before; EINVAL for a state in which no processor runs.
pub fn initialise(caller: &Caller<'_>, vcpu: &Vcpu, argument: GuestPtr<VcpuHvmContext>) -> Result<(), Stop> {
    let context = caller.memory.read(argument)?;
    // One initialisation at a time: the flag and the registers change together.
    let _one = caller.domain.control.lock();
    if vcpu.is_initialised.load(Ordering::Acquire) {
        return Err(Errno::EEXIST.into());
    }
    let (cr4_bits, efer_bits) = {
        let policy = caller.domain.x86.policy();
        (control::cr4_bits(&policy), control::efer_bits(&policy))
    };
    let registers = decode(&context, cr4_bits, efer_bits)?;
    // A vCPU that was never initialised has never run, so nobody holds its registers for long.
    let Some(mut hardware) = vcpu.hardware.try_lock() else { return Err(Stop::Restart(None)) };
    crate::x86::interrupts::settle(caller.host, vcpu, &mut hardware);
    hardware.reset();
    for (register, value) in registers.general {
        hardware.set_register(register, value);
    }
    let state = hardware.guest_mut();
    (state.rip, state.rflags) = (registers.rip, registers.rflags);
    (state.cr0, state.cr3, state.cr4) = (registers.cr0, registers.cr3, registers.cr4);
    state.set_efer(registers.efer);
    (state.cs, state.ds, state.es) = (registers.cs, registers.ds, registers.es);
    (state.ss, state.tr) = (registers.ss, registers.tr);
    state.cpl = privilege(registers.ss);
    crate::x86::msr::synchronise_timestamp(caller.host, caller.domain, vcpu, &mut hardware);
    vcpu.x86.set_halted(false);
    vcpu.is_initialised.store(true, Ordering::Release);
    Ok(())
}

/// The privilege level in a segment's attributes.
const fn privilege(segment: Segment) -> u8 {
    let [low, _] = segment.attributes.to_le_bytes();
    low >> 5 & 3
}

fn decode(context: &VcpuHvmContext, cr4_bits: u64, efer_bits: u64) -> Result<Registers, Errno> {
    if context.pad != 0 {
        return Err(Errno::EINVAL);
    }
    let mut registers = match context.mode {
        VCPU_HVM_MODE_32B => decode_32(&context.get())?,
        VCPU_HVM_MODE_64B => decode_64(&context.get())?,
        _ => return Err(Errno::EINVAL),
    };
    if registers.efer & efer::LME != 0 && registers.cr0 & cr0::PG != 0 {
        registers.efer |= efer::LMA;
    }
    let has_unknown_bits = registers.cr4 & !cr4_bits != 0 || registers.efer & !(efer_bits | efer::LMA) != 0;
    // CR0 beyond what exists, and paging without protection, are states that VMRUN refuses.
    let bad_cr0 = registers.cr0 >> 32 != 0
        || registers.cr0 & (cr0::PG | cr0::PE) == cr0::PG
        || registers.cr0 & (cr0::NW | cr0::CD) == cr0::NW;
    let bad_long_mode = registers.efer & efer::LMA != 0 && registers.cr4 & cr4::PAE == 0;
    if has_unknown_bits || bad_cr0 || bad_long_mode {
        return Err(Errno::EINVAL);
    }
    registers.cr0 |= cr0::ET;
    registers.rflags |= rflags::RESERVED_1;
    Ok(registers)
}

fn decode_32(context: &VcpuHvmX86_32) -> Result<Registers, Errno> {
    if context.pad1 != 0 || context.pad2 != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let registers = Registers {
        general: [
            (Register::Rax, u64::from(context.eax)),
            (Register::Rcx, u64::from(context.ecx)),
            (Register::Rdx, u64::from(context.edx)),
            (Register::Rbx, u64::from(context.ebx)),
            (Register::Rsp, u64::from(context.esp)),
            (Register::Rbp, u64::from(context.ebp)),
            (Register::Rsi, u64::from(context.esi)),
            (Register::Rdi, u64::from(context.edi)),
        ],
        rip: u64::from(context.eip),
        rflags: u64::from(context.eflags),
        cr0: u64::from(context.cr0),
        cr3: u64::from(context.cr3),
        cr4: u64::from(context.cr4),
        efer: context.efer,
        cs: segment(Place::Cs, context.cs_base, context.cs_limit, context.cs_ar)?,
        ds: segment(Place::Data, context.ds_base, context.ds_limit, context.ds_ar)?,
        es: segment(Place::Data, context.es_base, context.es_limit, context.es_ar)?,
        ss: segment(Place::Ss, context.ss_base, context.ss_limit, context.ss_ar)?,
        tr: segment(Place::Tr, context.tr_base, context.tr_limit, context.tr_ar)?,
    };
    let level = privilege(registers.cs);
    let is_too_high = |data: Segment| data.attributes & PRESENT != 0 && privilege(data) > level;
    let is_beyond = registers.rip > u64::from(registers.cs.limit);
    let bad_levels = privilege(registers.ss) != level || is_too_high(registers.ds) || is_too_high(registers.es);
    if is_beyond || bad_levels || context.efer & (efer::LMA | efer::LME) == efer::LMA {
        return Err(Errno::EINVAL);
    }
    Ok(registers)
}

/// Which register a segment is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Cs,
    Ss,
    Data,
    Tr,
}

/// A segment of a 32-bit context, with the bits set that a processor sets when it loads one.
fn segment(place: Place, base: u32, limit: u32, attributes: u16) -> Result<Segment, Errno> {
    let mut attributes = attributes;
    if attributes & PRESENT != 0 {
        attributes |= if place == Place::Tr { BUSY } else { ACCESSED };
    }
    let is_there = |bits: u16| attributes & bits == bits;
    let good = if attributes & !ATTRIBUTES != 0 {
        false
    } else if attributes == 0 {
        place == Place::Data
    } else {
        is_there(PRESENT)
            && match place {
                Place::Tr => !is_there(NOT_SYSTEM) && attributes & TYPE == BUSY_TSS,
                Place::Cs => is_there(NOT_SYSTEM | CODE),
                Place::Ss => is_there(NOT_SYSTEM | WRITABLE) && !is_there(CODE),
                Place::Data => is_there(NOT_SYSTEM) && (!is_there(CODE) || is_there(WRITABLE)),
            }
    };
    if !good {
        return Err(Errno::EINVAL);
    }
    let limit = if is_there(GRANULAR) { limit << 12 | 0xfff } else { limit };
    Ok(Segment { selector: 0, attributes, limit, base: u64::from(base) })
}

fn decode_64(context: &VcpuHvmX86_64) -> Result<Registers, Errno> {
    // Bits 63 to 47 are equal in a canonical address.
    let is_canonical = (context.rip.cast_signed() << 16 >> 16).cast_unsigned() == context.rip;
    let can_run = context.cr0 & cr0::PG != 0 && context.cr4 & cr4::PAE != 0 && context.efer & efer::LME != 0;
    if !is_canonical || !can_run {
        return Err(Errno::EINVAL);
    }
    let data = Segment { selector: 0, attributes: 0xc93, limit: u32::MAX, base: 0 };
    Ok(Registers {
        general: [
            (Register::Rax, context.rax),
            (Register::Rcx, context.rcx),
            (Register::Rdx, context.rdx),
            (Register::Rbx, context.rbx),
            (Register::Rsp, context.rsp),
            (Register::Rbp, context.rbp),
            (Register::Rsi, context.rsi),
            (Register::Rdi, context.rdi),
        ],
        rip: context.rip,
        rflags: context.rflags,
        cr0: context.cr0,
        cr3: context.cr3,
        cr4: context.cr4,
        efer: context.efer,
        cs: Segment { attributes: 0xa9b, ..data },
        ds: data,
        es: data,
        ss: data,
        tr: Segment { attributes: 0x8b, limit: 0x67, ..data },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{add_page, caller, domain, with_host};
    use crate::hypercall::vcpu::vcpu_op;
    use crate::outcome::Reply;
    use public_abi::vcpu::VcpuOp;

    const CR4: u64 = cr4::PAE | cr4::PSE;
    const EFER: u64 = efer::SCE | efer::LME | efer::NXE;

    /// Flat protected mode without paging, as a boot loader starts a PVH kernel.
    fn flat() -> VcpuHvmX86_32 {
        VcpuHvmX86_32 {
            eip: 0x10_0000,
            ebx: 0x8000,
            cr0: 1,
            cs_limit: 0xf_ffff,
            ds_limit: 0xf_ffff,
            ss_limit: 0xf_ffff,
            tr_limit: 0x67,
            cs_ar: 0xc9a,
            ds_ar: 0xc92,
            es_ar: 0,
            ss_ar: 0xc92,
            tr_ar: 0x89,
            ..VcpuHvmX86_32::default()
        }
    }

    fn long() -> VcpuHvmX86_64 {
        let (cr0, cr4, efer) = (cr0::PG | cr0::PE, cr4::PAE, efer::LME);
        VcpuHvmX86_64 { rip: 0xffff_8000_0000_1000, rsp: 7, cr0, cr3: 0x5000, cr4, efer, ..VcpuHvmX86_64::default() }
    }

    fn with_32(change: impl FnOnce(&mut VcpuHvmX86_32)) -> Result<Registers, Errno> {
        let mut registers = flat();
        change(&mut registers);
        let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_32B, ..VcpuHvmContext::default() };
        context.set(&registers);
        decode(&context, CR4, EFER)
    }

    fn with_64(change: impl FnOnce(&mut VcpuHvmX86_64)) -> Result<Registers, Errno> {
        let mut registers = long();
        change(&mut registers);
        let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_64B, ..VcpuHvmContext::default() };
        context.set(&registers);
        decode(&context, CR4, EFER)
    }

    #[test]
    fn flat_segments_get_what_a_processor_would_set() {
        let registers = with_32(|_| ()).unwrap();
        assert_eq!((registers.cs.attributes, registers.cs.limit), (0xc9b, u32::MAX));
        assert_eq!((registers.ds.attributes, registers.ss.attributes), (0xc93, 0xc93));
        assert_eq!((registers.tr.attributes, registers.tr.limit), (0x8b, 0x67));
        assert_eq!(registers.es, Segment::default(), "a null segment is one for data");
        assert_eq!(registers.cr0, cr0::PE | cr0::ET);
    }

    #[test]
    fn states_in_which_nothing_runs_are_refused() {
        let refused: [fn(&mut VcpuHvmX86_32); 21] = [
            |r| r.pad1 = 1,
            |r| r.pad2[2] = 1,
            |r| r.cs_ar = 0,
            |r| r.ss_ar = 0,
            |r| r.tr_ar = 0,
            |r| r.cs_ar = 0xc92,
            |r| r.cs_ar = 0x1c9a,
            |r| r.cs_ar = 0xc1a,
            |r| r.ss_ar = 0xc90,
            |r| r.ss_ar = 0xc9a,
            |r| r.ds_ar = 0xc98,
            |r| r.ds_ar = 0xc82,
            |r| r.tr_ar = 0x82,
            |r| r.tr_ar = 0x99,
            |r| r.ss_ar = 0xcf2,
            |r| (r.cs_ar, r.cs_limit) = (0x49a, 0xf_ffff),
            |r| r.efer = efer::LMA,
            |r| r.efer = efer::SVME,
            |r| r.cr4 = 1 << 13,
            |r| r.cr0 = 1 << 31,
            |r| r.cr0 = 1 | 1 << 29,
        ];
        for (number, change) in refused.into_iter().enumerate() {
            assert_eq!(with_32(change), Err(Errno::EINVAL), "case {number}");
        }
        let refused: [fn(&mut VcpuHvmX86_64); 6] = [
            |r| r.rip = 1 << 47,
            |r| r.cr0 = 1,
            |r| r.cr4 = 0,
            |r| r.efer = 0,
            |r| r.cr0 |= 1 << 32,
            |r| r.cr4 |= 1 << 13,
        ];
        for (number, change) in refused.into_iter().enumerate() {
            assert_eq!(with_64(change), Err(Errno::EINVAL), "case {number}");
        }
        let context = VcpuHvmContext { mode: 2, ..VcpuHvmContext::default() };
        assert_eq!(decode(&context, CR4, EFER), Err(Errno::EINVAL));
        let context = VcpuHvmContext { mode: 1, pad: 1, ..VcpuHvmContext::default() };
        assert_eq!(decode(&context, CR4, EFER), Err(Errno::EINVAL));
    }

    #[test]
    fn an_init_from_before_does_not_undo_them() {
        with_host(1, 2, |_, host| {
            let control = domain(host, 0);
            add_page(&control, 1);
            let guest = caller(host, &control, 0);
            let second = control.vcpu(1).unwrap();
            second.x86.startup.note(crate::x86::Startup::INIT);
            let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_64B, ..VcpuHvmContext::default() };
            context.set(&long());
            let place = GuestPtr::<VcpuHvmContext>::from_address(0x1000);
            guest.memory.write(place, &context).unwrap();
            assert_eq!(vcpu_op(&guest, VcpuOp::Initialise.number(), 1, place.cast()), Ok(0));
            let mut hardware = second.hardware.try_lock().unwrap();
            crate::x86::interrupts::prepare(host, &control, second, &mut hardware).unwrap();
            assert_eq!(hardware.register(Register::Rsp), 7);
        });
    }

    #[test]
    fn registers_are_set_once() {
        with_host(1, 2, |_, host| {
            let control = domain(host, 0);
            add_page(&control, 1);
            let guest = caller(host, &control, 0);
            let place = GuestPtr::<VcpuHvmContext>::from_address(0x1000);
            let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_64B, ..VcpuHvmContext::default() };
            context.set(&long());
            guest.memory.write(place, &context).unwrap();
            let op = |op: VcpuOp| -> Reply { vcpu_op(&guest, op.number(), 1, place.cast()) };
            assert_eq!(op(VcpuOp::Initialise), Ok(0));
            assert_eq!(op(VcpuOp::Initialise), Err(Errno::EEXIST.into()));
            let hardware = control.vcpu(1).unwrap().hardware.try_lock().unwrap();
            assert_eq!((hardware.guest().rip, hardware.register(Register::Rsp)), (0xffff_8000_0000_1000, 7));
            assert_eq!(hardware.guest().efer(), efer::LME | efer::LMA);
            assert!(hardware.is_64_bit());
        });
    }
}

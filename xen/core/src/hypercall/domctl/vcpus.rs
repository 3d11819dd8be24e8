//! domctl about single vCPUs: registers for debuggers and core dumps, and signals.

use super::{Answer, find_vcpu};
use crate::domain::destroy::Paused;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::vcpu::Wait;
use crate::x86::vlapic::ipi;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use machine::codec::registers::Register;
use machine::log;
use machine::vcpu::Vcpu as Hardware;
use public_abi::Errno;
use public_abi::domctl_vcpu::{SendTrigger, Trigger, VcpuContext};
use public_abi::x86::{CpuUserRegs, VGCF_ONLINE, VcpuGuestContext};
use zerocopy::FromBytes;

/// sendtrigger.
pub fn trigger(caller: &Caller<'_>, target: &Target<'_>, request: &SendTrigger) -> Result<Answer, Stop> {
    let vcpu = find_vcpu(target, request.vcpu, Errno::ESRCH)?;
    match Trigger::try_from(request.trigger) {
        Ok(Trigger::Nmi) => {
            ipi::send_nmi(caller.host, target, vcpu);
            Ok(Answer::Unchanged)
        }
        // Xen accepts these for every HVM guest and does nothing for one without emulated ACPI; this says so.
        Ok(Trigger::Power | Trigger::Sleep) => {
            log!(Warning, "{}: a PVH guest has no power or sleep button", target.id);
            Err(Errno::EOPNOTSUPP.into())
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// getvcpucontext: the registers of a vCPU of another domain. A domain's own vCPUs cannot be looked at: two of them asking
/// for one another would wait for ever.
pub fn get_registers(caller: &Caller<'_>, target: &Target<'_>, request: &VcpuContext) -> Result<Answer, Stop> {
    let vcpu = find_vcpu(target, request.vcpu, Errno::EINVAL)?;
    target.other_or(Errno::EINVAL)?;
    if !vcpu.is_initialised.load(Ordering::Acquire) {
        return Err(Errno::ENODATA.into());
    }
    // 5 KiB: not on the stack.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size_of::<VcpuGuestContext>()).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(size_of::<VcpuGuestContext>(), 0);
    {
        let context = VcpuGuestContext::mut_from_bytes(&mut bytes).map_err(|_| Errno::ENOMEM)?;
        let paused = Paused::new(caller.host, target);
        let hardware = vcpu.hardware.try_lock().ok_or(Stop::Restart(None))?;
        fill(context, &hardware);
        context.flags = if vcpu.wait().contains(Wait::DOWN) { 0 } else { VGCF_ONLINE };
        drop(hardware);
        drop(paused);
    }
    caller.memory.write_bytes(request.ctxt.address(), &bytes)?;
    Ok(Answer::Unchanged)
}

fn fill(context: &mut VcpuGuestContext, hardware: &Hardware) {
    let state = hardware.guest();
    context.user_regs = general(hardware);
    // CR1 and CR5 to CR7 do not exist; CR8 is the local APIC's.
    let [cr0, _, cr2, cr3, cr4, ..] = &mut context.ctrlreg;
    (*cr0, *cr2, *cr3, *cr4) = (state.cr0, state.cr2, state.cr3, state.cr4);
    let [.., dr6, dr7] = &mut context.debugreg;
    (*dr6, *dr7) = (state.dr6, state.dr7);
    for (place, address) in context.debugreg.iter_mut().zip(hardware.lazy().debug_address) {
        *place = address;
    }
    context.fs_base = state.fs.base;
    // The names are PV's: a kernel runs on the "user" base and swaps in its own.
    (context.gs_base_user, context.gs_base_kernel) = (state.gs.base, state.kernel_gs_base);
}

fn general(hardware: &Hardware) -> CpuUserRegs {
    let state = hardware.guest();
    let register = |register| hardware.register(register);
    CpuUserRegs {
        r15: register(Register::R15),
        r14: register(Register::R14),
        r13: register(Register::R13),
        r12: register(Register::R12),
        rbp: register(Register::Rbp),
        rbx: register(Register::Rbx),
        r11: register(Register::R11),
        r10: register(Register::R10),
        r9: register(Register::R9),
        r8: register(Register::R8),
        rax: register(Register::Rax),
        rcx: register(Register::Rcx),
        rdx: register(Register::Rdx),
        rsi: register(Register::Rsi),
        rdi: register(Register::Rdi),
        rip: state.rip,
        cs: state.cs.selector,
        rflags: state.rflags,
        rsp: register(Register::Rsp),
        ss: state.ss.selector,
        es: state.es.selector,
        ds: state.ds.selector,
        fs: state.fs.selector,
        gs: state.gs.selector,
        ..CpuUserRegs::default()
    }
}

/// setvcpucontext: how PV guests are started. HVM and PVH guests are started by sethvmcontext.
pub fn set_registers(target: &Target<'_>, request: &VcpuContext) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    find_vcpu(target, request.vcpu, Errno::EINVAL)?;
    Err(Errno::EOPNOTSUPP.into())
}

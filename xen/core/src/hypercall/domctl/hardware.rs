//! domctl that gives a domain hardware: permissions, mappings, interrupts, a device model's target.
//!
//! No hardware can be given to a domain yet. As in Xen, bad numbers are told to anybody, then the caller must have the
//! right, and then the answer is that of a host on which nobody may pass the thing on: `EPERM` where Xen looks for the
//! domain's own permission, else `EOPNOTSUPP`. Taking away what nobody has succeeds.

use super::{Answer, parameters};
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use machine::log;
use public_abi::Errno;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_device::{IomemPermission, IoportMapping, IoportPermission, IrqPermission, MemoryMapping};
use public_abi::domctl_domain::SetTarget;
use public_abi::hypercall::Caller as Who;

/// I/O ports of the processor.
const PORTS: u32 = 0x10000;
/// Frames that physical addresses can reach (52 bits).
const FRAME_BITS: u32 = 40;
/// Interrupts that a domain of the host knows; more than any I/O interrupt controller here has.
const INTERRUPTS: u32 = 256;

/// Whether a command belongs here.
pub fn covers(operation: DomctlOp) -> bool {
    matches!(
        operation,
        DomctlOp::IomemPermission
            | DomctlOp::IoportPermission
            | DomctlOp::IrqPermission
            | DomctlOp::MemoryMapping
            | DomctlOp::IoportMapping
            | DomctlOp::BindPtIrq
            | DomctlOp::UnbindPtIrq
            | DomctlOp::GetDeviceGroup
            | DomctlOp::SetTarget
    )
}

/// Answers one of these commands.
pub fn perform(
    caller: &Caller<'_>,
    target: &Target<'_>,
    operation: DomctlOp,
    request: &Domctl,
) -> Result<Answer, Stop> {
    let privileged = caller.permit(operation.caller());
    let result = match operation {
        DomctlOp::IomemPermission => iomem_permission(&parameters(request)?, privileged),
        DomctlOp::IoportPermission => ioport_permission(&parameters(request)?, privileged),
        DomctlOp::IrqPermission => irq_permission(&parameters(request)?, privileged),
        DomctlOp::MemoryMapping => memory_mapping(&parameters(request)?, privileged),
        DomctlOp::IoportMapping => ioport_mapping(&parameters(request)?, privileged),
        DomctlOp::BindPtIrq | DomctlOp::UnbindPtIrq => Err(Errno::EPERM),
        DomctlOp::SetTarget => set_target(caller, target, &parameters(request)?),
        // Guests get no devices. Without an IOMMU Xen says so, too, before it looks at the caller.
        _ => Err(Errno::EOPNOTSUPP),
    };
    if result == Err(Errno::EOPNOTSUPP) {
        log!(Warning, "{}: domctl {} is refused: hardware cannot be given to a domain", target.id, operation.name());
    }
    result?;
    Ok(Answer::Unchanged)
}

/// The end of a permission request: taking away succeeds, giving is not possible.
fn change(allow: u8) -> Result<(), Errno> {
    if allow == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

fn iomem_permission(request: &IomemPermission, privileged: Result<(), Errno>) -> Result<(), Errno> {
    // The last frame, with Xen's arithmetic: no frames at all is not told apart from all frames.
    let last = request.first_mfn.wrapping_add(request.nr_mfns).wrapping_sub(1);
    if last < request.first_mfn {
        return Err(Errno::EINVAL);
    }
    privileged?;
    change(request.allow_access)
}

fn ioport_permission(request: &IoportPermission, privileged: Result<(), Errno>) -> Result<(), Errno> {
    let end = request.first_port.wrapping_add(request.nr_ports);
    if end <= request.first_port || end > PORTS {
        return Err(Errno::EINVAL);
    }
    privileged?;
    change(request.allow_access)
}

fn irq_permission(request: &IrqPermission, privileged: Result<(), Errno>) -> Result<(), Errno> {
    if request.pirq >= INTERRUPTS {
        return Err(Errno::EINVAL);
    }
    privileged?;
    change(request.allow_access)
}

fn memory_mapping(request: &MemoryMapping, privileged: Result<(), Errno>) -> Result<(), Errno> {
    let last = |first: u64| first.wrapping_add(request.nr_mfns).wrapping_sub(1);
    let last_mfn = last(request.first_mfn);
    let out_of_reach = (request.first_mfn | last_mfn) >> FRAME_BITS != 0;
    if last_mfn < request.first_mfn || out_of_reach || last(request.first_gfn) < request.first_gfn {
        return Err(Errno::EINVAL);
    }
    privileged?;
    // The domain has no permission for any frame.
    Err(Errno::EPERM)
}

fn ioport_mapping(request: &IoportMapping, privileged: Result<(), Errno>) -> Result<(), Errno> {
    let most = request.nr_ports.wrapping_sub(1);
    let ends_late = |first: u32| first.wrapping_add(request.nr_ports) > PORTS;
    let too_large = (request.first_gport | request.first_mport | most) >= PORTS;
    if too_large || ends_late(request.first_gport) || ends_late(request.first_mport) {
        return Err(Errno::EINVAL);
    }
    privileged?;
    if request.add_mapping == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// set_target: device models run in the control domain only.
fn set_target(caller: &Caller<'_>, target: &Target<'_>, request: &SetTarget) -> Result<(), Errno> {
    let served = caller.find(request.target)?;
    if served.id == target.id {
        return Err(Errno::EINVAL);
    }
    caller.permit(Who::Control)?;
    Err(Errno::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Result<(), Errno> = Ok(());
    const NO: Result<(), Errno> = Err(Errno::EPERM);

    #[test]
    fn bad_numbers_come_before_the_callers_rights() {
        let ports = |first_port, nr_ports, allow_access| IoportPermission {
            first_port,
            nr_ports,
            allow_access,
            ..IoportPermission::default()
        };
        assert_eq!(ioport_permission(&ports(0x60, 0, 1), NO), Err(Errno::EINVAL));
        assert_eq!(ioport_permission(&ports(0xffff, 2, 1), NO), Err(Errno::EINVAL));
        assert_eq!(ioport_permission(&ports(0xffff, 1, 1), NO), NO);
        assert_eq!(ioport_permission(&ports(0xffff, 1, 1), YES), Err(Errno::EOPNOTSUPP));
        assert_eq!(ioport_permission(&ports(0xffff, 1, 0), YES), Ok(()));
    }

    #[test]
    fn ranges_must_not_wrap_around() {
        let memory = |first_gfn, first_mfn, nr_mfns| MemoryMapping {
            first_gfn,
            first_mfn,
            nr_mfns,
            add_mapping: 1,
            ..MemoryMapping::default()
        };
        assert_eq!(memory_mapping(&memory(0, u64::MAX, 2), YES), Err(Errno::EINVAL));
        assert_eq!(memory_mapping(&memory(u64::MAX, 0, 2), YES), Err(Errno::EINVAL));
        assert_eq!(memory_mapping(&memory(0, 1 << 40, 1), YES), Err(Errno::EINVAL));
        assert_eq!(memory_mapping(&memory(0, 0, 0), NO), Err(Errno::EINVAL));
        assert_eq!(memory_mapping(&memory(0, 0xfe000, 1), YES), Err(Errno::EPERM));
        let io = |first_mfn, nr_mfns| IomemPermission { first_mfn, nr_mfns, ..IomemPermission::default() };
        assert_eq!(iomem_permission(&io(u64::MAX, 2), NO), Err(Errno::EINVAL));
        assert_eq!(iomem_permission(&io(0, 1), NO), NO);
        assert_eq!(iomem_permission(&io(0, 1), YES), Ok(()), "nothing to take away");
    }

    #[test]
    fn mapped_ports_must_exist_on_both_sides() {
        let ports =
            |first_gport, first_mport, nr_ports| IoportMapping { first_gport, first_mport, nr_ports, add_mapping: 1 };
        assert_eq!(ioport_mapping(&ports(0, 0, 0), NO), Err(Errno::EINVAL));
        assert_eq!(ioport_mapping(&ports(0xfff8, 0, 9), NO), Err(Errno::EINVAL));
        assert_eq!(ioport_mapping(&ports(0, 0xfff8, 8), NO), NO);
        assert_eq!(ioport_mapping(&ports(0, 0xfff8, 8), YES), Err(Errno::EOPNOTSUPP));
    }
}

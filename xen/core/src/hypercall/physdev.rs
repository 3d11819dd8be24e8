//! physdev_op: physical devices and their interrupts.
//!
//! PCI devices are hidden: the hardware domain sees a host bridge (`x86::pci`), which it may report, and nothing else that
//! exists. Who reports something nevertheless is told so. Everything else is for PV guests, or for HVM guests whose interrupts are event
//! channels, which do not exist here either (arch/x86/hvm/hypercall.c of 4.17 answers `ENOSYS` then).

use super::Caller;
use crate::outcome::Reply;
use machine::log;
use public_abi::physdev::{DbgpOp, PciDevice, PciDeviceAdd, PciMmcfgReserved, PhysdevOp};
use public_abi::{Errno, GuestPtr};

/// Answers physdev_op.
///
/// # Errors
/// `ENOSYS` for all but the hardware domain and for what does not exist, `ENODEV` for PCI, `EFAULT`.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    if !caller.domain.is_control() {
        return Err(Errno::ENOSYS.into());
    }
    match PhysdevOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        PhysdevOp::PciMmcfgReserved => {
            let region: PciMmcfgReserved = caller.memory.read(argument.cast())?;
            log!(Debug, "PCI configuration space at {:#x} is not used", region.address);
            Err(Errno::ENODEV.into())
        }
        PhysdevOp::PciDeviceAdd => {
            let device: PciDeviceAdd = caller.memory.read(argument.cast())?;
            known(device.seg, device.bus, device.devfn)
        }
        PhysdevOp::PciDeviceRemove => {
            let device: PciDevice = caller.memory.read(argument.cast())?;
            known(device.seg, device.bus, device.devfn)
        }
        PhysdevOp::DbgpOp => {
            // The hypervisor's console is never a USB debug port: the controller may be reset at any time.
            let _request: DbgpOp = caller.memory.read(argument.cast())?;
            Ok(0)
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Accepts the host bridge, of which nothing needs to be remembered.
fn known(segment: u16, bus: u8, devfn: u8) -> Reply {
    if (segment, bus, devfn) == (0, 0, 0) {
        return Ok(0);
    }
    let (device, function) = (devfn >> 3, devfn & 7);
    log!(Debug, "{segment:04x}:{bus:02x}:{device:02x}.{function}: PCI devices are hidden from all domains");
    Err(Errno::ENODEV.into())
}

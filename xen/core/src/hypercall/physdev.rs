//! physdev_op: physical devices and their interrupts.
//!
//! The hardware domain reports the PCI functions that it finds, and where it thinks that configuration space is. Everything else
//! is for PV guests, or for HVM guests whose interrupts are event channels, which do not exist here: `ENOSYS`, as Xen 4.17
//! answers a PVH control domain (arch/x86/hvm/hypercall.c).

use super::Caller;
use crate::boot::acpi_devices::Buses;
use crate::outcome::Reply;
use crate::pci::{self, access::Place};
use public_abi::physdev::{DbgpOp, PciDevice, PciDeviceAdd, PciMmcfgReserved, PhysdevOp};
use public_abi::{Errno, GuestPtr};

/// Answers physdev_op.
///
/// # Errors
/// `ENOSYS` for all but the hardware domain and for what does not exist, `ENODEV` for devices and configuration space that the
/// machine does not have, `EFAULT`, `ENOMEM`.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    if !caller.domain.is_control() {
        return Err(Errno::ENOSYS.into());
    }
    match PhysdevOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        PhysdevOp::PciMmcfgReserved => {
            let region: PciMmcfgReserved = caller.memory.read(argument.cast())?;
            let PciMmcfgReserved { address: base, segment, start_bus: first, end_bus: last, .. } = region;
            // It is emulated there already, whatever the domain says of it.
            let is_known = caller.host.pci.lists(Buses { base, segment, first, last });
            if is_known { Ok(0) } else { Err(Errno::ENODEV.into()) }
        }
        PhysdevOp::PciDeviceAdd => {
            let device: PciDeviceAdd = caller.memory.read(argument.cast())?;
            pci::add(caller.host, caller.domain, place(device.seg, device.bus, device.devfn)?)?;
            Ok(0)
        }
        PhysdevOp::PciDeviceRemove => {
            let device: PciDevice = caller.memory.read(argument.cast())?;
            pci::remove(caller.host, place(device.seg, device.bus, device.devfn)?)?;
            Ok(0)
        }
        PhysdevOp::DbgpOp => {
            // The hypervisor's console is never a USB debug port: the controller may be reset at any time.
            let _request: DbgpOp = caller.memory.read(argument.cast())?;
            Ok(0)
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// A function's place. Only segment 0 is used.
fn place(segment: u16, bus: u8, within_bus: u8) -> Result<Place, Errno> {
    if segment == 0 { Ok(Place::new(bus, within_bus)) } else { Err(Errno::ENODEV) }
}

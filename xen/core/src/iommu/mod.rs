//! What translates for the machine's devices, all of which are the control domain's: the view of its p2m. (docs/design/0009.)
//!
//! In the order of a boot: `ivrs` or `dmar` (what firmware says, as `firmware`) → [`set_up`] (units, still off) → `p2m::DomainP2m::attach`, before the
//! control domain gets memory → [`reserve`] (what devices need at all times) → [`start`]. From then on a device reaches what the
//! p2m shows it, or is refused and [`report`]ed. Changes are `p2m`'s business.

pub mod dmar;
pub mod firmware;
pub mod ivrs;

use crate::boot::acpi::Acpi;
use crate::domain::Domain;
use crate::host::Host;
use crate::interrupt::message::Message;
use crate::memory;
use crate::pci::access::Place;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use firmware::{Firmware, Region, Unit};
use machine::boxed::{Boxed, OutOfMemory};
use machine::iommu::{Event, Iommu, Maker, UnitFlags};
use machine::{Gfn, Maddr, PAGE_SHIFT, log};
use public_abi::Errno;

/// Events that are logged one by one; of those that follow, only each time that their number has doubled.
const MOST_REPORTS: u32 = 32;

/// The machine's IOMMU, and what was reported of it.
#[derive(Debug, Default)]
pub struct Translation {
    /// `None` if there is none, or it is not wanted.
    pub iommu: Option<&'static Iommu>,
    events: AtomicU32,
}

impl Translation {
    /// What [`set_up`] gave.
    pub const fn new(iommu: Option<&'static Iommu>) -> Self {
        Self { iommu, events: AtomicU32::new(0) }
    }

    /// Whether what a domain's map shows of other domains' pages reaches its devices.
    pub fn is_on(&self) -> bool {
        self.iommu.is_some_and(Iommu::is_on)
    }

    /// Notes an event; says whether it is to be logged.
    fn count(&self) -> (u32, bool) {
        let count = self.events.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        (count, count <= MOST_REPORTS || count.is_power_of_two())
    }
}

/// Sets up all units that firmware has; they stay off. `None` if there are none, they are not wanted, or one of them cannot be
/// used: then all stay off, since devices behind it would pass.
///
/// # Errors
/// [`OutOfMemory`].
#[inline(never)]
pub fn set_up(acpi: &Acpi, is_wanted: bool) -> Result<Option<&'static Iommu>, OutOfMemory> {
    let Firmware { maker, units, .. } = &acpi.devices.iommus;
    if units.is_empty() {
        return Ok(None);
    }
    if !is_wanted {
        log!(Info, "IOMMU: left off, as the command line wants");
        return Ok(None);
    }
    let mut settings = Vec::new();
    for unit in units {
        settings.try_reserve(unit.settings.len()).map_err(|_| OutOfMemory)?;
        settings.extend_from_slice(&unit.settings);
    }
    let mut iommu = Iommu::try_new(*maker, settings)?;
    for unit in units {
        if let Err(refusal) = iommu.add(Maddr::new(unit.registers), UnitFlags(unit.flags)) {
            log!(Warning, "IOMMU: {unit} cannot be used ({refusal}): all are left off");
            return Ok(None);
        }
    }
    Ok(Some(Boxed::try_new(iommu)?.leak()))
}

/// Maps what devices need at all times 1:1 (RDM-9, INV-15).
///
/// # Errors
/// `ENOMEM`. What cannot be is left out, and logged.
pub fn reserve(domain: &Domain, acpi: &Acpi) -> Result<(), Errno> {
    for region in &acpi.devices.iommus.regions {
        let Region { start, pages, devices: (first, last), .. } = *region;
        let (first, last) = (Place(first), Place(last));
        match memory::map_reserved(domain, Gfn::new(start), pages) {
            Ok(()) => {
                log!(Info, "IOMMU: {pages} pages from {:#x} on are kept for {first} to {last}", start << PAGE_SHIFT)
            }
            Err(Errno::ENOMEM) => return Err(Errno::ENOMEM),
            Err(errno) => log!(
                Warning,
                "IOMMU: {pages} pages from {:#x} on cannot be kept for {first} to {last}: {}",
                start << PAGE_SHIFT,
                errno.description()
            ),
        }
    }
    Ok(())
}

/// Turns translation on.
pub fn start(host: &Host) {
    let Some(iommu) = host.translation.iommu else { return };
    if iommu.enable().is_err() {
        log!(Error, "IOMMU: it does not answer and is turned off again: devices use machine addresses");
        return;
    }
    for (number, unit) in host.platform.acpi.devices.iommus.units.iter().enumerate() {
        let message = host.interrupts.bind_iommu();
        if !message.is_some_and(|message| give_message(host, iommu, number, unit, message)) {
            log!(Warning, "IOMMU: {unit} cannot interrupt: what devices are refused is not reported");
        }
    }
    let maker = match iommu.maker() {
        Maker::Amd => "AMD",
        Maker::Intel => "Intel",
    };
    log!(
        Info,
        "IOMMU: {} unit(s) of {maker}'s: devices reach what Dom0's map shows, granted pages included",
        iommu.units()
    );
}

/// Lets a unit send a message when it has refused something: by its function, or by its own registers.
fn give_message(host: &Host, iommu: &Iommu, number: usize, unit: &Unit, message: Message) -> bool {
    match unit.place {
        Some(place) => host.pci.give_message(Place(place), message),
        // Messages to processors are below 4 GiB.
        None => u32::try_from(message.address).is_ok_and(|address| iommu.give_message(number, address, message.data)),
    }
}

/// Logs what devices were refused.
pub fn report(host: &Host) {
    let Some(iommu) = host.translation.iommu else { return };
    iommu.take_events(|Event { kind, device, address }| {
        let (count, is_logged) = host.translation.count();
        if is_logged {
            log!(Warning, "IOMMU: {} at {address:#x}: {kind} (event {count})", Place(device));
        }
    });
}

#[cfg(test)]
mod tests;

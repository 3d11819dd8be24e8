//! Interrupts of the machine's devices, which all go to the control domain: pins of I/O interrupt controllers, and messages.
//! (docs/design/0008.)
//!
//! A device never sends what the domain has asked for: it sends a vector of the hypervisor's (`vectors`), whose owner says
//! where it goes on: to a pin of the vIO-APIC (`pins`), or as the domain's own message to a local APIC (`message`). Before
//! this: `vcpu::run`, which finds noted vectors; `x86::vioapic` and `pci`, in which the domain says what it wants.

pub mod message;
pub mod pins;
pub mod vectors;

#[cfg(test)]
pub(crate) mod tests;

use crate::boot::acpi::Acpi;
use crate::host::Host;
use crate::x86::vioapic::PINS;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::boxed::OutOfMemory;
use machine::lock::{Lock, rank};
use machine::{CpuId, DomId, Maddr, cpu, log, platform};
use message::Message;
use pins::{Controller, Line};
use vectors::{Owner, Vector, Vectors};

/// Reports of vectors that nobody has.
const MOST_REPORTS: u32 = 8;

/// All of the machine's device interrupts.
#[derive(Debug)]
pub struct Interrupts {
    controllers: Vec<Controller>,
    /// The pin that stays the hypervisor's: its console's.
    console: Option<u32>,
    lines: Lock<[Line; PINS], { rank::MACHINE_DEVICE }>,
    vectors: Lock<Vectors, { rank::VECTORS }>,
    reports: AtomicU32,
}

impl Interrupts {
    /// With the firmware's interrupt controllers and the processors with these APIC ids, in the order of their numbers; all
    /// pins are masked. `console` is the global interrupt that the hypervisor keeps.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(
        acpi: &Acpi,
        console: Option<u32>,
        apic_ids: impl ExactSizeIterator<Item = u32>,
    ) -> Result<Self, OutOfMemory> {
        let mut controllers = Vec::new();
        controllers.try_reserve_exact(acpi.io_apics.len()).map_err(|_| OutOfMemory)?;
        controllers.extend(acpi.io_apics.iter().map(|found| {
            let address = Maddr::new(u64::from(found.address));
            Controller { address, first: found.first_gsi, pins: u32::from(platform::pin_count(address)) }
        }));
        Ok(Self {
            controllers,
            console,
            lines: Lock::new([Line::RESET; PINS]),
            vectors: Lock::new(Vectors::try_new(apic_ids)?),
            reports: AtomicU32::new(0),
        })
    }

    /// A vector for a device's message, and the message that the device is to send.
    pub fn bind(&self, message: Message) -> Option<(Vector, Message)> {
        let mut vectors = self.vectors.lock();
        let vector = vectors.allocate(Owner::Message(message))?;
        Some((vector, Message::to(vectors.destination(vector)?, vector)))
    }

    /// The message with which an IOMMU says that it has logged something. It is never given back.
    pub fn bind_iommu(&self) -> Option<Message> {
        let mut vectors = self.vectors.lock();
        let vector = vectors.allocate(Owner::Iommu)?;
        Some(Message::to(vectors.destination(vector)?, vector))
    }

    /// What a device with this vector is to send; for one whose registers were lost.
    pub fn message_of(&self, vector: Vector) -> Option<Message> {
        Some(Message::to(self.vectors.lock().destination(vector)?, vector))
    }

    /// The domain wants another message from now on.
    pub fn redirect(&self, vector: Vector, message: Message) {
        self.vectors.lock().change(vector, Owner::Message(message));
    }

    /// Gives a vector back. What is still on its way with it goes nowhere.
    pub fn release(&self, vector: Vector) {
        self.vectors.lock().release(vector);
    }

    fn report(&self, text: core::fmt::Arguments<'_>) {
        if self.reports.fetch_add(1, Ordering::Relaxed) < MOST_REPORTS {
            log!(Warning, "{text}");
        }
    }
}

/// Passes on what devices have interrupted this CPU with.
pub fn pass_on(host: &Host, me: CpuId) {
    let interrupts = &host.interrupts;
    for vector in cpu::take_device_vectors() {
        let owner = interrupts.vectors.lock().owner(me, vector);
        match owner {
            Some(Owner::Pin(pin)) => pins::arrived(host, usize::from(pin)),
            Some(Owner::Message(message)) => {
                cpu::end_interrupt();
                if let Some(domain) = host.domains.get(DomId::CONTROL) {
                    message.send(host, &domain);
                }
            }
            Some(Owner::Iommu) => {
                cpu::end_interrupt();
                crate::iommu::report(host);
            }
            None => {
                cpu::end_interrupt();
                interrupts.report(format_args!("interrupt on vector {:#x}, which no device has", vector.number()));
            }
        }
    }
}

//! Interrupt messages: an address and data that a device writes. The control domain's are taken apart and delivered to its
//! local APICs; those that devices really send name a CPU and a vector of the hypervisor's.
//! (AMD APM volume 2, 16.11; PCI Local Bus Specification 3.0, 6.8.)

use super::vectors::Vector;
use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::Vcpu;
use crate::x86::vlapic::Trigger;
use crate::x86::vlapic::ipi::{self, Delivery, Destination};

/// Addresses that processors take for messages, and their parts.
const BASE: u64 = 0xfee0_0000;
const BASE_SHIFT: u32 = 20;
const DESTINATION_SHIFT: u32 = 12;
const REDIRECTION_HINT: u64 = 1 << 3;
const LOGICAL: u64 = 1 << 2;

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// Where it is written.
    pub address: u64,
    /// What.
    pub data: u32,
}

impl Message {
    /// The message that raises a vector of the hypervisor's: fixed, edge, to one CPU by its APIC id.
    pub fn to(apic_id: u8, vector: Vector) -> Self {
        let address = BASE | u64::from(apic_id) << DESTINATION_SHIFT;
        Self { address, data: u32::from(vector.number.number()) }
    }

    /// Delivers it to a domain as its devices' message. What is no interrupt message is a write into nothing here: had it been
    /// let out of the device, it would have gone to memory.
    pub fn send(self, host: &Host, domain: &Domain) {
        if self.address >> BASE_SHIFT != BASE >> BASE_SHIFT {
            return;
        }
        let destination = Destination {
            is_logical: self.address & LOGICAL != 0,
            number: u32::try_from(self.address >> DESTINATION_SHIFT & 0xff).unwrap_or(0),
            broadcast: 0xff,
        };
        // With the hint a message goes to one of those that are named, as one of lowest priority does.
        let delivery = match Delivery::of(self.data) {
            Delivery::Fixed if self.address & REDIRECTION_HINT != 0 => Delivery::LowestPriority,
            other => other,
        };
        let vector = u8::try_from(self.data & 0xff).unwrap_or(0);
        // INIT and the like do not come from devices; and no device says when a level falls, so all are edges.
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority | Delivery::Nmi) {
            let is_meant = |vcpu: &Vcpu| ipi::matches(vcpu, destination);
            ipi::deliver_to(host, domain, is_meant, delivery, vector, Trigger::Edge);
        }
    }
}

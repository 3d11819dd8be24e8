//! Instructions that the hypervisor carries out for the guest.

use guests::Test;
use rt::{apic, memory, msr};

use crate::row::measure;

/// APIC_BASE: an MSR that every hypervisor keeps for itself, and its value on a first processor in xAPIC mode.
const APIC_BASE: u32 = 0x1b;
const APIC_BASE_VALUE: u64 = 0xfee0_0900;
/// The local APIC's version register.
const APIC_VERSION: u64 = apic::APIC_MEMORY + 0x30;
/// The first 8259's, which a PVH domain has not. (0x80 would not do: Xen lets guests have it without an exit.)
const UNOWNED_PORT: u16 = 0x20;

pub(crate) fn run(test: &mut Test) {
    measure(test, "cpuid", || rt::cpuid(0x4000_0000, 0)[1] != 0);
    measure(test, "rdmsr", || msr::read(APIC_BASE) != 0);
    measure(test, "wrmsr", || {
        msr::write(APIC_BASE, APIC_BASE_VALUE);
        true
    });
    measure(test, "in-unowned-port", || rt::input_8(UNOWNED_PORT) == 0xff);
    measure(test, "lapic-mmio-read", || memory::read::<u32>(APIC_VERSION) != 0);
    measure(test, "lapic-mmio-write", || {
        memory::write(apic::APIC_MEMORY + u64::from(apic::TPR), 0_u32);
        true
    });
}

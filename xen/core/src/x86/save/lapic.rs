//! The local APIC's two records: the hidden state and the register page.

use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::Vcpu;
use crate::x86::vlapic::registers::{self, offset};
use crate::x86::vlapic::{base, timer};
use machine::vcpu::Vcpu as Hardware;
use public_abi::Errno;
use public_abi::arch_hvm_save::{HvmHwLapic, HvmHwLapicRegs};
use public_abi::cpu_features::CpuFeature;

/// Bits of `disabled`.
const SOFTWARE: u32 = 1 << 0;
const HARDWARE: u32 = 1 << 1;

/// The hidden state.
pub(super) fn save(vcpu: &Vcpu) -> HvmHwLapic {
    let lapic = &vcpu.x86.lapic;
    let spurious = registers::read(vcpu, offset::SPURIOUS);
    let software = if spurious & 1 << 8 == 0 { SOFTWARE } else { 0 };
    let hardware = if lapic.is_enabled() { 0 } else { HARDWARE };
    let divisor = u32::try_from(lapic.timer.divisor()).unwrap_or(1);
    HvmHwLapic { apic_base_msr: lapic.base(), disabled: software | hardware, timer_divisor: divisor, tdt_msr: 0 }
}

/// Takes the hidden state. What follows from registers (whether it is disabled, the divisor) is taken from those.
pub(super) fn load(domain: &Domain, vcpu: &Vcpu, record: &HvmHwLapic) -> Result<(), Errno> {
    let has_x2apic = domain.x86.policy().has(CpuFeature::X2apic);
    if record.disabled & !(SOFTWARE | HARDWARE) != 0 || record.tdt_msr != 0 {
        return Err(Errno::EINVAL);
    }
    vcpu.x86.lapic.restore_base(record.apic_base_msr, has_x2apic).map_err(|_| Errno::EINVAL)
}

/// The register page.
pub(super) fn save_registers(vcpu: &Vcpu) -> HvmHwLapicRegs {
    let mut record = HvmHwLapicRegs::default();
    for (register, place) in (0u16..).step_by(16).zip(record.data.chunks_exact_mut(16)) {
        // The current count is computed, not kept; what the others say is what a read gives.
        if !matches!(register, offset::TIMER_CURRENT | offset::PPR) {
            let value = registers::read(vcpu, register).to_le_bytes();
            place.iter_mut().zip(value).for_each(|(place, byte)| *place = byte);
        }
    }
    record
}

/// Takes the register page.
pub(super) fn load_registers(
    host: &Host,
    vcpu: &Vcpu,
    hardware: &mut Hardware,
    record: &HvmHwLapicRegs,
) -> Result<(), Errno> {
    let register = |at: u16| {
        let bytes = record.data.get(usize::from(at)..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    // Vectors below 16 are exceptions: delivering one as an interrupt is not what hardware does.
    let illegal = [offset::ISR, offset::TMR, offset::IRR].into_iter().any(|at| register(at) & 0xffff != 0);
    if illegal {
        return Err(Errno::EINVAL);
    }
    let lapic = &vcpu.x86.lapic;
    lapic.restore_registers(register);
    timer::restore(host, vcpu, register(offset::TIMER_INITIAL), register(offset::TIMER_DIVIDE));
    if lapic.base() & base::ENABLED != 0 {
        hardware.set_task_priority(u64::from(register(offset::TPR) >> 4 & 0xf));
    }
    Ok(())
}

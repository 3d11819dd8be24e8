//! The CPUID instruction as a guest sees it: the domain's policy, the hypervisor's own leaves, and the few bits that depend
//! on the vCPU at this moment.
//!
//! Before this: `exits`. The policy is made in `features` and kept in `policy`.

mod features;
mod hypervisor;
mod policy;

pub use hypervisor::TimeLeaves;
pub use policy::{Answer, CpuPolicy, Featureset, MAX_LEAVES, MAX_MSRS, PolicyError, WORDS};

use crate::domain::Domain;
use crate::vcpu::Vcpu;
use machine::codec::registers::{Register, cr4};
use machine::vcpu::Vcpu as Hardware;
use public_abi::cpu_features::CpuFeature;

/// What a vCPU adds to its domain's policy.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The vCPU's number.
    pub vcpu: u32,
    /// CR4.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// Whether the local APIC is enabled in its base MSR.
    pub has_apic: bool,
}

/// The APIC id of a vCPU: the even numbers, as Xen has it.
#[inline]
pub const fn apic_id(vcpu: u32) -> u32 {
    vcpu.wrapping_mul(2)
}

/// What the policy answers, with what depends on the moment put in.
#[inline]
pub fn answer(policy: &CpuPolicy, moment: &Moment, leaf: u32, subleaf: u32) -> Answer {
    let [a, mut b, mut c, mut d] = policy.answer(leaf, subleaf);
    match (leaf, subleaf) {
        (1, _) => {
            b = b & 0x00ff_ffff | apic_id(moment.vcpu) << 24;
            if moment.cr4 & cr4::OSXSAVE != 0 {
                c |= CpuFeature::Osxsave.mask();
            }
            if !moment.has_apic {
                d &= !CpuFeature::Apic.mask();
            }
        }
        (7, 0) if moment.cr4 & cr4::PKE != 0 => c |= CpuFeature::Ospke.mask(),
        (0xb, _) if policy.basic_limit() >= 0xb && policy.has(CpuFeature::X2apic) => {
            c = c & !0xff | subleaf & 0xff;
            d = apic_id(moment.vcpu);
        }
        (0xd, 0) if a != 0 => b = policy.standard_size(moment.xcr0),
        (0xd, 1) if policy.has(CpuFeature::Xsavec) => b = policy.compacted_size(moment.xcr0),
        (0x8000_0001, _) if !moment.has_apic => d &= !CpuFeature::Apic.mask(),
        _ => {}
    }
    [a, b, c, d]
}

/// Carries out CPUID with the registers of a vCPU, which is loaded.
#[inline]
pub fn execute(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let leaf = (hardware.register(Register::Rax) & 0xffff_ffff) as u32;
    let subleaf = (hardware.register(Register::Rcx) & 0xffff_ffff) as u32;
    let moment = Moment {
        vcpu: vcpu.index,
        cr4: hardware.guest().cr4,
        xcr0: hardware.lazy().xcr0,
        has_apic: vcpu.x86.lapic.is_enabled(),
    };
    let policy = domain.x86.policy();
    let [a, b, c, d] = if leaf & 0xffff_fe00 == 0x4000_0000 {
        hypervisor::answer(domain, &policy, moment.vcpu, leaf, subleaf)
    } else {
        answer(&policy, &moment, leaf, subleaf)
    };
    drop(policy);
    hardware.set_register(Register::Rax, u64::from(a));
    hardware.set_register(Register::Rbx, u64::from(b));
    hardware.set_register(Register::Rcx, u64::from(c));
    hardware.set_register(Register::Rdx, u64::from(d));
}

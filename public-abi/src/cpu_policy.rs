//! CPU policy: lists of CPUID leaves and MSRs, and the featureset (arch-x86/xen.h, arch-x86/cpufeatureset.h).
//!
//! The policy travels in domctl and sysctl `get_cpu_policy`/`set_cpu_policy` as lists of [`CpuidLeaf`] and [`MsrEntry`],
//! and in sysctl `get_cpu_featureset` as an array of words. The names of single features are in `cpu_features.rs`.

abi! {
    /// `struct xen_cpuid_leaf`.
    pub struct CpuidLeaf = 24 {
        0  leaf: u32 = "EAX of the CPUID instruction.";
        4  subleaf: u32 = "ECX, or [`CPUID_NO_SUBLEAF`].";
        8  a: u32 = "EAX of the result.";
        12 b: u32 = "EBX of the result.";
        16 c: u32 = "ECX of the result.";
        20 d: u32 = "EDX of the result.";
    }

    /// `struct xen_msr_entry`.
    pub struct MsrEntry = 16 {
        0 idx: u32 = "MSR.";
        4 flags: u32 = "Must be 0.";
        8 val: u64 = "Value.";
    }
}

/// [`CpuidLeaf::subleaf`] of a leaf without sub-leaves.
pub const CPUID_NO_SUBLEAF: u32 = u32::MAX;

/// [`CpuPolicy`](crate::domctl_vcpu::CpuPolicy) and its error fields: no leaf, no MSR.
pub const CPUID_INPUT_UNUSED: u32 = u32::MAX;

/// A result register of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Where a word of the featureset comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordSource {
    /// A register of a CPUID leaf.
    Cpuid {
        /// EAX of the instruction.
        leaf: u32,
        /// ECX of the instruction.
        subleaf: u32,
        /// Which register of the result.
        register: CpuidRegister,
    },
    /// The lower (0) or upper (1) half of an MSR.
    Msr {
        /// The MSR.
        index: u32,
        /// The half.
        half: u32,
    },
}

const fn cpuid(leaf: u32, subleaf: u32, register: CpuidRegister) -> WordSource {
    WordSource::Cpuid { leaf, subleaf, register }
}

/// The words of the featureset, in order.
///
/// 4.17.0 had the first 14; its security updates added the rest. Tools must take the number from the hypervisor and
/// ignore words that they do not know.
pub const FEATURESET_WORDS: &[WordSource] = &[
    cpuid(0x1, 0, CpuidRegister::Edx),
    cpuid(0x1, 0, CpuidRegister::Ecx),
    cpuid(0x8000_0001, 0, CpuidRegister::Edx),
    cpuid(0x8000_0001, 0, CpuidRegister::Ecx),
    cpuid(0xd, 1, CpuidRegister::Eax),
    cpuid(0x7, 0, CpuidRegister::Ebx),
    cpuid(0x7, 0, CpuidRegister::Ecx),
    cpuid(0x8000_0007, 0, CpuidRegister::Edx),
    cpuid(0x8000_0008, 0, CpuidRegister::Ebx),
    cpuid(0x7, 0, CpuidRegister::Edx),
    cpuid(0x7, 1, CpuidRegister::Eax),
    cpuid(0x8000_0021, 0, CpuidRegister::Eax),
    cpuid(0x7, 1, CpuidRegister::Ebx),
    cpuid(0x7, 2, CpuidRegister::Edx),
    cpuid(0x7, 1, CpuidRegister::Ecx),
    cpuid(0x7, 1, CpuidRegister::Edx),
    WordSource::Msr { index: 0x10a, half: 0 },
    WordSource::Msr { index: 0x10a, half: 1 },
    cpuid(0x8000_0021, 0, CpuidRegister::Ecx),
];

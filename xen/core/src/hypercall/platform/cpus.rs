//! platform_op about single processors: identity and state. All run, always; none can be taken away.

use super::parameters;
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
use machine::CpuId;
use machine::platform::cpuid;
use public_abi::Errno;
use public_abi::platform::{CpuOl, PCPU_FLAGS_INVALID, PCPU_FLAGS_ONLINE, PcpuInfo, PcpuVersion, PlatformRequest};

/// The CPU of this number, if it exists.
fn find(caller: &Caller<'_>, number: u32) -> Option<CpuId> {
    let id = CpuId(u16::try_from(number).ok()?);
    (id.index() < caller.host.cpus.len()).then_some(id)
}

/// The largest number of a CPU.
fn last(caller: &Caller<'_>) -> u32 {
    u32::try_from(caller.host.cpus.len()).unwrap_or(u32::MAX).saturating_sub(1)
}

/// XENPF_get_cpuinfo.
pub fn information(caller: &Caller<'_>, request: &mut PlatformRequest) -> Result<Answer, Errno> {
    let mut info: PcpuInfo = parameters(request)?;
    match find(caller, info.xen_cpuid) {
        Some(cpu) => {
            info.flags = PCPU_FLAGS_ONLINE;
            info.apic_id = caller.host.cpus.get(cpu.index()).map_or(0, |cpu| cpu.apic_id);
            // The MADT's processor identifiers are not kept after the boot; ours stand for them.
            info.acpi_id = u32::from(cpu.0);
        }
        None => info.flags = PCPU_FLAGS_INVALID,
    }
    info.max_present = last(caller);
    request.set(&info).map_err(|_| Errno::EINVAL)?;
    Ok(Answer::Changed)
}

/// XENPF_get_cpu_version. The processors are all alike, so any may answer.
pub fn version(caller: &Caller<'_>, request: &mut PlatformRequest) -> Result<Answer, Errno> {
    let mut version: PcpuVersion = parameters(request)?;
    (version.vendor_id, version.family, version.model, version.stepping) = match find(caller, version.xen_cpuid) {
        Some(_) => identity(cpuid(0, 0), cpuid(1, 0)),
        None => ([0; 12], 0, 0, 0),
    };
    version.max_present = last(caller);
    request.set(&version).map_err(|_| Errno::EINVAL)?;
    Ok(Answer::Changed)
}

/// Vendor, family, model and stepping from CPUID leaves 0 and 1 (AMD APM volume 3, Fn0000_0001 EAX).
fn identity([_, ebx, ecx, edx]: [u32; 4], [signature, ..]: [u32; 4]) -> ([u8; 12], u32, u32, u32) {
    const BASE_EXTENDED: u32 = 0xf;
    let mut vendor = [0; 12];
    for (place, byte) in vendor.iter_mut().zip([ebx, edx, ecx].iter().flat_map(|word| word.to_le_bytes())) {
        *place = byte;
    }
    let base_family = signature >> 8 & 0xf;
    let base_model = signature >> 4 & 0xf;
    let extended = base_family == BASE_EXTENDED;
    let family = if extended { base_family.saturating_add(signature >> 20 & 0xff) } else { base_family };
    // Intel's family 6 uses the extended model, too.
    let model = if extended || base_family == 6 { (signature >> 16 & 0xf) << 4 | base_model } else { base_model };
    (vendor, family, model, signature & 0xf)
}

/// XENPF_cpu_online.
pub fn online(caller: &Caller<'_>, request: &CpuOl) -> Result<Answer, Errno> {
    find(caller, request.cpuid).map(|_| Answer::Unchanged).ok_or(Errno::EINVAL)
}

/// XENPF_cpu_offline.
pub fn offline(caller: &Caller<'_>, request: &CpuOl) -> Result<Answer, Errno> {
    Err(if find(caller, request.cpuid).is_some() { Errno::EOPNOTSUPP } else { Errno::EINVAL })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf0(vendor: &[u8; 12]) -> [u32; 4] {
        let word = |from: usize| u32::from_le_bytes(vendor[from..from + 4].try_into().unwrap());
        [0xd, word(0), word(8), word(4)]
    }

    #[test]
    fn families_and_models_are_put_together() {
        // An EPYC (family 17h, model 1) and a Skylake (family 6, model 5eh).
        let epyc = identity(leaf0(b"AuthenticAMD"), [0x0080_0f12, 0, 0, 0]);
        assert_eq!(epyc, (*b"AuthenticAMD", 0x17, 0x01, 2));
        let skylake = identity(leaf0(b"GenuineIntel"), [0x0005_06e3, 0, 0, 0]);
        assert_eq!(skylake, (*b"GenuineIntel", 6, 0x5e, 3));
    }
}

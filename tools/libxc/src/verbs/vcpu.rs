//! vCPUs of a domain: what they do, and where they may run.

use public_abi::GuestPtr;
use public_abi::bitmap::Bitmap;
use public_abi::domctl::DomctlOp;
use public_abi::domctl_vcpu::{AffinityFlags, GetVcpuInfo, SendTrigger, Trigger, VcpuAffinity, VcpuContext};
use public_abi::x86::VcpuGuestContext;
use zerocopy::{FromZeros, IntoBytes};

use crate::error::Result;
use crate::handle::{Array, Handle};
use crate::trap::Trap;

/// What a vCPU does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuInfo {
    /// It is up.
    pub online: bool,
    /// It waits for an event.
    pub blocked: bool,
    /// It is on a CPU.
    pub running: bool,
    /// CPU time in nanoseconds.
    pub cpu_time: u64,
    /// The CPU it is on or was on.
    pub cpu: u32,
}

/// A set of CPUs, or of nodes, as bytes: bit n is CPU n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuMap(Vec<u8>);

impl CpuMap {
    /// A map for `cpus` CPUs with those of the list in it; those beyond are left out.
    pub fn new(cpus: u32, members: &[u32]) -> CpuMap {
        let bytes = usize::try_from(cpus.div_ceil(8)).unwrap_or(0);
        let mut map = CpuMap(vec![0; bytes]);
        for &cpu in members {
            if let Some(byte) = map.0.get_mut(cpu as usize / 8) {
                *byte |= 1 << (cpu % 8);
            }
        }
        map
    }

    /// A map with all of `cpus` CPUs, and the rest of the last byte, in it.
    pub fn full(cpus: u32) -> CpuMap {
        CpuMap(vec![0xff; usize::try_from(cpus.div_ceil(8)).unwrap_or(0)])
    }

    /// The set that these bytes are.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> CpuMap {
        CpuMap(bytes)
    }

    /// The members in order.
    pub fn members(&self) -> Vec<u32> {
        let bits = self.0.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0));
        (0..).zip(bits).filter(|&(_, member)| member).map(|(cpu, _)| cpu).collect()
    }
}

impl<T: Trap> Handle<T> {
    /// What a vCPU does; an error if the domain has no such vCPU.
    pub fn vcpu_info(&self, domain: u16, vcpu: u32) -> Result<VcpuInfo> {
        let parameters = GetVcpuInfo { vcpu, ..GetVcpuInfo::default() };
        let (_, answer) = self.domctl(DomctlOp::GetVcpuInfo, domain, Array::None, |_| parameters)?;
        Ok(VcpuInfo {
            online: answer.online != 0,
            blocked: answer.blocked != 0,
            running: answer.running != 0,
            cpu_time: answer.cpu_time,
            cpu: answer.cpu,
        })
    }

    /// Registers of a vCPU; an error if it was never up.
    pub fn vcpu_context(&self, domain: u16, vcpu: u32) -> Result<VcpuGuestContext> {
        let mut context = VcpuGuestContext::new_zeroed();
        let array = Array::Out(context.as_mut_bytes());
        self.domctl(DomctlOp::GetVcpuContext, domain, array, |address| VcpuContext {
            vcpu,
            ctxt: GuestPtr::from_address(address),
            ..VcpuContext::default()
        })?;
        Ok(context)
    }

    /// Where a vCPU may run and where it prefers to, on a host with `cpus` CPUs.
    pub fn vcpu_affinity(&self, domain: u16, vcpu: u32, cpus: u32) -> Result<(CpuMap, CpuMap)> {
        let (mut hard, mut soft) = (CpuMap::new(cpus, &[]), CpuMap::new(cpus, &[]));
        let flags = AffinityFlags::HARD | AffinityFlags::SOFT;
        self.affinity(DomctlOp::GetVcpuAffinity, domain, vcpu, flags, &mut hard, &mut soft)?;
        Ok((hard, soft))
    }

    /// Chooses where a vCPU may run and where it prefers to; `None` leaves it.
    pub fn vcpu_set_affinity(
        &self,
        domain: u16,
        vcpu: u32,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Result<()> {
        self.vcpu_choose(domain, vcpu, hard, soft, AffinityFlags::empty())
    }

    /// The same, and the end of a pin that the guest's kernel has asked for (SCHEDOP_pin_override).
    pub fn vcpu_force_affinity(
        &self,
        domain: u16,
        vcpu: u32,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
    ) -> Result<()> {
        self.vcpu_choose(domain, vcpu, hard, soft, AffinityFlags::FORCE)
    }

    fn vcpu_choose(
        &self,
        domain: u16,
        vcpu: u32,
        hard: Option<&CpuMap>,
        soft: Option<&CpuMap>,
        mut flags: AffinityFlags,
    ) -> Result<()> {
        flags.set(AffinityFlags::HARD, hard.is_some());
        flags.set(AffinityFlags::SOFT, soft.is_some());
        let copy = |map: Option<&CpuMap>| map.cloned().unwrap_or(CpuMap(Vec::new()));
        self.affinity(DomctlOp::SetVcpuAffinity, domain, vcpu, flags, &mut copy(hard), &mut copy(soft))
    }

    fn affinity(
        &self,
        operation: DomctlOp,
        domain: u16,
        vcpu: u32,
        flags: AffinityFlags,
        hard: &mut CpuMap,
        soft: &mut CpuMap,
    ) -> Result<()> {
        let split = hard.0.len();
        let mut bytes = [hard.0.as_slice(), soft.0.as_slice()].concat();
        let bitmap = |address: u64, map: &CpuMap| Bitmap {
            bitmap: GuestPtr::from_address(address),
            nr_bits: u32::try_from(map.0.len() * 8).unwrap_or(u32::MAX),
            ..Bitmap::default()
        };
        self.domctl(operation, domain, Array::InOut(&mut bytes), |address| VcpuAffinity {
            vcpu,
            flags: flags.bits(),
            cpumap_hard: bitmap(address, hard),
            cpumap_soft: bitmap(address + split as u64, soft),
        })?;
        hard.0.copy_from_slice(&bytes[..split]);
        soft.0.copy_from_slice(&bytes[split..]);
        Ok(())
    }

    /// Presses one of the guest's buttons or raises an interrupt.
    pub fn send_trigger(&self, domain: u16, trigger: Trigger, vcpu: u32) -> Result<()> {
        let parameters = SendTrigger { trigger: trigger.number(), vcpu };
        self.domctl(DomctlOp::SendTrigger, domain, Array::None, |_| parameters).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_maps_keep_their_members() {
        assert_eq!(CpuMap::new(12, &[0, 9, 11, 40]).members(), [0, 9, 11]);
        assert_eq!(CpuMap::full(3).members(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

//! State of a domain: parameters, event channels, registers, CPU policy, grants that are there from the start.

use public_abi::arch_hvm_save::{HvmHwCpu, HvmHwMtrr, HvmSaveHeader};
use public_abi::cpu_policy::CpuidLeaf;
use public_abi::domctl::DomctlOp;
use public_abi::domctl_domain::HvmContext;
use public_abi::domctl_vcpu::CpuPolicy;
use public_abi::event_channel::{AllocUnbound, EventChannelOp};
use public_abi::grant_table::{GTF_PERMIT_ACCESS, GrantEntryV1};
use public_abi::hvm_op::{HvmOp, HvmParamRequest};
use public_abi::hvm_params::HvmParam;
use public_abi::hvm_save::{Records, SaveCode, SaveDescriptor, SaveRecord};
use public_abi::memory::Resource;
use public_abi::sysctl::{CpuPolicyIndex, SysctlCpuPolicy, SysctlOp};
use public_abi::{GuestPtr, Request};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::trap::{Foreign, Trap};

/// Room for CPUID leaves: Xen 4.17 has at most a bit more than a hundred.
const LEAVES: usize = 512;

impl<T: Trap> Handle<T> {
    /// Opens a port of `domain` that `remote` may bind to. The port.
    pub fn event_alloc_unbound(&self, domain: u16, remote: u16) -> Result<u32> {
        let mut request = AllocUnbound { dom: domain, remote_dom: remote, ..AllocUnbound::default() };
        let operation = EventChannelOp::AllocUnbound;
        let call = |arg| Request::EventChannelOp { cmd: operation.number(), arg };
        self.exchange(operation.name(), &mut request, Array::None, |_, _| (), call)?;
        Ok(request.port)
    }

    /// Sets a parameter of an HVM or PVH domain.
    pub fn set_param(&self, domain: u16, param: HvmParam, value: u64) -> Result<()> {
        self.param(HvmOp::SetParam, domain, param, value).map(|_| ())
    }

    /// Reads a parameter of an HVM or PVH domain.
    pub fn param_value(&self, domain: u16, param: HvmParam) -> Result<u64> {
        self.param(HvmOp::GetParam, domain, param, 0)
    }

    fn param(&self, operation: HvmOp, domain: u16, param: HvmParam, value: u64) -> Result<u64> {
        let mut request = HvmParamRequest { domid: domain, index: param.number(), value, ..HvmParamRequest::default() };
        let call = |arg| Request::HvmOp { cmd: operation.number().into(), arg };
        self.exchange(operation.name(), &mut request, Array::None, |_, _| (), call)?;
        Ok(request.value)
    }

    /// The CPUID leaves of one of the hypervisor's policies: the host's, or what domains can have or have by default.
    pub fn cpuid(&self, policy: CpuPolicyIndex) -> Result<Vec<CpuidLeaf>> {
        let mut leaves = vec![CpuidLeaf::new_zeroed(); LEAVES];
        let array = Array::Out(leaves.as_mut_bytes());
        let answer = self.sysctl(SysctlOp::GetCpuPolicy, array, |address| SysctlCpuPolicy {
            index: policy.number(),
            nr_leaves: u32::try_from(LEAVES).unwrap_or(u32::MAX),
            leaves: GuestPtr::from_address(address),
            ..SysctlCpuPolicy::default()
        })?;
        leaves.truncate(usize::try_from(answer.nr_leaves).unwrap_or(usize::MAX));
        Ok(leaves)
    }

    /// Sets the CPUID leaves of a domain.
    pub fn set_cpuid(&self, domain: u16, leaves: &[CpuidLeaf]) -> Result<()> {
        let nr_leaves = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let operation = DomctlOp::SetCpuPolicy;
        let answer = self.domctl(operation, domain, Array::In(leaves.as_bytes()), |address| CpuPolicy {
            nr_leaves,
            leaves: GuestPtr::from_address(address),
            ..CpuPolicy::default()
        });
        answer.map(|_| ())
    }

    /// The save records of a domain: header, registers, devices.
    pub fn save_records(&self, domain: u16) -> Result<Vec<u8>> {
        let operation = DomctlOp::GetHvmContext;
        let (_, size) = self.domctl(operation, domain, Array::None, |_| HvmContext::default())?;
        let mut bytes = vec![0; usize::try_from(size.size).unwrap_or(0)];
        let (_, written) = self.domctl(operation, domain, Array::Out(&mut bytes), |address| HvmContext {
            size: size.size,
            buffer: GuestPtr::from_address(address),
            ..HvmContext::default()
        })?;
        bytes.truncate(usize::try_from(written.size).unwrap_or(0));
        Ok(bytes)
    }

    /// Loads save records into a domain.
    pub fn load_records(&self, domain: u16, bytes: &[u8]) -> Result<()> {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let operation = DomctlOp::SetHvmContext;
        let answer = self.domctl(operation, domain, Array::In(bytes), |address| HvmContext {
            size,
            buffer: GuestPtr::from_address(address),
            ..HvmContext::default()
        });
        answer.map(|_| ())
    }

    /// Puts every vCPU's MTRRs to write-back and vCPU 0 into the state in which a PVH kernel is entered.
    ///
    /// Each load puts all vCPUs down, so vCPU 0's comes last and leaves it up.
    pub fn enter_pvh(&self, domain: u16, vcpus: u32, entry: u32, start_info: u64) -> Result<()> {
        let records = self.save_records(domain)?;
        let header: HvmSaveHeader = find(&records, domain)?;
        let mut mtrr: HvmHwMtrr = find(&records, domain)?;
        mtrr.msr_mtrr_def_type = MTRR_ENABLED | MTRR_WRITE_BACK;
        for vcpu in 0..vcpus {
            let instance = u16::try_from(vcpu).unwrap_or(u16::MAX);
            self.load_records(domain, &sequence(&header, instance, &mtrr))?;
        }
        self.load_records(domain, &sequence(&header, 0, &pvh_registers(entry, start_info)))
    }

    /// Writes entries into a domain's grant table before it runs: reference, receiving domain, frame.
    pub fn seed_grants(&self, domain: u16, grants: &[(u32, u16, u64)]) -> Result<()> {
        let mut table = self.trap().resource(domain, Resource::GrantTable, 0, 0, 1)?;
        for &(reference, receiver, gfn) in grants {
            let frame = u32::try_from(gfn)
                .map_err(|_| Error::Protocol(format!("page {gfn:#x} is too high for a version 1 grant")))?;
            let entry = GrantEntryV1 { flags: GTF_PERMIT_ACCESS, domid: receiver, frame };
            table.write_at(reference as usize * size_of::<GrantEntryV1>(), entry.as_bytes());
        }
        Ok(())
    }
}

/// `MTRR_DEF_TYPE`: enabled, and write-back as default type (AMD APM volume 2, §7.7.2).
const MTRR_ENABLED: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// The first record of a type in a sequence.
fn find<R: SaveRecord>(records: &[u8], domain: u16) -> Result<R> {
    for record in Records::new(records) {
        let record = record.map_err(|error| Error::Protocol(format!("domain {domain}: {error}")))?;
        if let Some(found) = record.get() {
            return Ok(found);
        }
    }
    Err(Error::Protocol(format!("the hypervisor gave no {} record of domain {domain}", R::CODE.name())))
}

/// A sequence of the header, one record and the end.
fn sequence<R: SaveRecord>(header: &HvmSaveHeader, instance: u16, record: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut push = |code: SaveCode, instance, contents: &[u8]| {
        let typecode = u16::try_from(code.number()).unwrap_or(u16::MAX);
        let length = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(SaveDescriptor { typecode, instance, length }.as_bytes());
        bytes.extend_from_slice(contents);
    };
    push(HvmSaveHeader::CODE, 0, header.as_bytes());
    push(R::CODE, instance, record.as_bytes());
    push(SaveCode::End, 0, &[]);
    bytes
}

/// Entry state of a PVH kernel: flat 32-bit protected mode without paging (docs/misc/pvh.pandoc).
fn pvh_registers(entry: u32, start_info: u64) -> HvmHwCpu {
    /// Present, ring 0, 4 KiB granularity, 32 bits: code, then data; and a busy 32-bit TSS.
    const CODE: u32 = 0xc9b;
    const DATA: u32 = 0xc93;
    const TASK: u32 = 0x8b;
    HvmHwCpu {
        rip: entry.into(),
        rbx: start_info,
        // Protected mode and extension type.
        cr0: 0x11,
        cs_limit: u32::MAX,
        ds_limit: u32::MAX,
        es_limit: u32::MAX,
        ss_limit: u32::MAX,
        tr_limit: 0x67,
        cs_arbytes: CODE,
        ds_arbytes: DATA,
        es_arbytes: DATA,
        ss_arbytes: DATA,
        tr_arbytes: TASK,
        // Their values after a reset.
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        ..HvmHwCpu::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_reads_back() {
        let header = HvmSaveHeader { magic: 1, ..HvmSaveHeader::default() };
        let bytes = sequence(&header, 3, &pvh_registers(0x100_0850, 0x7000));
        let records: Vec<_> = Records::new(&bytes).collect::<std::result::Result<_, _>>().expect("is whole");
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].get::<HvmSaveHeader>(), Some(header));
        let registers: HvmHwCpu = records[1].get().expect("is a CPU record");
        assert_eq!((registers.rip, registers.rbx, registers.cr0), (0x100_0850, 0x7000, 0x11));
        assert_eq!(records[1].descriptor.instance, 3);
    }
}

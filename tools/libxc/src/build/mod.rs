//! Carrying out a build plan, step by step, with everything undone when a step fails.
//!
//! The plan has decided everything; here it meets the hypervisor ([`crate::Handle`]) and xenstored
//! ([`crate::xenstore::Client`]). A failure names the step and why; the domain, its memory, ports and nodes are gone
//! then. What comes after is the caller's: user data, console, unpause. Its tests are in `tests/keystone`, where the real
//! hypervisor carries out what it asks for.

mod load;
mod payload;
mod store;

use std::fmt;

use image::Kernel;
pub use payload::Payload;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::plan::cpuid_mask::{self, LeafMask};
use crate::plan::{BuildPlan, Channel, ParamValue, Step, cpuid};
use crate::trap::Trap;
use crate::verbs::domain::SchedParams;
use crate::verbs::vcpu::CpuMap;
use crate::xenstore::Client;
use public_abi::sysctl::CpuPolicyIndex;

/// What the plan's loads refer to.
pub struct Payloads<'a> {
    /// The kernel.
    pub kernel: &'a Kernel<'a>,
    /// The file that it was parsed from.
    pub kernel_file: Payload<'a>,
    /// The initial RAM disk; empty for none.
    pub ramdisk: Payload<'a>,
}

/// A domain that was built; it is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub domid: u16,
    /// The domain's end of its xenstore channel.
    pub xenstore_port: u32,
    /// The domain's end of its console channel.
    pub console_port: u32,
}

/// A step that failed.
#[derive(Debug)]
pub struct BuildError {
    /// Its position in the plan, from 1.
    pub number: usize,
    /// The step, as the plan prints it.
    pub step: String,
    /// Why it failed.
    pub error: Error,
    /// Why undoing it failed, if it did: then something is left behind.
    pub left_behind: Option<Error>,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of the plan ({}) failed: {}", self.number, self.step, self.error)?;
        match &self.left_behind {
            None => Ok(()),
            Some(error) => write!(f, "; taking back what was done failed, too: {error}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Builds the domain.
///
/// # Errors
/// The first step that fails, after everything before it has been undone.
pub fn build<T: Trap>(
    plan: &BuildPlan,
    payloads: &Payloads<'_>,
    handle: &Handle<T>,
    store: &Client,
) -> std::result::Result<Built, BuildError> {
    let mut builder = Builder { handle, store, payloads, plan, domid: None, xenstore_port: 0, console_port: 0 };
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(error) = builder.carry_out(step) {
            let left_behind = builder.undo().err();
            return Err(BuildError { number: index + 1, step: step.to_string(), error, left_behind });
        }
    }
    let Builder { domid, xenstore_port, console_port, .. } = builder;
    match domid {
        Some(domid) => Ok(Built { domid, xenstore_port, console_port }),
        None => {
            let error = Error::Protocol("the plan creates no domain".into());
            Err(BuildError { number: plan.steps.len(), step: "end".into(), error, left_behind: None })
        }
    }
}

struct Builder<'a, T: Trap> {
    handle: &'a Handle<T>,
    store: &'a Client,
    payloads: &'a Payloads<'a>,
    plan: &'a BuildPlan,
    /// Known once the domain exists.
    domid: Option<u16>,
    xenstore_port: u32,
    console_port: u32,
}

impl<T: Trap> Builder<'_, T> {
    fn domid(&self) -> Result<u16> {
        self.domid.ok_or_else(|| Error::Protocol("the plan works on a domain before it creates one".into()))
    }

    fn port(&self, channel: Channel) -> u32 {
        match channel {
            Channel::Xenstore => self.xenstore_port,
            Channel::Console => self.console_port,
        }
    }

    fn carry_out(&mut self, step: &Step) -> Result<()> {
        if let Step::CreateDomain(create) = step {
            self.domid = Some(self.handle.domain_create(create)?);
            return Ok(());
        }
        let domain = self.domid()?;
        let handle = self.handle;
        match step {
            Step::CreateDomain(_) => Ok(()),
            Step::MaxVcpus(count) => handle.domain_max_vcpus(domain, *count),
            Step::Store { clear, nodes, .. } => self.write_nodes(clear, nodes),
            Step::Affinity { vcpu, hard, soft } => self.set_affinity(*vcpu, hard, soft),
            Step::MaxMemory(kib) => handle.domain_max_memory(domain, *kib),
            Step::OpenChannel { channel, remote } => {
                let port = handle.event_alloc_unbound(domain, *remote)?;
                match channel {
                    Channel::Xenstore => self.xenstore_port = port,
                    Channel::Console => self.console_port = port,
                }
                Ok(())
            }
            Step::SetParam { param, value } => {
                let value = match value {
                    ParamValue::Number(value) => *value,
                    ParamValue::Port(channel) => self.port(*channel).into(),
                };
                handle.set_param(domain, *param, value)
            }
            Step::TscMode(mode) => handle.domain_tsc_mode(domain, *mode),
            Step::PagingPool(bytes) => handle.domain_paging_pool(domain, *bytes),
            Step::CpuPolicy { invariant_tsc, masks } => {
                let mut leaves = handle.cpuid(CpuPolicyIndex::HvmDefault)?;
                cpuid::adjust(&mut leaves, *invariant_tsc);
                let wants_host = masks.iter().any(LeafMask::wants_host);
                let host = if wants_host { handle.cpuid(CpuPolicyIndex::Host)? } else { Vec::new() };
                cpuid_mask::apply(&mut leaves, &host, masks)
                    .map_err(|mask| Error::Protocol(format!("this host's CPUID policy has no {mask}")))?;
                handle.set_cpuid(domain, &leaves)
            }
            Step::Claim(pages) => handle.claim_pages(domain, *pages),
            Step::Populate { range, large, .. } => handle.populate(domain, *range, *large),
            Step::MemoryMap(map) => handle.set_memory_map(domain, map),
            Step::Clear { range, .. } => handle.guest_memory(domain).clear(range.start(), range.len(), range.end()),
            Step::Load { range, source } => load::load(handle, domain, *range, source, self.payloads),
            Step::Context { vcpus, entry, start_info } => handle.enter_pvh(domain, *vcpus, *entry, *start_info),
            Step::SeedGrants(grants) => handle.seed_grants(domain, grants),
            Step::Scheduling { weight, cap } => self.set_scheduling(*weight, *cap),
            Step::Introduce { gfn } => self.store.introduce(domain, *gfn, self.xenstore_port),
        }
    }

    fn set_affinity(&self, vcpu: u32, hard: &[u32], soft: &[u32]) -> Result<()> {
        let cpus = u32::try_from(self.handle.cpu_count()?).unwrap_or(u32::MAX);
        let map = |cpus_wanted: &[u32]| (!cpus_wanted.is_empty()).then(|| CpuMap::new(cpus, cpus_wanted));
        let (hard, soft) = (map(hard), map(soft));
        self.handle.vcpu_set_affinity(self.domid()?, vcpu, hard.as_ref(), soft.as_ref())
    }

    fn set_scheduling(&self, weight: Option<u32>, cap: Option<u32>) -> Result<()> {
        let scheduler = self.handle.scheduler()?;
        let scheduler =
            scheduler.map_err(|number| Error::Protocol(format!("the scheduler has an unknown number, {number}")))?;
        let domain = self.domid()?;
        let present = self.handle.domain_scheduling(domain, scheduler)?;
        let narrow =
            |value: Option<u32>, present: u16| value.map_or(present, |value| u16::try_from(value).unwrap_or(u16::MAX));
        let params = SchedParams { weight: narrow(weight, present.weight), cap: narrow(cap, present.cap) };
        self.handle.domain_set_scheduling(domain, scheduler, params)
    }

    /// Takes everything back: nodes first, since xenstored may hold mappings, then the domain with all that is its own.
    fn undo(&self) -> Result<()> {
        let Some(domain) = self.domid else {
            return Ok(());
        };
        let nodes = self.remove_nodes();
        let gone = self.handle.domain_destroy(domain);
        nodes.and(gone)
    }
}

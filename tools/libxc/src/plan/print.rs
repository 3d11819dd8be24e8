//! Printing a plan: one line per step, for `xl create --plan`.

use std::fmt;

use super::layout;
use super::nodes::{Base, Node, NodeValue, Path, format_uuid};
use super::{BuildPlan, Channel, Create, ParamValue, Source, Step};

impl fmt::Display for BuildPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan for PVH domain \"{}\", uuid {}", self.name, format_uuid(&self.uuid))?;
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:3}. {step}")?;
            if let Step::Store { nodes, .. } = step {
                for node in nodes {
                    writeln!(f, "       {}", Line(node, &self.uuid))?;
                }
            }
            if let Step::MemoryMap(map) = step {
                for entry in map {
                    writeln!(f, "       {} {}", entry.range, entry.kind.name())?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Channel::Xenstore => "xenstore",
            Channel::Console => "console",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateDomain(create) => write_create(f, create),
            Step::MaxVcpus(count) => write!(f, "make {count} vCPUs"),
            Step::Store { what, nodes, .. } => {
                write!(f, "write {} xenstore nodes: {what}", nodes.len())
            }
            Step::Affinity { vcpu, hard, soft } => {
                write!(f, "vCPU {vcpu} runs on CPUs {} and prefers {}", CpuList(hard), CpuList(soft))
            }
            Step::MaxMemory(kib) => write!(f, "limit memory to {kib} KiB"),
            Step::OpenChannel { channel, remote } => {
                write!(f, "open the {channel} event channel to domain {remote}")
            }
            Step::SetParam { param, value: ParamValue::Number(value) } => {
                write!(f, "set {} to {value:#x}", param.name())
            }
            Step::SetParam { param, value: ParamValue::Port(channel) } => {
                write!(f, "set {} to the {channel} port", param.name())
            }
            Step::TscMode(mode) => write!(f, "set TSC mode {mode}"),
            Step::PagingPool(bytes) => write!(f, "give {} KiB for page tables", bytes >> 10),
            Step::CpuPolicy { invariant_tsc, masks } => {
                write!(f, "set the CPUID policy, {} invariant TSC", if *invariant_tsc { "with" } else { "without" })?;
                masks.iter().try_for_each(|mask| write!(f, ", {mask} changed"))
            }
            Step::Claim(0) => f.write_str("claim no more pages"),
            Step::Claim(pages) => write!(f, "claim {pages} pages"),
            Step::Populate { what, range, large } => {
                write!(
                    f,
                    "populate {range} ({} pages{}): {what}",
                    layout::pages(*range),
                    if *large { ", large if possible" } else { "" }
                )
            }
            Step::MemoryMap(map) => write!(f, "set the memory map, {} entries", map.len()),
            Step::Clear { what, range } => write!(f, "clear {range}: {what}"),
            Step::Load { range, source } => write!(f, "load {range}: {source}"),
            Step::Context { vcpus, entry, start_info } => {
                write!(f, "set MTRRs of {vcpus} vCPUs; vCPU 0 starts at {entry:#x} with RBX {start_info:#x}")
            }
            Step::SeedGrants(grants) => {
                let grant = |(reference, domain, gfn): &(u32, u16, u64)| {
                    format!("page {gfn:#x} to domain {domain} as reference {reference}")
                };
                let grants: Vec<String> = grants.iter().map(grant).collect();
                write!(f, "grant {}", grants.join(", "))
            }
            Step::Scheduling { weight, cap } => {
                f.write_str("set scheduling:")?;
                weight.map_or(Ok(()), |weight| write!(f, " weight {weight}"))?;
                cap.map_or(Ok(()), |cap| write!(f, " cap {cap}%"))
            }
            Step::Introduce { gfn } => {
                write!(f, "introduce the domain to xenstored, ring page {gfn:#x}")
            }
        }
    }
}

fn write_create(f: &mut fmt::Formatter<'_>, create: &Create) -> fmt::Result {
    let frames = |frames: Option<u32>| frames.map_or_else(|| "default".to_string(), |frames| frames.to_string());
    write!(
        f,
        "create domain: hvm, hap{}, {} vCPUs, {} event channels, {} grant frames, {} maptrack frames, grants v{}, CPU pool {}",
        if create.out_of_sync { "" } else { ", oos_off" },
        create.max_vcpus,
        create.max_event_channels,
        frames(create.max_grant_frames),
        frames(create.max_maptrack_frames),
        create.max_grant_version,
        create.cpu_pool,
    )
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Kernel => f.write_str("kernel"),
            Source::Ramdisk => f.write_str("ramdisk"),
            Source::Made { what, bytes } => write!(f, "{what}, {} bytes", bytes.len()),
            Source::IdentityPageTable => f.write_str("identity page table"),
        }
    }
}

struct CpuList<'a>(&'a [u32]);

impl fmt::Display for CpuList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any");
        }
        let list: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&list.join(","))
    }
}

struct Line<'a>(&'a Node, &'a [u8; 16]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(node, uuid) = self;
        write!(f, "{}", symbolic(&node.path, uuid))?;
        match &node.value {
            NodeValue::Empty => f.write_str("/"),
            NodeValue::Text(text) => write!(f, " = \"{}\"", text.escape_debug()),
            NodeValue::Domid => f.write_str(" = DOMID"),
            NodeValue::Port(channel) => write!(f, " = the {channel} port"),
            NodeValue::Path(path) => write!(f, " = \"{}\"", symbolic(path, uuid)),
            NodeValue::Now => f.write_str(" = the time"),
        }
    }
}

fn symbolic(path: &Path, uuid: &[u8; 16]) -> String {
    let base = match path.base {
        Base::Domain => "/local/domain/DOMID".to_string(),
        Base::Vm => format!("/vm/{}", format_uuid(uuid)),
        Base::Libxl => "/libxl/DOMID".to_string(),
        Base::ConsoleBackend(backend) => format!("/local/domain/{backend}/backend/console/DOMID/0"),
    };
    if path.rest.is_empty() { base } else { format!("{base}/{}", path.rest) }
}

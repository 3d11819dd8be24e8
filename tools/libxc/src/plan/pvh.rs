//! The planner: a PVH guest, its kernel and the host become a list of steps.
//!
//! First everything gets its place (kernel where it is linked, then RAM disk, then start info, in the first free addresses
//! after it), then the steps are written down in libxl's order. Nothing here can fail except that things do not fit.

use super::acpi::{self, Processor};
use super::layout::{
    self, ACPI_BASE, HIGH_BASE, PAGE, Range, SPECIAL_END, SPECIAL_PAGES, SpecialPage,
};
use super::spec::{GuestSpec, HostFacts, Kernel};
use super::{
    BuildPlan, Channel, Create, Param, ParamValue, PlanError, Source, Step, nodes, start_info,
};

/// Grant references that every guest's first two pages of rings are granted by (public/grant_table.h).
const GRANT_CONSOLE: u32 = 0;
const GRANT_XENSTORE: u32 = 1;
/// What a domain may own beyond its RAM, in KiB, for special pages and tables (libxl's constant).
const EXTRA_KIB: u64 = 1024;
/// Where a guest that does not read the start info's RSDP address finds a copy: just below 1 MiB.
const LEGACY_RSDP: u64 = 0x10_0000 - 64;

/// Where things go in the guest's memory.
struct Placement {
    ram: Vec<Range>,
    ramdisk: Option<Range>,
    start_info: Range,
    start_info_bytes: Vec<u8>,
    acpi: Option<(Range, acpi::Tables)>,
    map: Vec<layout::MapEntry>,
}

/// Plans the building of a guest.
///
/// `ramdisk` is the length of the initial RAM disk in bytes, if there is one.
pub fn plan(
    spec: &GuestSpec,
    kernel: &Kernel,
    ramdisk: Option<u64>,
    host: &HostFacts,
) -> Result<BuildPlan, PlanError> {
    check(spec, kernel)?;
    let placement = place(spec, kernel, ramdisk)?;
    let mut steps = create(spec, host);
    populate(spec, &placement, &mut steps);
    load(spec, kernel, &placement, &mut steps);
    connect(spec, kernel, &placement, host, &mut steps);
    Ok(BuildPlan {
        name: spec.name.clone(),
        uuid: spec.uuid,
        steps,
    })
}

fn check(spec: &GuestSpec, kernel: &Kernel) -> Result<(), PlanError> {
    let (online, most) = (spec.online_vcpus, spec.max_vcpus);
    if online == 0 || online > most || most > 128 {
        return Err(PlanError::Vcpus { online, most });
    }
    let (start_kib, most_kib) = (spec.memory_kib, spec.max_memory_kib);
    if start_kib == 0
        || !start_kib.is_multiple_of(4)
        || !most_kib.is_multiple_of(4)
        || most_kib < start_kib
    {
        return Err(PlanError::Memory {
            start_kib,
            most_kib,
        });
    }
    let entry = u64::from(kernel.entry);
    let inside = |segment: &super::spec::Segment| {
        segment.address <= entry && entry - segment.address < segment.memory_size
    };
    if kernel.segments.iter().any(inside) {
        Ok(())
    } else {
        Err(PlanError::NoEntry {
            entry: kernel.entry,
        })
    }
}

fn place(spec: &GuestSpec, kernel: &Kernel, ramdisk: Option<u64>) -> Result<Placement, PlanError> {
    let ram = layout::ram(spec.memory_kib);
    let low = ram[0];
    let mut next = 0;
    for segment in &kernel.segments {
        let end = segment.address.saturating_add(segment.memory_size);
        if end > low.end {
            return Err(PlanError::KernelBeyondMemory {
                end,
                ram_end: low.end,
            });
        }
        next = next.max(end);
    }
    let acpi = spec.acpi.then(|| {
        let tables = acpi::tables(ACPI_BASE, &processors(spec));
        let pages = (tables.bytes.len() as u64).next_multiple_of(PAGE);
        (
            Range {
                start: ACPI_BASE,
                end: ACPI_BASE + pages,
            },
            tables,
        )
    });
    let map = layout::memory_map(&ram, acpi.as_ref().map(|(range, _)| *range));
    let mut take = |what, bytes: u64| {
        let start = next.next_multiple_of(PAGE);
        let end = start.saturating_add(bytes);
        if end > low.end {
            return Err(PlanError::TooLittleMemory {
                needed_mib: end.div_ceil(1 << 20),
                available_mib: low.end >> 20,
                what,
            });
        }
        next = end;
        Ok(Range { start, end })
    };
    let ramdisk = ramdisk.map(|bytes| take("ramdisk", bytes)).transpose()?;
    let content = start_info::Content {
        command_line: spec.command_line.as_deref(),
        modules: ramdisk.as_slice(),
        map: &map,
        rsdp: acpi.as_ref().map_or(0, |(_, tables)| tables.rsdp),
    };
    let start_info = take("start info", content.size())?;
    let start_info_bytes = content.bytes(start_info.start);
    Ok(Placement {
        ram,
        ramdisk,
        start_info,
        start_info_bytes,
        acpi,
        map,
    })
}

/// The guest's vCPUs as ACPI shows them. A vCPU's APIC id is twice its number: the hypervisor fixes that.
fn processors(spec: &GuestSpec) -> Vec<Processor> {
    let last = u8::try_from(spec.max_vcpus).unwrap_or(128);
    (0..last.min(128))
        .map(|uid| Processor {
            uid,
            apic_id: uid * 2,
            enabled: u32::from(uid) < spec.online_vcpus,
        })
        .collect()
}

/// The domain itself, its vCPUs, limits and channels.
fn create(spec: &GuestSpec, host: &HostFacts) -> Vec<Step> {
    let mut steps = vec![
        Step::CreateDomain(Create {
            uuid: spec.uuid,
            max_vcpus: spec.max_vcpus,
            max_event_channels: spec.max_event_channels,
            max_grant_frames: spec.max_grant_frames,
            max_maptrack_frames: spec.max_maptrack_frames,
            max_grant_version: spec.max_grant_version.unwrap_or(host.grant_version),
            cpu_pool: spec.cpu_pool,
            out_of_sync: spec.out_of_sync,
        }),
        Step::Store {
            what: "skeleton",
            clear: nodes::roots(),
            nodes: nodes::skeleton(spec),
        },
        Step::MaxVcpus(spec.max_vcpus),
    ];
    for (position, vcpu) in (0..spec.max_vcpus).enumerate() {
        let list = |lists: &[Vec<u32>]| lists.get(position).cloned().unwrap_or_default();
        let (hard, soft) = (list(&spec.hard_affinity), list(&spec.soft_affinity));
        if !hard.is_empty() || !soft.is_empty() {
            steps.push(Step::Affinity { vcpu, hard, soft });
        }
    }
    steps.extend([
        Step::MaxMemory(spec.memory_kib + EXTRA_KIB),
        Step::OpenChannel {
            channel: Channel::Xenstore,
            remote: host.xenstore_domid,
        },
        Step::OpenChannel {
            channel: Channel::Console,
            remote: host.console_domid,
        },
        Step::SetParam {
            param: Param::TimerMode,
            value: ParamValue::Number(spec.timer_mode),
        },
        Step::TscMode(spec.tsc_mode),
        Step::PagingPool(spec.paging_pool() * 1024),
        Step::CpuPolicy {
            invariant_tsc: spec.never_migrates || spec.tsc_mode == 1,
        },
    ]);
    steps
}

/// Memory under the guest's address space, and the map of it.
fn populate(spec: &GuestSpec, placement: &Placement, steps: &mut Vec<Step>) {
    steps.push(Step::Claim(spec.memory_kib / 4));
    for &range in &placement.ram {
        let what = if range.start < HIGH_BASE {
            "RAM"
        } else {
            "RAM above 4 GiB"
        };
        steps.push(Step::Populate {
            what,
            range,
            large: true,
        });
    }
    steps.push(Step::Unclaim);
    let special = Range {
        start: SPECIAL_END - SPECIAL_PAGES * PAGE,
        end: SPECIAL_END,
    };
    steps.push(Step::Populate {
        what: "special pages",
        range: special,
        large: false,
    });
    steps.push(Step::Clear {
        what: "special pages",
        range: special,
    });
    if let Some((range, _)) = &placement.acpi {
        steps.push(Step::Populate {
            what: "ACPI tables",
            range: *range,
            large: false,
        });
    }
    steps.push(Step::MemoryMap(placement.map.clone()));
}

/// What is in memory when the guest starts.
fn load(spec: &GuestSpec, kernel: &Kernel, placement: &Placement, steps: &mut Vec<Step>) {
    for (index, segment) in kernel.segments.iter().enumerate() {
        let range = Range {
            start: segment.address,
            end: segment.address + segment.memory_size,
        };
        steps.push(Step::Load {
            range,
            source: Source::Kernel(index),
        });
    }
    if let Some(range) = placement.ramdisk {
        steps.push(Step::Load {
            range,
            source: Source::Ramdisk,
        });
    }
    let made = |what, bytes: &[u8]| Source::Made {
        what,
        bytes: bytes.to_vec(),
    };
    if let Some((range, tables)) = &placement.acpi {
        steps.push(Step::Load {
            range: *range,
            source: made("ACPI tables", &tables.bytes),
        });
        let legacy = Range {
            start: LEGACY_RSDP,
            end: LEGACY_RSDP + tables.rsdp_bytes.len() as u64,
        };
        let free = !kernel.segments.iter().any(|segment| {
            legacy.overlaps(Range {
                start: segment.address,
                end: segment.address + segment.memory_size,
            })
        });
        if !kernel.rsdp_anywhere && free && spec.memory_kib >= 1024 {
            steps.push(Step::Load {
                range: legacy,
                source: made("copy of the RSDP", &tables.rsdp_bytes),
            });
        }
    }
    let bytes = made("start info", &placement.start_info_bytes);
    steps.push(Step::Load {
        range: placement.start_info,
        source: bytes,
    });
    let identity = SpecialPage::IdentityPageTable.gfn() * PAGE;
    steps.push(Step::Load {
        range: Range {
            start: identity,
            end: identity + PAGE,
        },
        source: Source::IdentityPageTable,
    });
}

/// Parameters, registers, grants, scheduling, and xenstore.
fn connect(
    spec: &GuestSpec,
    kernel: &Kernel,
    placement: &Placement,
    host: &HostFacts,
    steps: &mut Vec<Step>,
) {
    let pages = [
        (Param::StorePfn, SpecialPage::Xenstore),
        (Param::BufferedIoreqPfn, SpecialPage::BufferedIoreq),
        (Param::IoreqPfn, SpecialPage::Ioreq),
        (Param::ConsolePfn, SpecialPage::Console),
        (Param::PagingRingPfn, SpecialPage::Paging),
        (Param::MonitorRingPfn, SpecialPage::Access),
        (Param::SharingRingPfn, SpecialPage::Sharing),
    ];
    for (param, page) in pages {
        steps.push(Step::SetParam {
            param,
            value: ParamValue::Number(page.gfn()),
        });
    }
    let identity = SpecialPage::IdentityPageTable.gfn() * PAGE;
    steps.extend([
        Step::SetParam {
            param: Param::IdentityPageTable,
            value: ParamValue::Number(identity),
        },
        Step::SetParam {
            param: Param::ConsolePort,
            value: ParamValue::Port(Channel::Console),
        },
        Step::SetParam {
            param: Param::StorePort,
            value: ParamValue::Port(Channel::Xenstore),
        },
        Step::Context {
            vcpus: spec.max_vcpus,
            entry: kernel.entry,
            start_info: placement.start_info.start,
        },
        Step::SeedGrant {
            reference: GRANT_CONSOLE,
            domain: host.console_domid,
            gfn: SpecialPage::Console.gfn(),
        },
        Step::SeedGrant {
            reference: GRANT_XENSTORE,
            domain: host.xenstore_domid,
            gfn: SpecialPage::Xenstore.gfn(),
        },
    ]);
    if spec.weight.is_some() || spec.cap.is_some() {
        steps.push(Step::Scheduling {
            weight: spec.weight,
            cap: spec.cap,
        });
    }
    steps.extend([
        Step::Store {
            what: "boot values",
            clear: Vec::new(),
            nodes: nodes::boot(spec),
        },
        Step::Introduce {
            gfn: SpecialPage::Xenstore.gfn(),
        },
        Step::Store {
            what: "console",
            clear: Vec::new(),
            nodes: nodes::console(host),
        },
    ]);
}

#[cfg(test)]
#[path = "pvh_tests.rs"]
mod tests;

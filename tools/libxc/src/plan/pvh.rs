//! The planner: a PVH guest, its kernel and the host become a list of steps.
//!
//! First everything gets its place (the crate `image` knows the rules for kernel, RAM disk and start info), then the steps
//! are written down in libxl's order. Nothing here can fail except that things do not fit.

use image::pvh::{MemoryMapEntry, Module, StartInfo, Version};
use image::{GpaRange, ImageError, Kernel, load, placement};

use public_abi::hvm_params::HvmParam;

use super::acpi::{self, Processor};
use super::layout::{self, ACPI_BASE, HIGH_BASE, MapEntry, PAGE, SpecialPage};
use super::spec::{GuestSpec, HostFacts};
use super::{BuildPlan, Channel, Create, ParamValue, PlanError, Source, Step, nodes};

/// Grant references that every guest's first two pages of rings are granted by (public/grant_table.h).
const GRANT_CONSOLE: u32 = 0;
const GRANT_XENSTORE: u32 = 1;
/// What a domain may own beyond its RAM, in KiB, for special pages and tables (libxl's constant).
const EXTRA_KIB: u64 = 1024;
/// Where a guest that does not read the start info's RSDP address finds a copy: just below 1 MiB.
const LEGACY_RSDP: u64 = 0x10_0000 - 64;
/// `XENFEAT_linux_rsdp_unrestricted` of public/features.h: the kernel takes the RSDP's address from the start info.
const FEATURE_RSDP_UNRESTRICTED: u32 = 15;

/// Where things go in the guest's memory.
struct Placement {
    ram: Vec<GpaRange>,
    kernel: GpaRange,
    entry: u32,
    ramdisk: Option<GpaRange>,
    start_info: GpaRange,
    start_info_bytes: Vec<u8>,
    acpi: Option<(GpaRange, acpi::Tables)>,
    map: Vec<MapEntry>,
}

/// Plans the building of a guest.
///
/// `ramdisk` is the length of the initial RAM disk in bytes, 0 for none.
///
/// # Errors
/// The guest has too little memory for kernel and RAM disk, the kernel has no PVH entry, or numbers are out of range.
pub fn plan(spec: &GuestSpec, kernel: &Kernel<'_>, ramdisk: u64, host: &HostFacts) -> Result<BuildPlan, PlanError> {
    check(spec)?;
    let ram = layout::ram(spec.max_memory_kib);
    let low_mib = ram.first().map_or(0, |low| low.end() >> 20);
    let placement = place(spec, kernel, ramdisk, ram).map_err(|error| PlanError::Placement { error, low_mib })?;
    let mut steps = create(spec, host);
    populate(spec, &placement, &mut steps);
    load(kernel, &placement, &mut steps);
    connect(spec, &placement, host, &mut steps);
    Ok(BuildPlan { name: spec.name.clone(), uuid: spec.uuid, steps })
}

fn check(spec: &GuestSpec) -> Result<(), PlanError> {
    let (online, most) = (spec.online_vcpus, spec.max_vcpus);
    if online == 0 || online > most || most > 128 {
        return Err(PlanError::Vcpus { online, most });
    }
    let (start_kib, most_kib) = (spec.memory_kib, spec.max_memory_kib);
    if start_kib == 0 || !start_kib.is_multiple_of(4) || !most_kib.is_multiple_of(4) || most_kib < start_kib {
        return Err(PlanError::Memory { start_kib, most_kib });
    }
    Ok(())
}

fn place(spec: &GuestSpec, kernel: &Kernel<'_>, ramdisk: u64, ram: Vec<GpaRange>) -> Result<Placement, ImageError> {
    let start = placement::place_kernel(&ram, kernel.span, kernel.relocation())?;
    let span = load::span_at(kernel, start)?;
    let entry = load::pvh_entry_at(kernel, start)?;
    let acpi = spec.acpi.then(|| {
        let tables = acpi::tables(ACPI_BASE, &processors(spec));
        let bytes = (tables.bytes.len() as u64).next_multiple_of(PAGE);
        (layout::range(ACPI_BASE, bytes), tables)
    });
    let map = layout::memory_map(&ram, acpi.as_ref().map(|(range, _)| *range));
    let table: Vec<_> =
        map.iter().map(|entry| MemoryMapEntry { range: entry.range, kind: entry.kind.number() }).collect();
    // The block's size depends on whether there is a module, not on where it is.
    let mut modules = vec![Module { range: GpaRange::EMPTY, command_line: b"" }];
    modules.truncate(usize::from(ramdisk != 0));
    let info = StartInfo {
        version: Version::V1,
        flags: 0,
        command_line: spec.command_line.as_deref().unwrap_or_default().as_bytes(),
        modules: &modules,
        memory_map: &table,
        rsdp: acpi.as_ref().map_or(0, |(_, tables)| tables.rsdp),
    };
    let request = placement::Request { kernel: span, initrd_size: ramdisk, metadata_size: info.size()? };
    let places = placement::place(&ram, &request)?;
    let placed: Vec<_> = places.initrd.map(|range| Module { range, command_line: b"" }).into_iter().collect();
    let start_info_bytes = StartInfo { modules: &placed, ..info }.build(places.metadata.start())?;
    Ok(Placement {
        ram,
        kernel: span,
        entry,
        ramdisk: places.initrd,
        start_info: places.metadata,
        start_info_bytes,
        acpi,
        map,
    })
}

/// The guest's vCPUs as ACPI shows them. A vCPU's APIC id is twice its number: the hypervisor fixes that.
fn processors(spec: &GuestSpec) -> Vec<Processor> {
    let count = u8::try_from(spec.max_vcpus).unwrap_or(128).min(128);
    (0..count).map(|uid| Processor { uid, apic_id: uid * 2, enabled: u32::from(uid) < spec.online_vcpus }).collect()
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
        Step::Store { what: "skeleton", clear: nodes::roots(), nodes: nodes::skeleton(spec) },
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
        Step::MaxMemory(spec.max_memory_kib + EXTRA_KIB),
        Step::OpenChannel { channel: Channel::Xenstore, remote: host.xenstore_domid },
        Step::OpenChannel { channel: Channel::Console, remote: host.console_domid },
        Step::SetParam { param: HvmParam::TimerMode, value: ParamValue::Number(spec.timer_mode) },
        Step::TscMode(spec.tsc_mode),
        Step::PagingPool(spec.paging_pool() * 1024),
        Step::CpuPolicy { invariant_tsc: spec.never_migrates || spec.tsc_mode == 1, masks: spec.cpuid_masks.clone() },
    ]);
    steps
}

/// Memory under the guest's address space, and the map of it.
fn populate(spec: &GuestSpec, placement: &Placement, steps: &mut Vec<Step>) {
    if spec.claim {
        steps.push(Step::Claim(placement.ram.iter().map(|range| layout::pages(*range)).sum()));
    }
    for &range in &placement.ram {
        let what = if range.start() < HIGH_BASE { "RAM" } else { "RAM above 4 GiB" };
        steps.push(Step::Populate { what, range, large: true });
    }
    if spec.claim {
        steps.push(Step::Claim(0));
    }
    let special = layout::special_pages();
    steps.push(Step::Populate { what: "special pages", range: special, large: false });
    steps.push(Step::Clear { what: "special pages", range: special });
    if let Some((range, _)) = &placement.acpi {
        steps.push(Step::Populate { what: "ACPI tables", range: *range, large: false });
    }
    steps.push(Step::MemoryMap(placement.map.clone()));
}

/// What is in memory when the guest starts.
fn load(kernel: &Kernel<'_>, placement: &Placement, steps: &mut Vec<Step>) {
    steps.push(Step::Load { range: placement.kernel, source: Source::Kernel });
    if let Some(range) = placement.ramdisk {
        steps.push(Step::Load { range, source: Source::Ramdisk });
    }
    let made = |what, bytes: &[u8]| Source::Made { what, bytes: bytes.to_vec() };
    if let Some((range, tables)) = &placement.acpi {
        steps.push(Step::Load { range: *range, source: made("ACPI tables", &tables.bytes) });
        let copy = layout::range(LEGACY_RSDP, tables.rsdp_bytes.len() as u64);
        let is_ram = placement.ram.iter().any(|ram| ram.contains(copy));
        if searches_for_rsdp(kernel) && is_ram && !copy.overlaps(placement.kernel) {
            steps.push(Step::Load { range: copy, source: made("copy of the RSDP", &tables.rsdp_bytes) });
        }
    }
    let bytes = made("start info", &placement.start_info_bytes);
    steps.push(Step::Load { range: placement.start_info, source: bytes });
    let identity = layout::range(SpecialPage::IdentityPageTable.gfn() * PAGE, PAGE);
    steps.push(Step::Load { range: identity, source: Source::IdentityPageTable });
}

/// Whether the kernel is a Linux that searches for the RSDP instead of taking its address from the start info.
fn searches_for_rsdp(kernel: &Kernel<'_>) -> bool {
    let told = kernel.notes.supported_features.is_some_and(|features| features >> FEATURE_RSDP_UNRESTRICTED & 1 != 0);
    kernel.notes.guest_os == Some(b"linux") && !told
}

/// Parameters, registers, grants, scheduling, and xenstore.
fn connect(spec: &GuestSpec, placement: &Placement, host: &HostFacts, steps: &mut Vec<Step>) {
    let pages = [
        (HvmParam::StorePfn, SpecialPage::Xenstore),
        (HvmParam::BufioreqPfn, SpecialPage::BufferedIoreq),
        (HvmParam::IoreqPfn, SpecialPage::Ioreq),
        (HvmParam::ConsolePfn, SpecialPage::Console),
        (HvmParam::PagingRingPfn, SpecialPage::Paging),
        (HvmParam::MonitorRingPfn, SpecialPage::Access),
        (HvmParam::SharingRingPfn, SpecialPage::Sharing),
    ];
    for (param, page) in pages {
        steps.push(Step::SetParam { param, value: ParamValue::Number(page.gfn()) });
    }
    let identity = SpecialPage::IdentityPageTable.gfn() * PAGE;
    steps.extend([
        Step::SetParam { param: HvmParam::IdentPt, value: ParamValue::Number(identity) },
        Step::SetParam { param: HvmParam::ConsoleEvtchn, value: ParamValue::Port(Channel::Console) },
        Step::SetParam { param: HvmParam::StoreEvtchn, value: ParamValue::Port(Channel::Xenstore) },
        Step::Context { vcpus: spec.max_vcpus, entry: placement.entry, start_info: placement.start_info.start() },
        Step::SeedGrants(vec![
            (GRANT_CONSOLE, host.console_domid, SpecialPage::Console.gfn()),
            (GRANT_XENSTORE, host.xenstore_domid, SpecialPage::Xenstore.gfn()),
        ]),
    ]);
    if spec.weight.is_some() || spec.cap.is_some() {
        steps.push(Step::Scheduling { weight: spec.weight, cap: spec.cap });
    }
    steps.extend([
        Step::Store { what: "boot values", clear: Vec::new(), nodes: nodes::boot(spec) },
        Step::Introduce { gfn: SpecialPage::Xenstore.gfn() },
        Step::Store { what: "console", clear: Vec::new(), nodes: nodes::console(host) },
    ]);
}

#[cfg(test)]
#[path = "pvh_tests.rs"]
mod tests;

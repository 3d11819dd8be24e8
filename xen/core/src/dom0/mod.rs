//! Builds the control domain: memory, kernel, tables, first vCPU. After this it is a domain like any other.
//!
//! `memory` plans where its RAM is, `acpi` makes its tables, `load` writes kernel, initramfs and start info. Everything that
//! can be wrong with the kernel is found before the domain exists.

pub mod acpi;
pub mod load;
pub mod memory;

use crate::boot::acpi::Acpi;
use crate::boot::options::Options;
use crate::domain::{Domain, Role, Settings};
use crate::host::Host;
use crate::x86::msr::mtrr::Mtrr;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use machine::boot_info::{BootInfo, Module, Range, RangeKind};
use machine::boxed::{Boxed, OutOfMemory};
use machine::{DomId, Gfn, Maddr, Mfn, PAGE_SHIFT, frame, log, platform};
use public_abi::Errno;

/// Why the control domain could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// No kernel was loaded with the hypervisor.
    NoKernel,
    /// The kernel, or its placement, is no good.
    Image(image::ImageError),
    /// The memory plan failed.
    Plan(memory::PlanError),
    /// ACPI tables could not be built.
    Acpi(crate::boot::acpi::AcpiError),
    /// The hypervisor's own memory is out.
    OutOfMemory,
    /// A step failed with this error.
    Step(&'static str, Errno),
}

impl core::fmt::Display for BuildError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoKernel => write!(f, "no module was loaded: the first must be the control domain's kernel"),
            Self::Image(error) => write!(f, "the control domain's kernel: {error}"),
            Self::Plan(memory::PlanError::OutOfMemory) | Self::OutOfMemory => write!(f, "out of hypervisor memory"),
            Self::Plan(memory::PlanError::TooManyRanges) => {
                write!(f, "the memory map has over {} ranges", memory::MAX_ENTRIES)
            }
            Self::Acpi(error) => write!(f, "the control domain's ACPI tables: {error}"),
            Self::Step(step, errno) => write!(f, "{step}: {}", errno.description()),
        }
    }
}

impl From<image::ImageError> for BuildError {
    fn from(error: image::ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<OutOfMemory> for BuildError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// The vIO-APIC that the control domain sees, at the place that every PC has one.
pub const IO_APIC: acpi::VirtualIoApic = acpi::VirtualIoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 };

/// Pages that the control domain never gets, because they are emulated or hidden; first page and count: I/O interrupt
/// controller, HPET, and the local APIC with all of the window that turns writes into interrupts (APM volume 2, 16.2 and
/// 16.11; Xen denies the same).
const EMULATED: [(u64, u64); 3] = [(0xf_ec00, 1), (0xf_ed00, 1), (0xf_ee00, 256)];

/// Bytes below the top of the physical address space that processors use for messages among themselves (AMD Processor
/// Programming Reference, "Memory Address Space": 12 GiB).
const MESSAGE_BYTES: u64 = 12 << 30;

/// What this machine has besides [`EMULATED`]: its interrupt controllers, event timers, configuration space and IOMMUs where the
/// tables and the processor say that they are, and its processors' messages. First page and count.
fn hidden(native: &Acpi, local_apic: Maddr, address_bits: u32) -> impl Iterator<Item = (u64, u64)> {
    let page = |address: u64| (address >> PAGE_SHIFT, 1);
    let devices = &native.devices;
    let controllers = native.io_apics.iter().map(|controller| u64::from(controller.address));
    let single =
        controllers.chain(devices.local_apic).chain([local_apic.number()]).chain(devices.timers.iter().copied());
    let windows = devices.pci.iter().filter_map(|buses| buses.window());
    let pci = windows.map(|window| (window.start >> PAGE_SHIFT, window.length >> PAGE_SHIFT));
    let iommus = devices.iommus.units.iter().map(|unit| (unit.registers >> PAGE_SHIFT, unit.bytes >> PAGE_SHIFT));
    let top = 1u64.checked_shl(address_bits).unwrap_or(0);
    let messages = top.checked_sub(MESSAGE_BYTES).map(|start| (start >> PAGE_SHIFT, MESSAGE_BYTES >> PAGE_SHIFT));
    single.map(page).chain(pci).chain(iommus).chain(messages)
}

/// Tables that the control domain's memory map may have. It has no pool from a toolstack, and maps others' pages and device
/// memory besides its own; so it may have what Xen's toolstack gives a guest with all of the machine's RAM (256 pages for a
/// vCPU, 2 for a MiB), and some more for devices.
fn table_limit(vcpus: u32, machine_pages: u64) -> u64 {
    const FOR_DEVICES: u64 = 1024;
    let mebibytes = machine_pages >> (20 - PAGE_SHIFT);
    u64::from(vcpus).saturating_mul(256).saturating_add(mebibytes.saturating_mul(2)).saturating_add(FOR_DEVICES)
}

/// What [`reserve_memory`] decided and [`build`] carries out.
#[derive(Debug)]
pub struct Prepared {
    plan: memory::Plan,
    vcpus: u32,
}

/// Decides the control domain's memory, takes it out of what the hypervisor will use, and frees all the rest.
///
/// # Errors
/// [`BuildError`]; nothing has been freed then.
pub fn reserve_memory(
    info: &BootInfo,
    options: &Options<'_>,
    acpi: &Acpi,
    cpus: usize,
) -> Result<Prepared, BuildError> {
    let bytes = options.dom0_memory.choose(memory::available_bytes(info));
    let (least, most) = options.dom0_vcpus;
    let vcpus = u32::try_from(cpus).unwrap_or(1).clamp(least, most).clamp(1, 64);
    let mut plan = memory::plan(info, bytes, acpi::bytes_needed(acpi, vcpus)).map_err(BuildError::Plan)?;
    for region in &acpi.devices.iommus.regions {
        plan.keep_free(region.bytes()).map_err(BuildError::Plan)?;
    }
    for (first, end) in info.ranges.iter().filter(|range| range.kind == RangeKind::Ram).map(Range::pages) {
        release_rest(&plan, first, end);
    }
    Ok(Prepared { plan, vcpus })
}

/// Frees the pages of a range of RAM that the plan does not have. What the hypervisor uses itself is not freed: it is not
/// marked as reserved any more.
fn release_rest(plan: &memory::Plan, first: u64, end: u64) {
    let mut at = first;
    for part in &plan.ram {
        let (start, stop) = (part.start() >> PAGE_SHIFT, part.end() >> PAGE_SHIFT);
        if start < end && stop > at {
            frame::release(Mfn::new(at), start.saturating_sub(at));
            at = stop;
        }
    }
    frame::release(Mfn::new(at), end.saturating_sub(at));
}

/// Builds the control domain and makes it ready to run.
///
/// # Errors
/// [`BuildError`], with what is wrong.
pub fn build(host: &Host, info: &mut BootInfo, native: &Acpi, prepared: Prepared) -> Result<(), BuildError> {
    let mut modules = core::mem::take(&mut info.modules).into_iter();
    let kernel: Module = modules.next().ok_or(BuildError::NoKernel)?;
    let initrd: Option<Module> = modules.next();
    let settings = Settings {
        role: Role::Control,
        max_vcpus: prepared.vcpus,
        max_port: 0x1_ffff,
        max_grant_frames: 64,
        max_maptrack_frames: 1024,
        max_grant_version: 1,
        flags: 0b11,
        emulation: 0x221,
        identity_mapped: true,
    };
    let domain = empty_domain(host, settings)?;
    domain.p2m.set_table_limit(table_limit(prepared.vcpus, frame::total_pages()));
    map_memory(&domain, &prepared.plan)?;
    hide_devices(&domain, native)?;
    crate::iommu::reserve(&domain, native).map_err(|errno| BuildError::Step("mapping what its devices need", errno))?;
    deny_ports(&domain, host);
    // Mapped 1:1 it can never have more than these frames, whatever maximum was asked for.
    let pages = domain.accounting.pages();
    domain.accounting.max_pages.store(pages, Ordering::Release);
    let tables = prepared.plan.acpi.map(|range| acpi::build(native, prepared.vcpus, IO_APIC, range.start()));
    let tables = tables.transpose().map_err(BuildError::Acpi)?;
    let rsdp = tables.as_ref().map_or(0, |tables| tables.rsdp);
    if let Some(tables) = &tables {
        load::write(&domain, rsdp, &tables.bytes)?;
    }
    let entry = load::load(&domain, &prepared.plan, &kernel, initrd.as_ref(), rsdp)?;
    drop((kernel, initrd));
    domain.control.lock().memory_map = prepared.plan.map;
    crate::domain::create::allocate_vcpus(host, &domain)
        .map_err(|errno| BuildError::Step("allocating its vCPUs", errno))?;
    for vcpu in domain.vcpus() {
        vcpu.x86.stored.lock().mtrr = Mtrr::FIRMWARE;
    }
    crate::time::begin(host, &domain);
    start_first_vcpu(&domain, entry);
    log!(Info, "Dom0 has {} MiB in {pages} pages and {} vCPUs", pages >> (20 - PAGE_SHIFT), prepared.vcpus);
    crate::iommu::start(host);
    host.domains.insert(domain).map_err(|_| BuildError::OutOfMemory)?;
    if let Some(domain) = host.domains.get(DomId::CONTROL)
        && domain.lifecycle.unpause_by_toolstack()
    {
        crate::sched::resume_domain(host, &domain);
    }
    Ok(())
}

/// The domain, without memory. A domain is large, and decompressing a kernel needs much of the boot's stack: so it is in a box
/// before that, and what making it has taken of the stack is free again.
#[inline(never)]
fn empty_domain(host: &Host, settings: Settings) -> Result<Boxed<Domain>, OutOfMemory> {
    let mut domain = Boxed::try_new(Domain::try_new(DomId::CONTROL, settings)?)?;
    if let Some(iommu) = host.translation.iommu {
        domain.p2m.attach(iommu)?;
    }
    Ok(domain)
}

fn map_memory(domain: &Domain, plan: &memory::Plan) -> Result<(), BuildError> {
    for range in &plan.ram {
        let start = Maddr::new(range.start()).frame();
        let count = range.end().saturating_sub(range.start()) >> PAGE_SHIFT;
        let adopted = crate::memory::adopt(domain, start, count)
            .map_err(|errno| BuildError::Step("mapping its memory", errno))?;
        if adopted != count {
            log!(Warning, "{} pages of Dom0's memory from {start:?} on are not free", count.saturating_sub(adopted));
        }
    }
    Ok(())
}

/// All that the hypervisor keeps of the machine's device memory: first page and count.
fn kept(native: &Acpi) -> impl Iterator<Item = (u64, u64)> {
    let address_bits = platform::cpuid(0x8000_0008, 0)[0] & 0xff;
    EMULATED.into_iter().chain(hidden(native, platform::local_apic(), address_bits))
}

/// Addresses that no device of the control domain's may be put over: RAM, and what the hypervisor keeps for itself.
///
/// # Errors
/// [`OutOfMemory`].
pub fn blocked(info: &BootInfo, native: &Acpi) -> Result<Vec<core::ops::Range<u64>>, OutOfMemory> {
    let ram = info.ranges.iter().filter(|range| range.kind == RangeKind::Ram);
    let ram = ram.map(|range| range.start.number()..range.end());
    let kept = kept(native).map(|(first, count)| {
        let start = first << PAGE_SHIFT;
        start..start.saturating_add(count << PAGE_SHIFT)
    });
    let mut all = Vec::new();
    for range in ram.chain(kept) {
        all.try_reserve(1).map_err(|_| OutOfMemory)?;
        all.push(range);
    }
    Ok(all)
}

fn hide_devices(domain: &Domain, native: &Acpi) -> Result<(), BuildError> {
    for (start, count) in kept(native) {
        match crate::memory::mark_emulated(domain, Gfn::new(start), count) {
            Ok(()) => {}
            // Tables that say so are wrong.
            Err(Errno::EBUSY | Errno::EINVAL) => {
                log!(Warning, "Firmware says that a device has {count} pages from {start:#x} on, which cannot be")
            }
            Err(errno) => return Err(BuildError::Step("keeping device memory from it", errno)),
        }
    }
    Ok(())
}

/// The ports that Xen keeps from its control domain and that only the firmware's tables tell.
fn deny_ports(domain: &Domain, host: &Host) {
    if let Some(first) = host.platform.power.timer_port()
        && !domain.x86.ports.deny((first, first.saturating_add(3)))
    {
        log!(Warning, "the ACPI timer's ports stay Dom0's: too many ranges are denied");
    }
}

/// Sets the first vCPU to the PVH entry state: 32-bit protected mode, flat segments, no paging, interrupts off, RBX at the
/// start info (Xen docs/misc/pvh.pandoc).
fn start_first_vcpu(domain: &Domain, entry: load::Entry) {
    use machine::codec::registers::{Register, cr0, rflags};
    use machine::codec::vmcb::Segment;
    let Some(vcpu) = domain.vcpu(0) else { return };
    let Some(mut hardware) = vcpu.hardware.try_lock() else { return };
    hardware.reset();
    hardware.set_register(Register::Rbx, entry.start_info);
    let state = hardware.guest_mut();
    let data = Segment { selector: 0, attributes: 0xc93, limit: u32::MAX, base: 0 };
    state.cs = Segment { selector: 0, attributes: 0xc9b, limit: u32::MAX, base: 0 };
    (state.ds, state.es, state.ss) = (data, data, data);
    state.tr = Segment { selector: 0, attributes: 0x8b, limit: 0x67, base: 0 };
    state.cr0 = cr0::PE | cr0::ET;
    state.rflags = rflags::RESERVED_1;
    state.rip = entry.instruction;
    drop(hardware);
    vcpu.is_initialised.store(true, Ordering::Release);
    vcpu.clear_wait(crate::vcpu::Wait::DOWN);
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

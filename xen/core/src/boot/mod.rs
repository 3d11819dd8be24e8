//! From the machine's hand-over to the first vCPU: options, firmware tables, memory, processors, the control domain.

pub mod acpi;
pub mod acpi_devices;
pub mod options;

use crate::dom0;
use crate::host::{Cpu, DomainTable, Host};
use crate::interrupt::Interrupts;
use crate::iommu::Translation;
use crate::power::Power;
use crate::sched::CpuQueue;
use crate::timer::CpuTimers;
use crate::vcpu::run::cpu_loop;
use acpi::Acpi;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use machine::boot_info::{BootInfo, CommandLine, RootPointer};
use machine::boxed::{Boxed, OutOfMemory};
use machine::console::{self, Level};
use machine::lock::Lock;
use machine::{CpuId, PAGE_SHIFT, cpu, frame, log, platform};
use options::{AfterCrash, Options};

/// What the firmware and the command line said, for everybody to read.
#[derive(Debug)]
pub struct Platform {
    /// The hypervisor's command line as the loader gave it.
    pub command_line: CommandLine,
    /// The revision of the sources, "unavailable" if the build was not told.
    pub changeset: &'static str,
    /// The firmware's tables.
    pub acpi: Acpi,
    /// The time stamp at which the hypervisor started: system time 0.
    pub start_timestamp: u64,
    /// Pages of RAM when the hypervisor started.
    pub total_pages: u64,
    /// How the machine is powered off.
    pub power: Power,
    /// What follows the control domain's crash.
    pub after_crash: AfterCrash,
}

/// Goes on where the machine's boot ends. `changeset`: the sources' revision.
pub fn start(info: &mut BootInfo, changeset: &'static str) -> ! {
    match bring_up(info, changeset) {
        Ok(host) => cpu_loop(host, CpuId(0)),
        Err(error) => give_up(&error),
    }
}

/// Everything up to the moment when this CPU, too, begins to run vCPUs.
///
/// # Errors
/// [`dom0::BuildError`]: what is wrong with the control domain that was asked for.
pub fn bring_up(info: &mut BootInfo, changeset: &'static str) -> Result<&'static Host, dom0::BuildError> {
    let start_timestamp = cpu::timestamp();
    let command_line = info.command_line.clone();
    let options = Options::parse(&command_line);
    console::set_threshold(options.level.max(Level::Info));
    if options.after_crash == AfterCrash::Halt {
        platform::set_no_reboot();
    }
    banner(info, &options, changeset);
    let (acpi, power) = read_acpi(info);
    set_up_interrupts(&acpi);
    if !crate::time::has_invariant_timestamp() {
        log!(
            Warning,
            "the processor does not promise an invariant time stamp counter: time may drift when its speed changes"
        );
    }
    let ids = other_cpus(&acpi, options.max_cpus);
    let prepared = dom0::reserve_memory(info, &options, &acpi, ids.len().saturating_add(1))?;
    let mib = |pages: u64| pages >> (20 - PAGE_SHIFT);
    log!(Info, "Memory: {} MiB in all, {} MiB free", mib(frame::total_pages()), mib(frame::free_pages()));
    let platform = Platform {
        command_line: command_line.clone(),
        changeset,
        acpi,
        start_timestamp,
        total_pages: frame::total_pages(),
        power,
        after_crash: options.after_crash,
    };
    // The host has only CPUs that run: those that came up wait for it.
    let started = platform::start_other_cpus(ids.into_iter(), secondary);
    log!(Info, "Brought up {} CPUs", started.len().saturating_add(1));
    let blocked = dom0::blocked(info, &platform.acpi)?;
    let iommu = crate::iommu::set_up(&platform.acpi, options.iommu)?;
    let host = create_host(platform, &options, &started, blocked, Translation::new(iommu))?;
    log!(Info, "PCI: {} functions", host.pci.scan(&host.interrupts)?);
    platform::set_host(host);
    dom0::build(host, info, &host.platform.acpi, prepared)?;
    log!(Info, "Xen is relinquishing the console to Dom0");
    console::set_threshold(options.level);
    Ok(host)
}

/// Where the other processors begin.
fn secondary(me: CpuId) -> ! {
    loop {
        if let Some(host) = platform::host().and_then(|host| host.downcast_ref::<Host>()) {
            cpu_loop(host, me)
        }
        cpu::relax();
    }
}

fn give_up(error: &dom0::BuildError) -> ! {
    log!(Error, "Oxen cannot go on: {error}");
    cpu::stop()
}

fn banner(info: &BootInfo, options: &Options<'_>, changeset: &str) {
    log!(Info, "Xen version 4.17.7-oxen (Oxen {}) ({})", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_LICENSE"));
    log!(Info, "Latest ChangeSet: {changeset}");
    log!(Info, "build-id: {}", Hex(platform::build_id()));
    log!(Info, "Bootloader: {}", if info.loader.is_empty() { "unknown" } else { info.loader.as_str() });
    log!(Info, "Command line: {}", info.command_line);
    for complaint in &info.complaints {
        log!(Warning, "boot loader: {complaint}");
    }
    for option in &options.unknown {
        log!(Warning, "unknown option '{option}' is ignored");
    }
    for option in &options.invalid {
        log!(Warning, "option '{option}' makes no sense and is ignored");
    }
    log!(Info, "Physical memory as the firmware gives it:");
    for range in &info.ranges {
        log!(Info, " [{:016x}, {:016x}) {:?}", range.start.number(), range.end(), range.kind);
    }
    let image = info.image;
    log!(
        Info,
        "Oxen itself is at [{:x}, {:x}); modules and tables from {:x}",
        image.start.number(),
        image.end(),
        info.floor.number()
    );
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

fn read_acpi(info: &BootInfo) -> (Acpi, Power) {
    let read = |address: u64, out: &mut [u8]| platform::read_firmware(machine::Maddr::new(address), out);
    let leave_out = |error| log!(Warning, "{error}: left out");
    let root = match info.root {
        Some(RootPointer::Copy(root)) => Ok(root),
        Some(RootPointer::At(place)) => acpi::read_root(&read, place.number()),
        None => acpi::find_root(&read).ok_or(acpi::AcpiError::NoRoot).and_then(|place| acpi::read_root(&read, place)),
    };
    let found = root.and_then(|root| acpi::read_tables(&read, &root, leave_out));
    let acpi = match found {
        Ok(acpi) => acpi,
        Err(error) => {
            log!(Warning, "{error}: one CPU, no ACPI for Dom0, and no powering off");
            Acpi::default()
        }
    };
    for table in &acpi.tables {
        let name = core::str::from_utf8(&table.signature).unwrap_or("????");
        log!(Info, "ACPI: {name} {:08x} {:#x} bytes", table.address, table.length);
    }
    let power = Power::read(&read, &acpi, leave_out);
    (acpi, power)
}

/// The global interrupt of the console, and its MADT flags.
fn console_interrupt(acpi: &Acpi) -> Option<(u32, u16)> {
    Some(acpi.isa_interrupt(if matches!(platform::console_port()?, 0x3f8 | 0x3e8) { 4 } else { 3 }))
}

/// Masks all device interrupts but the console's.
fn set_up_interrupts(acpi: &Acpi) {
    for controller in &acpi.io_apics {
        platform::mask_interrupts(machine::Maddr::new(u64::from(controller.address)));
    }
    let Some((gsi, flags)) = console_interrupt(acpi) else { return };
    let served = acpi.io_apics.iter().filter(|controller| controller.first_gsi <= gsi);
    let Some(controller) = served.max_by_key(|controller| controller.first_gsi) else { return };
    let Ok(number) = u8::try_from(gsi.saturating_sub(controller.first_gsi)) else { return };
    // ISA interrupts are edge triggered and active high unless the override says otherwise (MADT flags: 3 is the other).
    let pin = platform::Pin { number, level: flags >> 2 & 3 == 3, active_low: flags & 3 == 3 };
    platform::route_console(machine::Maddr::new(u64::from(controller.address)), pin);
}

/// APIC ids of the processors to start.
fn other_cpus(acpi: &Acpi, max_cpus: usize) -> platform::ApicIds {
    let own = platform::apic_id();
    let others = acpi.apic_ids.iter().copied().filter(|id| *id != own);
    others.take(max_cpus.min(platform::MAX_CPUS).saturating_sub(1)).collect()
}

fn create_host(
    platform: Platform,
    options: &Options<'_>,
    others: &[u32],
    blocked: Vec<core::ops::Range<u64>>,
    translation: Translation,
) -> Result<&'static Host, OutOfMemory> {
    let mut cpus = Vec::new();
    cpus.try_reserve_exact(others.len().saturating_add(1)).map_err(|_| OutOfMemory)?;
    cpus.extend(core::iter::once(platform::apic_id()).chain(others.iter().copied()).map(|apic_id| Cpu {
        apic_id,
        queue: Lock::new(CpuQueue::new()),
        idle_time: AtomicU64::new(0),
        switch: AtomicBool::new(false),
        timers: Lock::new(CpuTimers::new()),
    }));
    let console = console_interrupt(&platform.acpi).map(|(gsi, _)| gsi);
    let apic_ids = cpus.iter().map(|cpu: &Cpu| cpu.apic_id);
    let interrupts = Interrupts::try_new(&platform.acpi, console, apic_ids)?;
    let mut buses = Vec::new();
    buses.try_reserve_exact(platform.acpi.devices.pci.len()).map_err(|_| OutOfMemory)?;
    buses.extend_from_slice(&platform.acpi.devices.pci);
    let host = Host {
        interrupts,
        pci: crate::pci::Pci::new(buses, blocked),
        translation,
        domains: DomainTable::try_new()?,
        cpus,
        idle: AtomicU64::new(0),
        rate_limit: AtomicU32::new(options.rate_limit),
        clock: crate::time::Clock::start(),
        virq_handlers: crate::event::VirqHandlers::new(),
        platform,
        console: crate::domain::console::Console::new(),
    };
    Ok(Boxed::try_new(host)?.leak())
}

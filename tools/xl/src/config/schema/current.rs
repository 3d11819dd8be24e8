//! The keys that work now: tier T1 of xen-abi.md §1.8.

use super::super::cpuid;
use super::super::disk::Disk;
use super::super::domain::{Action, TimerMode, TscMode};
use super::super::p9::P9;
use super::super::vif::Vif;
use super::{Key, Tier, Use, read};

const fn row(name: &'static str, usage: Use, purpose: &'static str) -> Key {
    Key { name, tier: Tier::T1, usage, purpose }
}

/// Most vCPUs of a PVH guest: `HVM_MAX_VCPUS` of public/hvm/hvm_info_table.h.
const MOST_VCPUS: i64 = 128;

/// Most memory in MiB that still counts in KiB without overflow and in 4 KiB frames in 52 bits of address: 4 PiB.
const MOST_MIB: i64 = 1 << 32;

const MOST_U32: i64 = i32::MAX as i64;

/// Narrows a number that its row's bounds keep within `u32`.
fn narrow(number: i64) -> Option<u32> {
    u32::try_from(number).ok()
}

fn mib(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

fn action(text: &str) -> Result<Action, String> {
    read::choice(text, &Action::NAMES)
}

/// For flags of which only one position is possible.
fn only(wanted: bool, given: bool, why: &str) -> Result<(), String> {
    if given == wanted { Ok(()) } else { Err(why.into()) }
}

/// The rows. Where a value goes is in libxc's plan: createdomain, max_vcpus, max_mem, memory map, or the monitor.
pub(super) const KEYS: &[Key] = &[
    row("name", Use::Text(|c, v| read::name(v).map(|name| c.name = name)), "the domain's name"),
    row("type", Use::Text(|c, v| read::guest_type(v).map(|kind| c.guest_type = Some(kind))), "the kind of guest"),
    row("builder", Use::Text(|_, v| read::builder(v)), "the old name of type="),
    row("uuid", Use::Text(|c, v| read::uuid(v).map(|uuid| c.uuid = Some(uuid))), "the domain's UUID"),
    row("vcpus", Use::Number(1, MOST_VCPUS, |c, v| c.vcpus = narrow(v)), "vCPUs at start"),
    row("maxvcpus", Use::Number(1, MOST_VCPUS, |c, v| c.max_vcpus = narrow(v)), "most vCPUs it can have"),
    row("memory", Use::Number(1, MOST_MIB, |c, v| c.memory_mib = mib(v)), "memory at start in MiB"),
    row("maxmem", Use::Number(1, MOST_MIB, |c, v| c.max_memory_mib = mib(v)), "most memory it can have in MiB"),
    row(
        "shadow_memory",
        Use::Number(0, MOST_MIB, |c, v| c.shadow_memory_mib = mib(v)),
        "memory for page tables in MiB",
    ),
    row(
        "kernel",
        Use::Text(|c, v| {
            c.kernel = Some(v.into());
            Ok(())
        }),
        "file with the kernel",
    ),
    row(
        "ramdisk",
        Use::Text(|c, v| {
            c.ramdisk = Some(v.into());
            Ok(())
        }),
        "file with the initial RAM disk",
    ),
    row(
        "cmdline",
        Use::Text(|c, v| {
            c.cmdline = Some(v.into());
            Ok(())
        }),
        "the kernel's command line",
    ),
    row(
        "root",
        Use::Text(|c, v| {
            c.root = Some(v.into());
            Ok(())
        }),
        "root= on the kernel's command line",
    ),
    row(
        "extra",
        Use::Text(|c, v| {
            c.extra = Some(v.into());
            Ok(())
        }),
        "more for the kernel's command line",
    ),
    row("on_poweroff", Use::Text(|c, v| action(v).map(|a| c.actions.poweroff = a)), "what to do after a power-off"),
    row("on_reboot", Use::Text(|c, v| action(v).map(|a| c.actions.reboot = a)), "what to do after a reboot"),
    row(
        "on_watchdog",
        Use::Text(|c, v| action(v).map(|a| c.actions.watchdog = a)),
        "what to do when the watchdog runs out",
    ),
    row("on_crash", Use::Text(|c, v| action(v).map(|a| c.actions.crash = a)), "what to do after a crash"),
    row(
        "on_soft_reset",
        Use::Text(|c, v| action(v).map(|a| c.actions.soft_reset = a)),
        "what to do after a soft reset",
    ),
    row("cpus", Use::Own(|c, v| read::affinity(v).map(|a| c.cpus = Some(a))), "CPUs it may run on"),
    row("cpus_soft", Use::Own(|c, v| read::affinity(v).map(|a| c.cpus_soft = Some(a))), "CPUs it prefers"),
    row(
        "pool",
        Use::Text(|c, v| {
            c.pool = Some(v.into());
            Ok(())
        }),
        "the CPU pool",
    ),
    row("cpu_weight", Use::Number(1, 65535, |c, v| c.scheduling.weight = narrow(v)), "share of busy CPUs"),
    row("cap", Use::Number(0, 65535, |c, v| c.scheduling.cap = narrow(v)), "most CPU time in percent of a CPU"),
    row("disk", Use::EachText(|c, v| Disk::parse(v).map(|disk| c.disks.push(disk))), "block devices"),
    row("vif", Use::EachText(|c, v| Vif::parse(v).map(|vif| c.vifs.push(vif))), "network interfaces"),
    row("p9", Use::EachText(|c, v| P9::parse(v).map(|p9| c.p9s.push(p9))), "9pfs shares"),
    row("max_grant_frames", Use::Number(0, MOST_U32, |c, v| c.max_grant_frames = narrow(v)), "grant table frames"),
    row("max_maptrack_frames", Use::Number(0, MOST_U32, |c, v| c.max_maptrack_frames = narrow(v)), "maptrack frames"),
    row("max_grant_version", Use::Number(0, 2, |c, v| c.max_grant_version = narrow(v)), "grant table version"),
    row("max_event_channels", Use::Number(0, MOST_U32, |c, v| c.max_event_channels = narrow(v)), "event channels"),
    row(
        "nomigrate",
        Use::Flag(|c, v| {
            c.no_migrate = Some(v);
            Ok(())
        }),
        "keep it on this host",
    ),
    row(
        "driver_domain",
        Use::Flag(|c, v| {
            c.driver_domain = Some(v);
            Ok(())
        }),
        "it serves devices to others",
    ),
    row(
        "hap",
        Use::Flag(|c, v| {
            c.hap = Some(v);
            only(true, v, "guests always use nested paging; remove the line or write hap=1")
        }),
        "nested paging",
    ),
    row(
        "oos",
        Use::Flag(|c, v| {
            c.oos = Some(v);
            Ok(())
        }),
        "out-of-sync shadow pages",
    ),
    row(
        "tsc_mode",
        Use::Own(|c, v| read::mode(v, &TscMode::NAMES).map(|mode| c.tsc_mode = mode)),
        "time-stamp counter",
    ),
    row(
        "timer_mode",
        Use::Own(|c, v| read::mode(v, &TimerMode::NAMES).map(|mode| c.timer_mode = Some(mode))),
        "missed timer ticks",
    ),
    row("cpuid", Use::Own(|c, v| cpuid::parse(v).map(|masks| c.cpuid = masks)), "CPU features the guest sees"),
    row(
        "bootloader",
        Use::Refused("boot loaders are not run yet; give kernel= and ramdisk= as files"),
        "pygrub and others",
    ),
    row("bootloader_args", Use::NoEffect("boot loaders are not run yet"), "the boot loader's arguments"),
    row(
        "seclabel",
        Use::Text(|c, v| {
            c.seclabel = Some(v.into());
            Ok(())
        }),
        "security label",
    ),
    row("init_seclabel", Use::NoEffect("the hypervisor has no security labels"), "security label while building"),
    row(
        "acpi",
        Use::Flag(|c, v| {
            c.acpi = Some(v);
            Ok(())
        }),
        "ACPI tables",
    ),
    row(
        "apic",
        Use::Flag(|c, v| {
            c.apic = Some(v);
            only(true, v, "a PVH guest always has local APICs; remove the line or write apic=1")
        }),
        "local APICs",
    ),
    row(
        "nestedhvm",
        Use::Flag(|c, v| {
            c.nested_hvm = Some(v);
            only(false, v, "nested virtualization is not supported yet (planned for later)")
        }),
        "virtualization inside the guest",
    ),
    row("passthrough", Use::Own(passthrough), "IOMMU mappings"),
    row("xend_suspend_evtchn_compat", Use::Refused("the layout of xend's time is not offered"), "old xenstore layout"),
];

fn passthrough(_: &mut super::DomainConfig, value: &super::Value) -> Result<(), String> {
    match value.text() {
        Some("default" | "disabled") => Ok(()),
        _ => {
            Err("devices cannot be passed through yet; only \"disabled\" is possible (planned with PCI passthrough)"
                .into())
        }
    }
}

//! The typed configuration of a domain: what a file of settings means once all of it has been checked.
//!
//! A field that Xen tells apart from its default (it prints only what was given) is an `Option`; everything else has
//! Xen's default already. Filled by the schema; read by `create`, by the JSON printer, and turned into libxc's
//! `GuestSpec`.

use super::cpus::CpuSet;
use super::disk::Disk;
use super::p9::P9;
use super::vif::Vif;
use libxc::plan::cpuid_mask::LeafMask;

/// The kinds of guest that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestType {
    /// Nested paging, no firmware and no device model; the kernel is entered directly.
    Pvh,
    /// Nested paging with firmware and a device model; known, but not built by this toolstack yet.
    Hvm,
}

/// What to do with a domain that has stopped (`on_poweroff` and its siblings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Destroy it.
    Destroy,
    /// Destroy it and create it again.
    Restart,
    /// Keep it under another name and create it again.
    RenameRestart,
    /// Keep it as it is.
    Preserve,
    /// Write its memory to a file, then destroy it.
    CoredumpDestroy,
    /// Write its memory to a file, then restart it.
    CoredumpRestart,
    /// Reset its Xen interfaces and let it go on.
    SoftReset,
}

impl Action {
    /// Every action with its name in the configuration language.
    pub const NAMES: [(Action, &'static str); 7] = [
        (Action::Destroy, "destroy"),
        (Action::Restart, "restart"),
        (Action::RenameRestart, "rename-restart"),
        (Action::Preserve, "preserve"),
        (Action::CoredumpDestroy, "coredump-destroy"),
        (Action::CoredumpRestart, "coredump-restart"),
        (Action::SoftReset, "soft-reset"),
    ];

    /// Its name in the configuration language.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(action, _)| *action == self).map_or("", |(_, name)| name)
    }
}

/// What to do for each way in which a domain can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    /// The guest powered off.
    pub poweroff: Action,
    /// The guest asked to be restarted.
    pub reboot: Action,
    /// The guest's watchdog ran out.
    pub watchdog: Action,
    /// The guest crashed.
    pub crash: Action,
    /// The guest asked for a soft reset (kexec).
    pub soft_reset: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Actions {
            poweroff: Action::Destroy,
            reboot: Action::Restart,
            watchdog: Action::Destroy,
            crash: Action::Destroy,
            soft_reset: Action::SoftReset,
        }
    }
}

/// How the guest sees the time-stamp counter; the numbers are libxl's and the hypervisor's (`XEN_DOMCTL_TSC_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TscMode {
    /// Native where it is safe, emulated otherwise.
    #[default]
    Default = 0,
    /// Always emulated.
    AlwaysEmulate = 1,
    /// Never emulated.
    Native = 2,
}

impl TscMode {
    /// Every mode with its name in the configuration language.
    pub const NAMES: [(TscMode, &'static str); 3] =
        [(TscMode::Default, "default"), (TscMode::AlwaysEmulate, "always_emulate"), (TscMode::Native, "native")];
}

/// How missed ticks of emulated timers are made up for; the numbers are those of `HVM_PARAM_TIMER_MODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Ticks are delayed.
    DelayForMissedTicks = 0,
    /// Ticks come in time, missed ones afterwards. The default for PVH guests.
    NoDelayForMissedTicks = 1,
    /// Missed ticks are lost.
    NoMissedTicksPending = 2,
    /// At most one missed tick is kept.
    OneMissedTickPending = 3,
}

impl TimerMode {
    /// Every mode with its name in the configuration language.
    pub const NAMES: [(TimerMode, &'static str); 4] = [
        (TimerMode::DelayForMissedTicks, "delay_for_missed_ticks"),
        (TimerMode::NoDelayForMissedTicks, "no_delay_for_missed_ticks"),
        (TimerMode::NoMissedTicksPending, "no_missed_ticks_pending"),
        (TimerMode::OneMissedTickPending, "one_missed_tick_pending"),
    ];
}

/// Scheduling parameters; what is not given stays at the hypervisor's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Share of contended CPUs, 1 to 65535, relative to other domains.
    pub weight: Option<u32>,
    /// Upper limit in percent of one CPU; 0 is none.
    pub cap: Option<u32>,
}

/// One kind of affinity for all vCPUs of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// The same CPUs for every vCPU.
    All(CpuSet),
    /// One set per vCPU, from vCPU 0 on; vCPUs beyond the list may run anywhere.
    PerVcpu(Vec<CpuSet>),
}

/// A checked domain configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DomainConfig {
    /// The domain's name; unique on a host.
    pub name: String,
    /// The kind of guest; `None`: to be read from the kernel.
    pub guest_type: Option<GuestType>,
    /// The UUID; `None`: a fresh one.
    pub uuid: Option<[u8; 16]>,
    /// vCPUs online at start.
    pub vcpus: Option<u32>,
    /// vCPUs the domain can ever have.
    pub max_vcpus: Option<u32>,
    /// Memory at start in MiB.
    pub memory_mib: Option<u64>,
    /// Memory the domain can ever have, in MiB.
    pub max_memory_mib: Option<u64>,
    /// Memory for page tables in MiB; `None`: computed.
    pub shadow_memory_mib: Option<u64>,
    /// File with the kernel.
    pub kernel: Option<String>,
    /// File with the initial RAM disk.
    pub ramdisk: Option<String>,
    /// `cmdline=`.
    pub cmdline: Option<String>,
    /// `root=`, used without `cmdline`.
    pub root: Option<String>,
    /// `extra=`, used without `cmdline`.
    pub extra: Option<String>,
    /// What to do when it stops.
    pub actions: Actions,
    /// CPUs the vCPUs may run on.
    pub cpus: Option<Affinity>,
    /// CPUs the vCPUs prefer to run on.
    pub cpus_soft: Option<Affinity>,
    /// The CPU pool's name; `None`: the pool of the control domain.
    pub pool: Option<String>,
    /// Weight and cap.
    pub scheduling: Scheduling,
    /// Whether its memory is set aside before it is built (xl.conf's claim_mode).
    pub claim: bool,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub vifs: Vec<Vif>,
    /// 9pfs shares.
    pub p9s: Vec<P9>,
    /// Frames of grants it may give; `None`: the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Frames of grants it may map; `None`: the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Highest grant table version; `None`: what the hypervisor has.
    pub max_grant_version: Option<u32>,
    /// Highest event channel; `None`: 1023.
    pub max_event_channels: Option<u32>,
    /// Whether it must stay on this host.
    pub no_migrate: Option<bool>,
    /// Whether it serves devices to other domains.
    pub driver_domain: Option<bool>,
    /// Nested paging: it is all there is, so only `true` is accepted.
    pub hap: Option<bool>,
    /// Out-of-sync shadow pages; means nothing with nested paging, but is told to the hypervisor.
    pub oos: Option<bool>,
    /// Time-stamp counter mode.
    pub tsc_mode: TscMode,
    /// What it changes of the CPUID policy.
    pub cpuid: Vec<LeafMask>,
    /// Timer mode.
    pub timer_mode: Option<TimerMode>,
    /// Whether the guest gets ACPI tables.
    pub acpi: Option<bool>,
    /// Whether the guest gets a local APIC: always, so only `true` is accepted.
    pub apic: Option<bool>,
    /// Nested virtualization; only `false` is accepted.
    pub nested_hvm: Option<bool>,
    /// Security label, ignored without a security module that has labels.
    pub seclabel: Option<String>,
}

impl DomainConfig {
    /// vCPUs online at start.
    pub fn online_vcpus(&self) -> u32 {
        self.vcpus.unwrap_or(1)
    }

    /// vCPUs the domain can ever have.
    pub fn most_vcpus(&self) -> u32 {
        self.max_vcpus.unwrap_or_else(|| self.online_vcpus())
    }

    /// Memory the domain can ever have, in KiB; Xen's default without any setting is 32 MiB.
    pub fn max_memory_kib(&self) -> u64 {
        self.max_memory_mib.or(self.memory_mib).unwrap_or(32) << 10
    }

    /// Memory at start in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.memory_mib.map_or_else(|| self.max_memory_kib(), |mib| mib << 10)
    }

    /// The kernel's command line: `cmdline`, or else `root` and `extra` put together as xl does.
    pub fn command_line(&self) -> Option<String> {
        match (&self.cmdline, &self.root, &self.extra) {
            (Some(cmdline), _, _) => Some(cmdline.clone()),
            (None, Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
            (None, Some(root), None) => Some(format!("root={root}")),
            (None, None, extra) => extra.clone(),
        }
    }
}

//! The hypervisor's command line, in Xen's words (docs/misc/xen-command-line of Xen): `name`, `name=value`, `no-name`.
//!
//! What is not known is reported once there is a console and otherwise ignored, so that the command line of an existing Xen
//! installation boots. Serial port settings are read by `machine` itself, before this.

use crate::sched::{DEFAULT_RATE_LIMIT, is_rate_limit};
use machine::console::Level;

/// Options not understood, kept for a message; more than these are only counted.
const MAX_COMPLAINTS: usize = 16;

/// How much memory the control domain gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dom0Memory {
    /// Bytes wanted.
    pub size: Option<u64>,
    /// At least so many bytes.
    pub min: Option<u64>,
    /// At most so many bytes.
    pub max: Option<u64>,
}

/// What the machine does when the hypervisor or the control domain has crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterCrash {
    /// It starts again.
    Restart,
    /// It halts, so that the last messages can be read.
    Halt,
}

impl AfterCrash {
    const fn no_reboot(wanted: bool) -> Self {
        if wanted { Self::Halt } else { Self::Restart }
    }
}

/// The options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options<'a> {
    /// `dom0_mem=`
    pub dom0_memory: Dom0Memory,
    /// `dom0_max_vcpus=`: at least and at most.
    pub dom0_vcpus: (u32, u32),
    /// `loglvl=`: the hypervisor's own lines up to this level.
    pub level: Level,
    /// `noreboot`: halt instead of restarting after a crash.
    pub after_crash: AfterCrash,
    /// `maxcpus=` and `nosmp`: physical CPUs to start at most.
    pub max_cpus: usize,
    /// `sched_ratelimit_us=`: microseconds that a vCPU may run before one that wakes interrupts it; 0: none.
    pub rate_limit: u32,
    /// `iommu=`: translate what devices do, if the machine can.
    pub iommu: bool,
    /// Options that mean nothing here.
    pub unknown: heapless::Vec<&'a str, MAX_COMPLAINTS>,
    /// Options with a value that makes no sense.
    pub invalid: heapless::Vec<&'a str, MAX_COMPLAINTS>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            dom0_memory: Dom0Memory::default(),
            dom0_vcpus: (1, u32::MAX),
            level: Level::Warning,
            after_crash: AfterCrash::Restart,
            max_cpus: usize::MAX,
            rate_limit: DEFAULT_RATE_LIMIT,
            iommu: true,
            unknown: heapless::Vec::new(),
            invalid: heapless::Vec::new(),
        }
    }
}

/// Options of Xen that change nothing here but are no mistake either.
const ACCEPTED: &[&str] = &[
    "console",
    "com1",
    "com2",
    "console_timestamps",
    "sync_console",
    "guest_loglvl",
    "cpuidle",
    "cpufreq",
    "dom0",
    "vga",
    "conring_size",
    "console_to_ring",
    "bootscrub",
    "ucode",
    "smt",
    "sched",
    "dom0_vcpus_pin",
    "watchdog",
    "xsave",
    "spec-ctrl",
    "placeholder",
];

impl<'a> Options<'a> {
    /// Reads a command line.
    pub fn parse(text: &'a str) -> Self {
        let mut options = Self::default();
        for word in text.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match options.apply(name, value) {
                Some(true) => {}
                // A list that is full loses the rest: the first ones are the telling ones.
                Some(false) => drop(options.invalid.push(word)),
                None => drop(options.unknown.push(word)),
            }
        }
        options
    }

    /// Takes one option over: `None` if the name is unknown, false if the value makes no sense.
    fn apply(&mut self, name: &str, value: &str) -> Option<bool> {
        Some(match name {
            "dom0_mem" => self.dom0_memory.apply(value),
            "dom0_max_vcpus" => set(&mut self.dom0_vcpus, parse_vcpus(value)),
            "loglvl" => set(&mut self.level, parse_level(value)),
            "noreboot" => set(&mut self.after_crash, parse_bool(value).map(AfterCrash::no_reboot)),
            // The other values choose between ways to restart, all of which are tried here.
            "reboot" if value.starts_with('n') => set(&mut self.after_crash, Some(AfterCrash::Halt)),
            "reboot" => !value.is_empty(),
            "maxcpus" => set(&mut self.max_cpus, value.parse().ok().filter(|count| *count > 0)),
            "sched_ratelimit_us" => set(&mut self.rate_limit, value.parse().ok().filter(|limit| is_rate_limit(*limit))),
            // A list; what it says besides of kinds of IOMMUs and tables changes nothing here.
            "iommu" => set(&mut self.iommu, Some(!value.split(',').any(|word| parse_bool(word) == Some(false)))),
            "no-iommu" => set(&mut self.iommu, Some(false)),
            "nosmp" => set(&mut self.max_cpus, Some(1)),
            _ if ACCEPTED.contains(&name.strip_prefix("no-").unwrap_or(name)) => true,
            _ => return None,
        })
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    value.map(|value| *place = value).is_some()
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "yes" | "on" | "true" | "enable" => Some(true),
        "0" | "no" | "off" | "false" | "disable" => Some(false),
        _ => None,
    }
}

/// `loglvl=all` or `guest/hypervisor` pairs as Xen takes them; the part before the slash counts.
fn parse_level(text: &str) -> Option<Level> {
    match text.split('/').next()? {
        "none" | "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "info" => Some(Level::Info),
        "debug" | "all" => Some(Level::Debug),
        _ => None,
    }
}

fn parse_vcpus(text: &str) -> Option<(u32, u32)> {
    let (low, high) = match text.split_once('-') {
        Some((low, "")) => (low.parse().ok()?, u32::MAX),
        Some(("", high)) => (1, high.parse().ok()?),
        Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
        None => (1, text.parse().ok()?),
    };
    (low > 0 && low <= high).then_some((low, high))
}

/// A size with a unit (`K`, `M`, `G`, `T`, `B`); without one it is in KiB, as in Xen.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.chars().next_back()?.to_ascii_uppercase() {
        'B' => (text.get(..text.len().checked_sub(1)?)?, 0),
        'K' => (text.get(..text.len().checked_sub(1)?)?, 10),
        'M' => (text.get(..text.len().checked_sub(1)?)?, 20),
        'G' => (text.get(..text.len().checked_sub(1)?)?, 30),
        'T' => (text.get(..text.len().checked_sub(1)?)?, 40),
        _ => (text, 10),
    };
    let number: u64 = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    number.checked_mul(1u64.checked_shl(shift)?)
}

impl Dom0Memory {
    fn apply(&mut self, text: &str) -> bool {
        text.split(',').all(|part| {
            let (place, size) = match part.split_once(':') {
                Some(("min", size)) => (&mut self.min, size),
                Some(("max", size)) => (&mut self.max, size),
                Some(_) => return false,
                None => (&mut self.size, part),
            };
            parse_size(size).map(|size| *place = Some(size)).is_some()
        })
    }

    /// Bytes that the control domain gets, when `available` bytes can be given: what was asked for inside its limits, or
    /// half of what there is, so that guests find memory (a 1:1 control domain cannot give its memory to them later).
    pub fn choose(&self, available: u64) -> u64 {
        let wanted = self.size.or(self.max).unwrap_or(available / 2);
        wanted.min(self.max.unwrap_or(u64::MAX)).max(self.min.unwrap_or(0)).min(available)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xen_users_write() {
        let options = Options::parse(
            "console=com1 com1=115200,8n1 dom0_mem=1024M,max:2G dom0_max_vcpus=2 loglvl=all guest_loglvl=all noreboot",
        );
        assert_eq!(options.dom0_memory, Dom0Memory { size: Some(1 << 30), min: None, max: Some(2 << 30) });
        assert_eq!(options.dom0_vcpus, (1, 2));
        assert_eq!(options.level, Level::Debug);
        assert_eq!(options.after_crash, AfterCrash::Halt);
        assert_eq!(Options::parse("reboot=no").after_crash, AfterCrash::Halt);
        assert_eq!(Options::parse("reboot=k").after_crash, AfterCrash::Restart);
        assert_eq!(Options::parse("noreboot=no").after_crash, AfterCrash::Restart);
        assert!(options.unknown.is_empty() && options.invalid.is_empty(), "{options:?}");
        for (text, iommu) in [
            ("", true),
            ("iommu", true),
            ("iommu=verbose,no-intremap", true),
            ("iommu=off", false),
            ("iommu=debug,no", false),
            ("no-iommu", false),
        ] {
            assert_eq!(Options::parse(text).iommu, iommu, "{text}");
        }
    }

    #[test]
    fn oddities_are_reported_not_obeyed() {
        let options = Options::parse(
            "frobnicate=3 dom0_mem=lots loglvl=loud dom0_max_vcpus=0 noreboot=maybe maxcpus=0 sched_ratelimit_us=99",
        );
        assert_eq!(options.unknown.as_slice(), ["frobnicate=3"]);
        assert_eq!((options.invalid.len(), options.rate_limit), (6, 1_000));
        assert_eq!(Options::parse("sched_ratelimit_us=0").rate_limit, 0);
        assert_eq!(options.dom0_vcpus, (1, u32::MAX));
    }

    #[test]
    fn sizes_and_ranges() {
        assert_eq!(parse_size("512M"), Some(512 << 20));
        assert_eq!(parse_size("0x10g"), Some(16 << 30));
        assert_eq!(parse_size("2048"), Some(2 << 20));
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("99999999999999T"), None);
        assert_eq!(parse_vcpus("2-4"), Some((2, 4)));
        assert_eq!(parse_vcpus("-4"), Some((1, 4)));
        assert_eq!(parse_vcpus("4-2"), None);
    }

    #[test]
    fn memory_stays_inside_its_limits() {
        let memory = |text| {
            let mut memory = Dom0Memory::default();
            assert!(memory.apply(text));
            memory
        };
        assert_eq!(memory("512M").choose(4 << 30), 512 << 20);
        assert_eq!(memory("512M").choose(256 << 20), 256 << 20);
        assert_eq!(memory("min:1G,512M").choose(4 << 30), 1 << 30);
        assert_eq!(memory("max:1G").choose(4 << 30), 1 << 30);
        assert_eq!(Dom0Memory::default().choose(4 << 30), 2 << 30);
    }
}

//! JSON the way xl writes it: the layout of yajl, and a domain's configuration as libxl describes it.
//!
//! `xl create -n` prints a `libxl_domain_config` in which only what differs from its default appears, in the order of
//! libxl_types.idl; the same object, stored as user data, is what either toolstack reads back (`xl list -l`, a restart by
//! the monitor). So the names and the order here are an interface. Comes after the schema.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::config::domain::{Action, Affinity, DomainConfig, TimerMode, TscMode};
use crate::device_json::{self, disk, nic, p9};
use libxc::plan::cpuid_mask::LeafMask;

/// Writes a value in yajl's layout: four spaces per level, a line for every element, and an empty line in what is empty.
pub fn to_text(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, Yajl::default());
    // Writing to memory does not fail, and a Value holds nothing that JSON cannot express.
    if value.serialize(&mut serializer).is_err() {
        bytes.clear();
    }
    bytes.push(b'\n');
    String::from_utf8(bytes).unwrap_or_default()
}

/// yajl's beautified layout.
#[derive(Default)]
struct Yajl {
    depth: usize,
}

impl Yajl {
    fn indent<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        (0..self.depth).try_for_each(|_| writer.write_all(b"    "))
    }

    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(bracket)?;
        writer.write_all(b"\n")
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        writer.write_all(b"\n")?;
        self.indent(writer)?;
        writer.write_all(bracket)
    }

    fn element<W: ?Sized + io::Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",\n")?;
        }
        self.indent(writer)
    }
}

impl Formatter for Yajl {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// What the configuration does not say but the description needs.
pub struct Context<'a> {
    /// The UUID, given or fresh.
    pub uuid: [u8; 16],
    /// For each host CPU its node, as [`crate::config::cpus::CpuSet::resolve`] wants it; the length is a multiple of 8.
    pub node_of_cpu: &'a [Option<u32>],
}

/// An object under construction, to which only what differs from the default is added.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    pub(crate) fn given<T: Into<Value>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// libxl's three-valued booleans are strings.
    pub(crate) fn flag(&mut self, key: &str, value: Option<bool>) {
        self.given(key, value.map(|value| if value { "True" } else { "False" }));
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.set(key, value);
        }
    }

    pub(crate) fn list(&mut self, key: &str, values: Vec<Value>) {
        if !values.is_empty() {
            self.set(key, values);
        }
    }

    pub(crate) fn done(self) -> Value {
        Value::Object(self.0)
    }
}

/// The `libxl_domain_config` of a configuration.
pub fn domain_config(config: &DomainConfig, context: &Context<'_>) -> Value {
    let mut all = Object::default();
    all.set("c_info", create_info(config, context));
    all.set("b_info", build_info(config, context));
    all.list("disks", config.disks.iter().map(disk).collect());
    all.list("nics", config.vifs.iter().enumerate().map(nic).collect());
    all.list("p9s", config.p9s.iter().map(p9).collect());
    let actions = [
        ("on_poweroff", config.actions.poweroff),
        ("on_reboot", config.actions.reboot),
        ("on_watchdog", config.actions.watchdog),
        ("on_crash", config.actions.crash),
        ("on_soft_reset", config.actions.soft_reset),
    ];
    for (key, action) in actions {
        // "destroy" is the value that libxl takes for the default of all of them.
        all.given(key, (action != Action::Destroy).then(|| action_name(action)));
    }
    all.done()
}

/// What is stored as user data: the description, with the few defaults that libxl has filled in by then.
pub fn stored_config(description: &Value) -> Value {
    let mut stored = description.clone();
    let mut put = |part: &str, key: &str, value: Value| {
        if let Some(object) = stored.get_mut(part).and_then(Value::as_object_mut) {
            object.insert(key.into(), value);
        }
    };
    // libxl's number for "any domain id".
    put("c_info", "domid", json!(u32::MAX));
    put("b_info", "video_memkb", json!(0));
    put("b_info", "arch_x86", json!({ "msr_relaxed": "False" }));
    in_order(stored)
}

/// Reads stored user data; it ends with a zero.
pub fn from_text(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text.strip_suffix(b"\0").unwrap_or(text))
}

/// Takes over what can change about a domain while it exists: its name, its memory, its vCPUs and its devices.
pub fn take_changes(config: &mut DomainConfig, stored: &Value) {
    let number = |key: &str| stored["b_info"][key].as_u64();
    if let Some(name) = stored["c_info"]["name"].as_str() {
        config.name = name.into();
    }
    config.memory_mib = number("target_memkb").map(|kib| kib >> 10).or(config.memory_mib);
    config.max_memory_mib = number("max_memkb").map(|kib| kib >> 10).or(config.max_memory_mib);
    config.max_vcpus = number("max_vcpus").and_then(|count| u32::try_from(count).ok()).or(config.max_vcpus);
    let online = stored["b_info"]["avail_vcpus"].as_array().and_then(|list| u32::try_from(list.len()).ok());
    config.vcpus = online.filter(|&count| count > 0).or(config.vcpus);
    device_json::take_devices(config, stored);
}

/// The keys of a description in libxl's order, as far as two toolstacks write them.
const ORDER: &[&str] = &[
    "type",
    "hap",
    "oos",
    "ssidref",
    "ssid_label",
    "name",
    "domid",
    "uuid",
    "poolid",
    "pool_name",
    "run_hotplug_scripts",
    "driver_domain",
    "passthrough",
    "xend_suspend_evtchn_compat",
    "max_vcpus",
    "avail_vcpus",
    "nodemap",
    "vcpu_hard_affinity",
    "vcpu_soft_affinity",
    "numa_placement",
    "tsc_mode",
    "max_memkb",
    "target_memkb",
    "video_memkb",
    "shadow_memkb",
    "iommu_memkb",
    "rtc_timeoffset",
    "exec_ssidref",
    "exec_ssid_label",
    "localtime",
    "disable_migrate",
    "cpuid",
    "blkdev_start",
    "vnuma_nodes",
    "max_grant_frames",
    "max_maptrack_frames",
    "max_grant_version",
    "device_model_version",
    "sched_params",
    "sched",
    "weight",
    "cap",
    "claim_mode",
    "event_channels",
    "kernel",
    "cmdline",
    "ramdisk",
    "acpi",
    "timer_mode",
    "nested_hvm",
    "apic",
    "type.pvh",
    "type.pv",
    "type.hvm",
    "arch_arm",
    "arch_x86",
];

/// The outer keys in libxl's order, as far as two toolstacks write them.
const OUTER: &[&str] = &[
    "c_info",
    "b_info",
    "disks",
    "nics",
    "p9s",
    "on_poweroff",
    "on_reboot",
    "on_watchdog",
    "on_crash",
    "on_soft_reset",
];

/// Puts the keys of the description and of its two inner objects into libxl's order; a key that is not known stays behind
/// the one before it.
pub fn in_order(mut description: Value) -> Value {
    for part in ["c_info", "b_info"] {
        if let Some(object) = description.get_mut(part).and_then(Value::as_object_mut) {
            sort(object, ORDER);
        }
    }
    if let Some(object) = description.as_object_mut() {
        sort(object, OUTER);
    }
    description
}

fn sort(object: &mut Map<String, Value>, order: &[&str]) {
    let mut rank = 0;
    let mut entries: Vec<(usize, (String, Value))> = std::mem::take(object)
        .into_iter()
        .map(|(key, value)| {
            rank = order.iter().position(|known| *known == key).unwrap_or(rank);
            (rank, (key, value))
        })
        .collect();
    entries.sort_by_key(|(rank, _)| *rank);
    object.extend(entries.into_iter().map(|(_, entry)| entry));
}

/// libxl's name of an action, which is not xl's.
fn action_name(action: Action) -> &'static str {
    match action {
        Action::Destroy => "destroy",
        Action::Restart => "restart",
        Action::RenameRestart => "restart_rename",
        Action::Preserve => "preserve",
        Action::CoredumpDestroy => "coredump_destroy",
        Action::CoredumpRestart => "coredump_restart",
        Action::SoftReset => "soft_reset",
    }
}

fn create_info(config: &DomainConfig, context: &Context<'_>) -> Value {
    let mut info = Object::default();
    info.set("type", "pvh");
    info.flag("hap", config.hap);
    info.flag("oos", config.oos);
    info.given("ssid_label", config.seclabel.clone());
    info.set("name", config.name.clone());
    info.set("uuid", libxc::plan::nodes::format_uuid(&context.uuid));
    info.given("pool_name", config.pool.clone());
    info.flag("run_hotplug_scripts", Some(true));
    info.flag("driver_domain", config.driver_domain);
    info.done()
}

fn build_info(config: &DomainConfig, context: &Context<'_>) -> Value {
    let mut info = Object::default();
    let most = config.max_vcpus.or(config.vcpus);
    info.given("max_vcpus", most);
    info.given("avail_vcpus", config.vcpus.map(|count| (0..count).collect::<Vec<_>>()));
    let affinity = |affinity: &Option<Affinity>| affinities(affinity.as_ref(), config.most_vcpus(), context);
    info.list("vcpu_hard_affinity", affinity(&config.cpus));
    info.list("vcpu_soft_affinity", affinity(&config.cpus_soft));
    // A list for the vCPUs, or any soft affinity, stands for a placement of one's own; one hard set for all does not (xl_parse.c).
    let placed = matches!(config.cpus, Some(Affinity::PerVcpu(_))) || config.cpus_soft.is_some();
    info.flag("numa_placement", placed.then_some(false));
    let tsc = (config.tsc_mode != TscMode::Default).then(|| name_of(config.tsc_mode, &TscMode::NAMES));
    info.given("tsc_mode", tsc);
    info.given("max_memkb", config.max_memory_mib.or(config.memory_mib).map(|mib| mib << 10));
    info.given("target_memkb", config.memory_mib.map(|mib| mib << 10));
    info.given("shadow_memkb", config.shadow_memory_mib.map(|mib| mib << 10));
    info.flag("disable_migrate", config.no_migrate);
    info.given("cpuid", (!config.cpuid.is_empty()).then(|| cpuid(&config.cpuid)));
    info.given("max_grant_frames", config.max_grant_frames);
    info.given("max_maptrack_frames", config.max_maptrack_frames);
    info.given("max_grant_version", config.max_grant_version);
    info.set("sched_params", sched_params(config));
    info.flag("claim_mode", Some(config.claim));
    info.given("event_channels", config.max_event_channels.filter(|&channels| channels != 0));
    info.given("kernel", config.kernel.clone());
    info.given("cmdline", config.command_line());
    info.given("ramdisk", config.ramdisk.clone());
    info.flag("acpi", config.acpi);
    info.given("timer_mode", config.timer_mode.map(|mode| name_of(mode, &TimerMode::NAMES)));
    info.flag("nested_hvm", config.nested_hvm);
    info.set("type.pvh", json!({}));
    info.set("arch_arm", json!({}));
    info.set("arch_x86", json!({}));
    info.done()
}

fn sched_params(config: &DomainConfig) -> Value {
    let mut params = Object::default();
    params.given("weight", config.scheduling.weight);
    params.given("cap", config.scheduling.cap);
    params.done()
}

/// Masks of CPUID leaves as libxl writes them.
fn cpuid(masks: &[LeafMask]) -> Value {
    let entry = |mask: &LeafMask| {
        let mut entry = Object::default();
        entry.set("leaf", mask.leaf);
        entry.given("subleaf", mask.subleaf);
        for (name, register) in ["eax", "ebx", "ecx", "edx"].into_iter().zip(&mask.registers) {
            entry.given(name, register.map(|bits| bits.to_string()));
        }
        entry.done()
    };
    json!({ "cpuid": masks.iter().map(entry).collect::<Vec<_>>(), "msr": [] })
}

/// The name of a value.
pub(crate) fn name_of<T: Copy + PartialEq>(value: T, names: &[(T, &'static str)]) -> &'static str {
    names.iter().find(|(other, _)| *other == value).map_or("", |(_, name)| name)
}

fn affinities(affinity: Option<&Affinity>, vcpus: u32, context: &Context<'_>) -> Vec<Value> {
    let count = usize::try_from(vcpus).unwrap_or(usize::MAX);
    match affinity {
        None => Vec::new(),
        Some(Affinity::All(set)) => vec![json!(set.resolve(context.node_of_cpu)); count],
        Some(Affinity::PerVcpu(sets)) => {
            sets.iter().take(count).map(|set| json!(set.resolve(context.node_of_cpu))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_yajls() {
        let value = json!({ "a": {}, "b": [1, { "c": "x" }], "d": [] });
        let text = "{\n    \"a\": {\n\n    },\n    \"b\": [\n        1,\n        {\n            \"c\": \"x\"\n        }\n    ],\n    \"d\": [\n\n    ]\n}\n";
        assert_eq!(to_text(&value), text);
    }

    /// What Debian's xl 4.17 stored for the smaller of them, and what comes back from it.
    #[test]
    fn what_is_stored_is_libxls() {
        let (config, _) = crate::config::read("x.cfg", include_str!("../tests/small.cfg").as_bytes(), &[]);
        let context = Context { uuid: config.uuid.unwrap_or_default(), node_of_cpu: &[] };
        let stored = to_text(&stored_config(&domain_config(&config, &context)));
        assert_eq!(stored, include_str!("../tests/small-stored.json"));
        let mut value = from_text(stored.as_bytes()).expect("is JSON");
        value["c_info"]["name"] = json!("renamed");
        value["b_info"]["target_memkb"] = json!(131_072);
        value["b_info"]["avail_vcpus"] = json!([0, 1]);
        let mut changed = config.clone();
        take_changes(&mut changed, &value);
        let expected = DomainConfig {
            name: "renamed".into(),
            memory_mib: Some(128),
            max_memory_mib: Some(256),
            vcpus: Some(2),
            ..config
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn affinity_for_all_vcpus_leaves_numa_placement_as_it_is() {
        let nodes = [Some(0), None];
        for (line, expected) in [
            ("", None),
            ("cpus = \"0\"", None),
            ("cpus = [\"0\"]", Some("False")),
            ("cpus_soft = \"0\"", Some("False")),
            ("cpus_soft = [\"0\"]", Some("False")),
        ] {
            let text = format!("name = \"g\"\ntype = \"pvh\"\nkernel = \"/k\"\nmemory = 64\nvcpus = 2\n{line}\n");
            let (config, report) = crate::config::read("x.cfg", text.as_bytes(), &[]);
            assert!(!report.has_errors(), "{:?}", report.findings());
            let value = domain_config(&config, &Context { uuid: [0; 16], node_of_cpu: &nodes });
            assert_eq!(value["b_info"].get("numa_placement").and_then(Value::as_str), expected, "{line}");
        }
    }

    /// What Debian's xl 4.17 printed for the same two files on a host with one CPU.
    #[test]
    fn descriptions_equal_xls() {
        let nodes = [Some(0), None, None, None, None, None, None, None];
        for (file, expected) in [
            (include_str!("../tests/small.cfg"), include_str!("../tests/small.json")),
            (include_str!("../tests/large.cfg"), include_str!("../tests/large.json")),
        ] {
            let (config, report) = crate::config::read("x.cfg", file.as_bytes(), &[]);
            assert!(!report.has_errors(), "{:?}", report.findings());
            let context = Context { uuid: config.uuid.unwrap_or_default(), node_of_cpu: &nodes };
            assert_eq!(to_text(&domain_config(&config, &context)), expected);
        }
    }
}

//! `xl info`: what the host and its hypervisor are.

use std::fmt::Write;

use libxc::verbs::host::text;
use public_abi::sysctl::{INVALID_CORE_ID, INVALID_MEM_SZ, PhysCap, PhysInfo};
use serde_json::json;

use crate::cli::Info;
use crate::failure::{Failure, Outcome};
use crate::output::{print, print_json};
use crate::session::hypervisor;

/// Lines of name and value, aligned.
#[derive(Default)]
struct Lines(Vec<(&'static str, String)>);

impl Lines {
    fn add(&mut self, name: &'static str, value: impl ToString) {
        self.0.push((name, value.to_string()));
    }
}

pub(super) fn run(options: &Info) -> Outcome {
    let handle = hypervisor()?;
    let mut lines = Lines::default();
    let system = rustix::system::uname();
    lines.add("host", system.nodename().to_string_lossy());
    lines.add("release", system.release().to_string_lossy());
    lines.add("version", system.version().to_string_lossy());
    lines.add("machine", system.machine().to_string_lossy());
    let physical = handle.phys_info()?;
    add_physical(&mut lines, &physical);
    let first_part = lines.0.len();
    let (major, minor) = handle.version()?;
    let extra = handle.extra_version()?;
    lines.add("xen_major", major);
    lines.add("xen_minor", minor);
    lines.add("xen_extra", &extra);
    lines.add("xen_version", format!("{major}.{minor}{extra}"));
    lines.add("xen_caps", handle.capabilities()?);
    let scheduler = handle.scheduler()?;
    lines.add(
        "xen_scheduler",
        scheduler.map_or_else(|number| format!("unknown ({number})"), |id| id.name().to_lowercase()),
    );
    lines.add("xen_pagesize", handle.page_size()?);
    lines.add("platform_params", format!("virt_start={:#x}", handle.virt_start()?));
    lines.add("xen_changeset", handle.changeset()?);
    lines.add("xen_commandline", handle.command_line()?);
    let compiled = handle.compile_info()?;
    lines.add("cc_compiler", text(&compiled.compiler));
    lines.add("cc_compile_by", text(&compiled.compile_by));
    lines.add("cc_compile_domain", text(&compiled.compile_domain));
    lines.add("cc_compile_date", text(&compiled.compile_date));
    lines.add("build_id", handle.build_id()?.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.add("xend_config_format", 4);
    if options.output.json {
        return print_json(&lines.0.iter().map(|(name, value)| ((*name).to_string(), json!(value))).collect());
    }
    match &options.name {
        Some(name) if !options.numa => print(values(&lines, name)?),
        _ => {
            let middle = if options.numa { topology(&handle)? } else { String::new() };
            let (before, after) = lines.0.split_at(first_part);
            print(format!("{}{middle}{}", block(before), block(after)))
        }
    }
}

fn block(lines: &[(&str, String)]) -> String {
    lines.iter().map(|(name, value)| format!("{name:<23}: {value}\n")).collect()
}

/// The values of the lines whose names begin with `wanted`.
fn values(lines: &Lines, wanted: &str) -> Outcome<String> {
    let found = lines.0.iter().filter(|(name, _)| name.starts_with(wanted));
    let text: String = found.map(|(_, value)| format!("{value}\n")).collect();
    if text.is_empty() { Err(Failure::new(format!("info: there is no line \"{wanted}\""))) } else { Ok(text) }
}

fn add_physical(lines: &mut Lines, info: &PhysInfo) {
    lines.add("nr_cpus", info.nr_cpus);
    lines.add("max_cpu_id", info.max_cpu_id);
    lines.add("nr_nodes", info.nr_nodes);
    lines.add("cores_per_socket", info.cores_per_socket);
    lines.add("threads_per_core", info.threads_per_core);
    lines.add("cpu_mhz", format!("{}.{:03}", info.cpu_khz / 1000, info.cpu_khz % 1000));
    lines.add("hw_caps", info.hw_cap.map(|word| format!("{word:08x}")).join(":"));
    lines.add("virt_caps", virtualization(PhysCap::from_bits_truncate(info.capabilities)));
    // Pages of 4 KiB to MiB.
    lines.add("total_memory", info.total_pages / 256);
    lines.add("free_memory", (info.free_pages + info.scrub_pages).saturating_sub(info.outstanding_pages) / 256);
    lines.add("sharing_freed_memory", 0);
    lines.add("sharing_used_memory", 0);
    lines.add("outstanding_claims", info.outstanding_pages / 256);
    lines.add("free_cpus", 0);
}

/// What kinds of guests and devices there can be, in xl's words.
fn virtualization(caps: PhysCap) -> String {
    let direct = caps.contains(PhysCap::DIRECTIO);
    let words = [
        ("pv", caps.contains(PhysCap::PV)),
        ("hvm", caps.contains(PhysCap::HVM)),
        ("hvm_directio", caps.contains(PhysCap::HVM) && direct),
        ("pv_directio", caps.contains(PhysCap::PV) && direct),
        ("hap", caps.contains(PhysCap::HAP)),
        ("shadow", caps.contains(PhysCap::SHADOW)),
        ("iommu_hap_pt_share", caps.contains(PhysCap::IOMMU_HAP_PT_SHARE)),
        ("vmtrace", caps.contains(PhysCap::VMTRACE)),
        ("vpmu", caps.contains(PhysCap::VPMU)),
        ("gnttab-v1", caps.contains(PhysCap::GNTTAB_V1)),
        ("gnttab-v2", caps.contains(PhysCap::GNTTAB_V2)),
    ];
    let words: Vec<&str> = words.iter().filter(|(_, there)| *there).map(|(word, _)| *word).collect();
    words.join(" ")
}

/// CPUs and NUMA nodes.
fn topology<T: libxc::trap::Trap>(handle: &libxc::Handle<T>) -> Outcome<String> {
    let mut text = String::from("cpu_topology           :\ncpu:    core    socket     node\n");
    let failed = |error: std::fmt::Error| Failure::new(error.to_string());
    for (number, cpu) in handle.cpu_topology()?.iter().enumerate().filter(|(_, cpu)| cpu.core != INVALID_CORE_ID) {
        writeln!(text, "{number:3}:    {:4}     {:4}     {:4}", cpu.core, cpu.socket, cpu.node).map_err(failed)?;
    }
    text.push_str("device topology        :\ndevice           node\nNo device topology data available\n");
    text.push_str("numa_info              :\nnode:    memsize    memfree    distances\n");
    for (number, node) in handle.numa_nodes()?.iter().enumerate().filter(|(_, node)| node.memsize != INVALID_MEM_SZ) {
        let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
        let (size, free, distances) = (node.memsize >> 20, node.memfree >> 20, distances.join(","));
        writeln!(text, "{number:4}:    {size:6}     {free:6}      {distances}").map_err(failed)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_stands_for_all_lines_with_it() {
        let mut lines = Lines::default();
        for (name, value) in [("xen_major", 4), ("xen_minor", 17), ("nr_cpus", 2)] {
            lines.add(name, value);
        }
        assert_eq!(values(&lines, "xen_m").expect("there are two"), "4\n17\n");
        assert_eq!(values(&lines, "nr_cpus").expect("there is one"), "2\n");
        assert!(values(&lines, "cpus").is_err());
    }
}

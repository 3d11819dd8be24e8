//! `xl vcpu-pin`: the CPUs that a vCPU may run on, and those that it prefers.

use crate::cli::VcpuPin;
use crate::config::cpus::CpuSet;
use crate::domain::change::{self, Pin};
use crate::domain::guest::nodes_of_cpus;
use crate::failure::{Failure, Outcome};
use crate::output::{line, ranges};
use crate::session::Session;

pub(super) fn run(options: &VcpuPin, dry_run: bool) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let vcpu = match options.vcpu.as_str() {
        "all" if options.force => return Err(Failure::new("--force and 'all' as VCPU not allowed.")),
        "all" => None,
        text => Some(text.parse().map_err(|_| Failure::new(format!("Invalid argument {text} as VCPU.")))?),
    };
    let nodes = nodes_of_cpus(&session)?;
    let cpus = |list: &str| -> Outcome<Option<Vec<u32>>> {
        match list {
            "-" => Ok(None),
            _ => CpuSet::parse(list).map(|set| Some(set.resolve(&nodes))).map_err(Failure::new),
        }
    };
    let (hard, soft) = (cpus(&options.hard)?, cpus(options.soft.as_deref().unwrap_or("-"))?);
    if dry_run {
        let count = u32::try_from(session.handle.cpu_count()?).unwrap_or(u32::MAX);
        let hard = hard.map_or_else(|| "-".into(), |cpus| ranges(&cpus, count));
        let soft = soft.map_or_else(String::new, |cpus| format!(" {}", ranges(&cpus, count)));
        return line(format_args!("cpumap: {hard}{soft}"));
    }
    let pin = Pin { vcpu, hard, soft, force: options.force };
    change::pin(&session, domid, &pin).map_err(|failure| failure.while_doing(format!("pinning {}", options.domain)))
}

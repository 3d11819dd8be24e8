//! `xl vcpu-set`: how many of a domain's vCPUs shall be up.

use crate::cli::VcpuSet;
use crate::domain::change;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn run(options: &VcpuSet) -> Outcome {
    let session = Session::open()?;
    let info = session.info(&options.domain)?;
    let count: u32 = options
        .count
        .parse()
        .map_err(|_| Failure::new(format!("vcpu-set: {} is no number of vCPUs", options.count)))?;
    let host = session.handle.phys_info()?.nr_cpus;
    if !options.ignore_host && count > info.online_vcpus && count > host {
        return Err(Failure::new(format!(
            "You are overcommitting! You have {host} physical CPUs and want {count} vCPUs! Aborting, use --ignore-host to continue"
        )));
    }
    let set = change::online_vcpus(&session, info.domid, count);
    set.map_err(|failure| failure.while_doing(format!("setting the vCPUs of {}", options.domain)))
}

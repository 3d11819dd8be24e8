//! `xl vcpu-list`: what each vCPU does and where it may run.

use libxc::verbs::domain::DomainInfo;
use libxc::verbs::vcpu::CpuMap;
use serde_json::{Value, json};

use crate::cli::VcpuList;
use crate::failure::Outcome;
use crate::output::{line, print_json, ranges, shown};
use crate::session::Session;

pub(super) fn run(options: &VcpuList) -> Outcome {
    let session = Session::open()?;
    let domains = match options.domains.as_slice() {
        [] => session.handle.domains()?,
        names => names.iter().map(|name| session.info(name)).collect::<Outcome<Vec<_>>>()?,
    };
    let cpus = u32::try_from(session.handle.cpu_count()?).unwrap_or(u32::MAX);
    if options.output.json {
        let all = domains.iter().map(|info| describe(&session, info, cpus)).collect::<Outcome<Vec<_>>>()?;
        return print_json(&all.into_iter().flatten().collect());
    }
    line(format_args!(
        "{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} Affinity (Hard / Soft)",
        "Name", "ID", "VCPU", "CPU", "State", "Time(s)"
    ))?;
    domains.iter().try_for_each(|info| print_domain(&session, info, cpus))
}

fn describe(session: &Session, info: &DomainInfo, cpus: u32) -> Outcome<Vec<Value>> {
    let name = session.name(info.domid)?;
    let of_vcpu = |vcpu| {
        let state = session.handle.vcpu_info(info.domid, vcpu)?;
        let (hard, soft) = session.handle.vcpu_affinity(info.domid, vcpu, cpus)?;
        let there = |set: CpuMap| set.members().into_iter().filter(|cpu| *cpu < cpus).collect::<Vec<_>>();
        Ok(json!({
            "name": name, "domid": info.domid, "vcpu": vcpu, "cpu": state.online.then_some(state.cpu),
            "online": state.online, "running": state.running, "blocked": state.blocked,
            "cpu_time_ns": state.cpu_time, "hard_affinity": there(hard), "soft_affinity": there(soft),
        }))
    };
    (0..info.max_vcpus).map(of_vcpu).collect()
}

fn print_domain(session: &Session, info: &DomainInfo, cpus: u32) -> Outcome {
    let name = session.name(info.domid)?;
    for vcpu in 0..info.max_vcpus {
        let state = session.handle.vcpu_info(info.domid, vcpu)?;
        let (hard, soft) = session.handle.vcpu_affinity(info.domid, vcpu, cpus)?;
        let letter = |on: bool, letter: char| if on { letter } else { '-' };
        let place = match state.online {
            true => format!("{:5}   {}{}-", state.cpu, letter(state.running, 'r'), letter(state.blocked, 'b')),
            false => "    -   --p".to_string(),
        };
        let seconds = std::time::Duration::from_nanos(state.cpu_time).as_secs_f64();
        let (hard, soft) = (ranges(&hard.members(), cpus), ranges(&soft.members(), cpus));
        line(format_args!("{:<32} {:5} {vcpu:5}{place} {seconds:9.1}  {hard} / {soft}", shown(&name), info.domid))?;
    }
    Ok(())
}

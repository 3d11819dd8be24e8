//! `xl vcpu-list`: what each vCPU does and where it may run.

use libxc::verbs::domain::DomainInfo;

use crate::cli::VcpuList;
use crate::failure::Outcome;
use crate::output::line;
use crate::session::Session;

pub(super) fn run(options: &VcpuList) -> Outcome {
    let session = Session::open()?;
    let domains = match options.domains.as_slice() {
        [] => session.handle.domains()?,
        names => names.iter().map(|name| session.info(name)).collect::<Outcome<Vec<_>>>()?,
    };
    let cpus = u32::try_from(session.handle.cpu_count()?).unwrap_or(u32::MAX);
    line(format_args!(
        "{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} Affinity (Hard / Soft)",
        "Name", "ID", "VCPU", "CPU", "State", "Time(s)"
    ))?;
    domains.iter().try_for_each(|info| print_domain(&session, info, cpus))
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
        line(format_args!("{name:<32} {:5} {vcpu:5}{place} {seconds:9.1}  {hard} / {soft}", info.domid))?;
    }
    Ok(())
}

/// CPUs as xl prints them: "all", "none", or ranges such as "0-3,5".
fn ranges(members: &[u32], cpus: u32) -> String {
    let members: Vec<u32> = members.iter().copied().filter(|&cpu| cpu < cpus).collect();
    if members.is_empty() {
        return "none".into();
    }
    if members.len() == usize::try_from(cpus).unwrap_or(0) {
        return "all".into();
    }
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in members {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_xls() {
        assert_eq!(ranges(&[], 4), "none");
        assert_eq!(ranges(&[0, 1, 2, 3, 4, 5, 6, 7], 4), "all");
        assert_eq!(ranges(&[0, 2, 3], 4), "0,2-3");
        assert_eq!(ranges(&[1, 2, 3], 4), "1-3");
    }
}

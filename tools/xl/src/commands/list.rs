//! `xl list`: the domains, as a table or with everything as JSON.

use std::fmt::Write;

use libxc::plan::nodes::format_uuid;
use libxc::verbs::domain::DomainInfo;
use libxc::xenstore::Tx;
use public_abi::domctl_domain::DomainInfoFlags;
use serde_json::{Value, json};

use crate::cli::{List, Output};
use crate::domain::present::present;
use crate::failure::Outcome;
use crate::host_config::HostConfig;
use crate::json;
use crate::output::{line, note, print, print_json, ranges, shown};
use crate::session::Session;
use crate::userdata::{CONFIGURATION, UserData};

/// A letter per shutdown reason; the first stands for none and for power-off.
const REASONS: [char; 6] = ['-', 'r', 's', 'c', 'w', 'S'];

/// The names of the columns that every table has.
const HEAD: &str = "Name                                        ID   Mem VCPUs\tState\tTime(s)";

pub(super) fn run(options: &List) -> Outcome {
    let session = Session::open()?;
    let domains = match &options.domain {
        Some(domain) => vec![session.info(domain)?],
        None => session.handle.domains()?,
    };
    if options.output.json && !options.long {
        return short_json(&session, &domains);
    }
    if options.long { details(&session, &domains) } else { table(&session, options, &domains) }
}

/// `xl claims`: the same table, with the memory that each domain was promised and has not got yet.
pub(super) fn claims(output: &Output) -> Outcome {
    if !HostConfig::load().claim_mode {
        note(format_args!("claim_mode not enabled (see man xl.conf)."));
    }
    let session = Session::open()?;
    if output.json {
        return short_json(&session, &session.handle.domains()?);
    }
    let mut text = format!("{HEAD}  Claimed\n");
    for info in session.handle.domains()? {
        text.push_str(&row(&session.name(info.domid)?, &info));
        text.push_str(&format!(" {:5}\n", info.outstanding_pages * 4 / 1024));
    }
    print(text)
}

/// The table as JSON: what `-l` shows is the configuration, and not what the hypervisor says.
fn short_json(session: &Session, domains: &[DomainInfo]) -> Outcome {
    let flag = |info: &DomainInfo, flag| info.flags.contains(flag);
    let of_domain = |info: &DomainInfo| {
        Ok(json!({
            "name": session.name(info.domid)?, "domid": info.domid, "uuid": format_uuid(&info.uuid),
            "memory_kib": info.pages * 4, "max_memory_kib": info.max_pages.saturating_mul(4),
            "claimed_kib": info.outstanding_pages * 4, "online_vcpus": info.online_vcpus, "max_vcpus": info.max_vcpus,
            "running": flag(info, DomainInfoFlags::RUNNING), "blocked": flag(info, DomainInfoFlags::BLOCKED),
            "paused": flag(info, DomainInfoFlags::PAUSED), "shutdown": flag(info, DomainInfoFlags::SHUTDOWN),
            "dying": flag(info, DomainInfoFlags::DYING),
            "shutdown_reason": info.shutdown().map(|_| info.shutdown_code),
            "cpu_time_ns": info.cpu_time, "cpupool": info.cpu_pool,
        }))
    };
    print_json(&domains.iter().map(of_domain).collect::<Outcome<Value>>()?)
}

fn table(session: &Session, options: &List, domains: &[DomainInfo]) -> Outcome {
    let mut text = String::from(HEAD);
    if options.verbose {
        text.push_str("   UUID                            Reason-Code\tSecurity Label");
    } else if options.context {
        text.push_str("   Security Label");
    }
    if options.cpupool {
        text.push_str("         Cpupool");
    }
    if options.numa {
        text.push_str(" NODE Affinity");
    }
    let nodes = if options.numa { session.handle.phys_info()?.nr_nodes } else { 0 };
    text.push('\n');
    for info in domains {
        text.push_str(&row(&session.name(info.domid)?, info));
        let mut add = |part: std::fmt::Arguments<'_>| text.write_fmt(part);
        let mut columns = || -> std::fmt::Result {
            if options.verbose {
                add(format_args!(" {}", format_uuid(&info.uuid)))?;
                match info.shutdown() {
                    Some(_) => add(format_args!(" {:8x}", info.shutdown_code))?,
                    None => add(format_args!(" {:>8}", "-"))?,
                }
            }
            if options.verbose || options.context {
                add(format_args!(" {:>16}", "-"))?;
            }
            Ok(())
        };
        // Writing to a string does not fail.
        columns().map_err(|error| crate::failure::Failure::new(error.to_string()))?;
        if options.cpupool {
            let pool = session.store.read(Tx::NONE, &format!("/local/pool/{}/name", info.cpu_pool))?;
            text.push_str(&format!("{:>16}", pool.unwrap_or_else(|| format!("Pool-{}", info.cpu_pool))));
        }
        if options.numa {
            let members = session.handle.domain_node_affinity(info.domid, nodes)?.members();
            text.push_str(&format!(" {}", ranges(&members, nodes)));
        }
        text.push('\n');
    }
    print(text)
}

/// The columns that every table has.
fn row(name: &str, info: &DomainInfo) -> String {
    let flag = |flag: DomainInfoFlags, letter: char| if info.flags.contains(flag) { letter } else { '-' };
    let reason = match info.shutdown() {
        None => '-',
        Some(_) => REASONS.get(usize::from(info.shutdown_code)).copied().unwrap_or('?'),
    };
    format!(
        "{:<40} {:5} {:5} {:5}     {}{}{}{}{reason}{}  {:8.1}",
        shown(name),
        info.domid,
        (info.pages + info.outstanding_pages) * 4 / 1024,
        info.online_vcpus,
        flag(DomainInfoFlags::RUNNING, 'r'),
        flag(DomainInfoFlags::BLOCKED, 'b'),
        flag(DomainInfoFlags::PAUSED, 'p'),
        flag(DomainInfoFlags::SHUTDOWN, 's'),
        flag(DomainInfoFlags::DYING, 'd'),
        std::time::Duration::from_nanos(info.cpu_time).as_secs_f64(),
    )
}

fn details(session: &Session, domains: &[DomainInfo]) -> Outcome {
    let mut all = Vec::new();
    for info in domains {
        let stored = UserData::new(info.domid, &info.uuid).read(CONFIGURATION)?;
        // A domain that no toolstack of this kind made has no configuration to show.
        let Some(stored) = stored else { continue };
        match json::from_text(&stored) {
            Ok(config) => all.push(json!({ "domid": info.domid, "config": present(session, info, config)? })),
            Err(error) => {
                note(format_args!("xl: warning: the stored configuration of domain {} is no JSON: {error}", info.domid))
            }
        }
    }
    // xl ends it with an empty line.
    line(format_args!("{}", json::to_text(&Value::Array(all))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_looks_like_xls() {
        let info = DomainInfo {
            domid: 1,
            uuid: [0; 16],
            flags: DomainInfoFlags::SHUTDOWN | DomainInfoFlags::PAUSED,
            shutdown_code: 3,
            pages: 65536,
            max_pages: 65536,
            paged_pages: 0,
            shared_pages: 0,
            outstanding_pages: 0,
            cpu_time: 1_250_000_000,
            online_vcpus: 1,
            max_vcpus: 2,
            cpu_pool: 0,
        };
        assert_eq!(row("g", &info), "g                                            1   256     1     --psc-       1.2");
        assert_eq!(row("", &info), "(null)                                       1   256     1     --psc-       1.2");
    }
}

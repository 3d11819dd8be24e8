//! `xl uptime`: for how long domains have been running.

use std::time::{SystemTime, UNIX_EPOCH};

use libxc::xenstore::Tx;
use serde_json::{Value, json};

use crate::cli::Uptime;
use crate::failure::{Failure, Outcome};
use crate::output::{line, print_json, shown};
use crate::session::Session;

pub(super) fn run(options: &Uptime) -> Outcome {
    let session = Session::open()?;
    let domains = match options.domains.as_slice() {
        [] => session.handle.domains()?.iter().map(|info| info.domid).collect(),
        names => names.iter().map(|name| session.find(name)).collect::<Outcome<Vec<_>>>()?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if options.output.json {
        let mut all = Vec::new();
        for domid in domains {
            let name = session.name(domid)?;
            all.push(json!({ "name": name, "domid": domid, "uptime_seconds": seconds(&session, domid, now)? }));
        }
        return print_json(&Value::Array(all));
    }
    if !options.short {
        line(format_args!("{:<33} {:>4} Uptime", "Name", "ID"))?;
    }
    for domid in domains {
        // A domain that no toolstack has started has no start to count from.
        let Some(seconds) = seconds(&session, domid, now)? else { continue };
        let name = session.name(domid)?;
        let name = shown(&name);
        if options.short {
            line(format_args!(" {} up {}, {name} ({domid})", time_of_day(now), duration(seconds, true)))?;
        } else {
            line(format_args!("{name:<33} {domid:4} {}", duration(seconds, false)))?;
        }
    }
    Ok(())
}

/// Seconds since a domain was started; for the control domain since the machine was.
fn seconds(session: &Session, domid: u16, now: u64) -> Outcome<Option<u64>> {
    let whole = |text: &str| text.split(['.', ' ']).next().and_then(|seconds| seconds.parse::<u64>().ok());
    if domid == 0 {
        let text = std::fs::read_to_string("/proc/uptime")
            .map_err(|error| Failure::new(format!("reading /proc/uptime: {error}")))?;
        return Ok(whole(&text));
    }
    let Some(vm) = session.store.read(Tx::NONE, &format!("/local/domain/{domid}/vm"))? else { return Ok(None) };
    let start = session.store.read(Tx::NONE, &format!("{vm}/start_time"))?;
    Ok(start.as_deref().and_then(whole).map(|start| now.saturating_sub(start)))
}

/// The time of day. Xen's xl takes the host's time zone, which only C libraries know; this is UTC.
fn time_of_day(now: u64) -> String {
    let seconds = now % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn duration(seconds: u64, short: bool) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".into(),
        days => format!("{days} days, "),
    };
    let rest = if short { String::new() } else { format!(":{:02}", seconds % 60) };
    format!("{days}{hours:2}:{minutes:02}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_like_xls() {
        assert_eq!(duration(59, false), " 0:00:59");
        assert_eq!(duration(3_600 * 11 + 62, false), "11:01:02");
        assert_eq!(duration(86_400 + 60, true), "1 day,  0:01");
        assert_eq!(duration(86_400 * 12 + 3_661, false), "12 days,  1:01:01");
        assert_eq!(time_of_day(951_827_696), "12:34:56");
    }
}

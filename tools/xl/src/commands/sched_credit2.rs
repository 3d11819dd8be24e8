//! `xl sched-credit2`: weights and caps of domains, and the rate limit of a CPU pool.

use libxc::trap::Trap;
use libxc::verbs::domain::SchedParams;
use libxc::verbs::host::CpuPool;
use libxc::xenstore::Tx;
use public_abi::sched_params::{RATELIMIT_MAX_US, RATELIMIT_MIN_US, SchedulerId};
use serde_json::{Value, json};

use crate::cli::SchedCredit2;
use crate::failure::{Failure, Outcome};
use crate::output::{line, print_json, shown};
use crate::session::Session;

/// A domain's line.
struct Row {
    name: String,
    domid: u16,
    params: SchedParams,
}

pub(super) fn run(options: &SchedCredit2) -> Outcome {
    let changes = options.weight.is_some() || options.cap.is_some();
    if options.cpupool.is_some() && (options.domain.is_some() || changes) {
        return Err(Failure::new("Specifying a cpupool is not allowed with other options."));
    }
    if options.domain.is_none() && changes {
        return Err(Failure::new("Must specify a domain."));
    }
    let weight = options.weight.as_deref().map(|text| number("weight", text)).transpose()?;
    let cap = options.cap.as_deref().map(|text| number("cap", text)).transpose()?;
    let limit = options.ratelimit.as_deref().map(|text| number("rate limit", text)).transpose()?;
    let session = Session::open()?;
    match (&options.domain, options.schedparam) {
        (_, true) => pool_parameters(&session, options, limit),
        (None, false) => all(&session, options),
        (Some(domain), false) if changes => set(&session, session.find(domain)?, weight, cap),
        (Some(domain), false) => {
            let domid = session.find(domain)?;
            table(&[row(&session, domid)?], options.output.json)
        }
    }
}

fn number(what: &str, text: &str) -> Outcome<i64> {
    text.parse().map_err(|_| Failure::new(format!("{what}: `{text}' is no number")))
}

/// `-s`: shows the pool's rate limit, or sets it.
fn pool_parameters(session: &Session, options: &SchedCredit2, limit: Option<i64>) -> Outcome {
    let pool = match &options.cpupool {
        Some(wanted) => find_pool(session, wanted)?.id,
        None => 0,
    };
    let Some(limit) = limit else { return show_pool(session, pool, options.output.json) };
    let limit = u32::try_from(limit).ok();
    let limit = limit.filter(|limit| *limit == 0 || (RATELIMIT_MIN_US..=RATELIMIT_MAX_US).contains(limit));
    let Some(limit) = limit else {
        return Err(Failure::new(format!(
            "the rate limit is out of range: it is 0, or {RATELIMIT_MIN_US} to {RATELIMIT_MAX_US} microseconds"
        )));
    };
    Ok(session.handle.set_rate_limit(pool, limit)?)
}

fn show_pool(session: &Session, pool: u32, as_json: bool) -> Outcome {
    let (name, limit) = (pool_name(session, pool)?, session.handle.rate_limit(pool)?);
    if as_json {
        return print_json(&json!({ "cpupool": name, "ratelimit_us": limit }));
    }
    line(format_args!("Cpupool {name}: ratelimit={limit}us"))
}

/// The name of a CPU pool.
fn pool_name<T: Trap>(session: &Session<T>, pool: u32) -> Outcome<String> {
    let name = session.store.read(Tx::NONE, &format!("/local/pool/{pool}/name"))?;
    Ok(name.unwrap_or_else(|| format!("Pool-{pool}")))
}

fn find_pool(session: &Session, wanted: &str) -> Outcome<CpuPool> {
    for pool in session.handle.cpu_pools()? {
        if wanted.parse() == Ok(pool.id) || pool_name(session, pool.id)? == wanted {
            return Ok(pool);
        }
    }
    Err(Failure::new(format!("unknown cpupool '{wanted}'")))
}

/// All domains of the pools that have this scheduler, or of one of them.
fn all(session: &Session, options: &SchedCredit2) -> Outcome {
    let pools = match &options.cpupool {
        Some(wanted) => vec![find_pool(session, wanted)?],
        None => session.handle.cpu_pools()?,
    };
    let domains = session.handle.domains()?;
    let mut described = Vec::new();
    for pool in pools.iter().filter(|pool| pool.scheduler == Ok(SchedulerId::Credit2)) {
        let members = domains.iter().filter(|info| info.cpu_pool == pool.id);
        let rows = members.map(|info| row(session, info.domid)).collect::<Outcome<Vec<_>>>()?;
        if options.output.json {
            let (name, limit) = (pool_name(session, pool.id)?, session.handle.rate_limit(pool.id)?);
            described.push(json!({ "cpupool": name, "ratelimit_us": limit, "domains": describe(&rows) }));
        } else {
            show_pool(session, pool.id, false)?;
            table(&rows, false)?;
        }
    }
    if options.output.json { print_json(&Value::Array(described)) } else { Ok(()) }
}

fn row(session: &Session, domid: u16) -> Outcome<Row> {
    let params = session.handle.domain_scheduling(domid, SchedulerId::Credit2)?;
    Ok(Row { name: session.name(domid)?, domid, params })
}

fn table(rows: &[Row], as_json: bool) -> Outcome {
    if as_json {
        return print_json(&describe(rows));
    }
    line(format_args!("{:<33} {:>4} {:>6} {:>4}", "Name", "ID", "Weight", "Cap"))?;
    rows.iter().try_for_each(|Row { name, domid, params: SchedParams { weight, cap } }| {
        line(format_args!("{:<33} {domid:4} {weight:6} {cap:4}", shown(name)))
    })
}

fn describe(rows: &[Row]) -> Value {
    let of_row = |Row { name, domid, params: SchedParams { weight, cap } }: &Row| json!({ "name": name, "domid": domid, "weight": weight, "cap": cap });
    rows.iter().map(of_row).collect()
}

/// Sets what is given within libxl's ranges; -1 leaves it, as there.
fn set(session: &Session, domid: u16, weight: Option<i64>, cap: Option<i64>) -> Outcome {
    let info = session.handle.domain_info(domid)?;
    let info = info.ok_or_else(|| Failure::new(format!("Domain {domid} does not exist.")))?;
    let present = session.handle.domain_scheduling(domid, SchedulerId::Credit2)?;
    let params = merge(present, info.max_vcpus, weight, cap).map_err(Failure::new)?;
    Ok(session.handle.domain_set_scheduling(domid, SchedulerId::Credit2, params)?)
}

fn merge(present: SchedParams, vcpus: u32, weight: Option<i64>, cap: Option<i64>) -> Result<SchedParams, String> {
    let given = |value: Option<i64>| value.filter(|value| *value != -1);
    let weight = given(weight).map_or(Ok(present.weight), |weight| {
        u16::try_from(weight)
            .ok()
            .filter(|weight| *weight != 0)
            .ok_or_else(|| "Cpu weight out of range, valid values are within range from 1 to 65535".to_string())
    })?;
    let most = u64::from(vcpus) * 100;
    let cap = given(cap).map_or(Ok(present.cap), |cap| {
        u16::try_from(cap).ok().filter(|cap| u64::from(*cap) <= most).ok_or_else(|| {
            format!("Cpu cap out of range, valid range is from 0 to {most} for specified number of vcpus")
        })
    })?;
    Ok(SchedParams { weight, cap })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_libxls() {
        let present = SchedParams { weight: 256, cap: 50 };
        let set = |weight, cap| merge(present, 2, weight, cap).map(|params| (params.weight, params.cap)).ok();
        assert_eq!(set(None, None), Some((256, 50)));
        assert_eq!(set(Some(65535), Some(0)), Some((65535, 0)));
        assert_eq!(set(Some(-1), Some(-1)), Some((256, 50)));
        assert_eq!(set(None, Some(200)), Some((256, 200)));
        for bad in [0, -2, 65536] {
            assert_eq!(set(Some(bad), None), None, "{bad}");
        }
        for bad in [201, -2] {
            assert_eq!(set(None, Some(bad)), None, "{bad}");
        }
    }
}

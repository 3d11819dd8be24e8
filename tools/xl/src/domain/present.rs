//! What a domain is like now: its stored configuration, with what has changed since it was made.
//!
//! `xl list -l` shows it, and a restart builds the domain from it.

use libxc::trap::Trap;
use libxc::verbs::domain::DomainInfo;
use libxc::xenstore::Tx;
use serde_json::{Value, json};

use crate::failure::Outcome;
use crate::json;
use crate::session::Session;

/// The stored configuration with what can change put to its present value.
pub fn present<T: Trap>(session: &Session<T>, info: &DomainInfo, mut config: Value) -> Outcome<Value> {
    let domain = format!("/local/domain/{}", info.domid);
    let number = |node: &str| -> Outcome<Option<u64>> {
        Ok(session.store.read(Tx::NONE, &format!("{domain}/{node}"))?.and_then(|text| text.parse().ok()))
    };
    let stored_list = config["b_info"].get("avail_vcpus").is_some();
    let mut put = |part: &str, key: &str, value: Option<Value>| {
        if let (Some(object), Some(value)) = (config.get_mut(part).and_then(Value::as_object_mut), value) {
            object.insert(key.into(), value);
        }
    };
    put("c_info", "name", Some(session.name(info.domid)?.into()));
    put("b_info", "max_memkb", number("memory/static-max")?.map(Value::from));
    let target = number("memory/target")?.map(|kib| kib + number("memory/videoram").ok().flatten().unwrap_or(0));
    put("b_info", "target_memkb", target.map(Value::from));
    let mut online = Vec::new();
    for vcpu in 0..info.max_vcpus {
        let state = session.store.read(Tx::NONE, &format!("{domain}/cpu/{vcpu}/availability"))?;
        if state.as_deref() == Some("online") {
            online.push(vcpu);
        }
    }
    // Without `vcpus=` the list is not stored, and means vCPU 0 alone.
    let worth_saying = !online.is_empty() && (stored_list || online != [0]);
    put("b_info", "avail_vcpus", worth_saying.then(|| json!(online)));
    if let Ok(scheduler) = session.handle.scheduler()?
        && let Ok(params) = session.handle.domain_scheduling(info.domid, scheduler)
    {
        let name = scheduler.name().to_lowercase();
        put("b_info", "sched_params", Some(json!({ "sched": name, "weight": params.weight, "cap": params.cap })));
    }
    Ok(json::in_order(config))
}

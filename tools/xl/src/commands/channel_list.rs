//! `xl channel-list`: consoles that have a name, beside a domain's first one. This toolstack makes none; Xen's may have.

use libxc::xenstore::Tx;
use serde_json::{Value, json};

use crate::cli::Domains;
use crate::failure::Outcome;
use crate::output::{line, print_json};
use crate::session::Session;

pub(super) fn run(options: &Domains) -> Outcome {
    let session = Session::open()?;
    let mut described = Vec::new();
    if !options.output.json {
        line(format_args!(
            "{:<3} {:<2} {:<5} {:<6} {:>8} {:<10} {:<30}",
            "Idx", "BE", "state", "evt-ch", "ring-ref", "connection", ""
        ))?;
    }
    for domain in &options.domains {
        let domid = session.find(domain)?;
        let list = format!("/libxl/{domid}/device/console");
        for number in session.store.children(Tx::NONE, &list)?.unwrap_or_default() {
            let read = |path: String| session.store.read(Tx::NONE, &path);
            let device = format!("{list}/{number}");
            let (Some(_), Some(connection)) = (read(format!("{device}/name"))?, read(format!("{device}/connection"))?)
            else {
                continue;
            };
            let front = format!("/local/domain/{domid}/device/console/{number}");
            let of_front = |node: &str| -> Outcome<String> {
                Ok(read(format!("{front}/{node}"))?.filter(|text| !text.is_empty()).unwrap_or_else(|| "-1".into()))
            };
            let (backend, state) = (of_front("backend-id")?, of_front("state")?);
            let (port, ring) = (of_front("port")?, of_front("ring-ref")?);
            let place =
                if connection == "pty" { read(format!("{front}/tty"))?.unwrap_or_default() } else { String::new() };
            if options.output.json {
                let number_of = |text: &str| text.parse::<u32>().ok();
                described.push(json!({
                    "domid": domid, "number": number_of(&number), "backend_domid": number_of(&backend),
                    "state": number_of(&state), "event_channel": number_of(&port), "ring_ref": number_of(&ring),
                    "connection": connection, "tty": place,
                }));
                continue;
            }
            line(format_args!(
                "{number:<3} {backend:<2} {state:<5} {port:<6} {ring:<8} {connection:<10} {place:<30} "
            ))?;
        }
    }
    if options.output.json { print_json(&Value::Array(described)) } else { Ok(()) }
}

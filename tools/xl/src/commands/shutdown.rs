//! `xl shutdown` and `xl reboot`: the guest is asked by its xenstore node `control/shutdown`, which it empties when it has
//! understood.

use std::time::{Duration, Instant};

use libxc::xenstore::Tx;
use public_abi::domctl_vcpu::Trigger;
use public_abi::hvm_params::HvmParam;

use crate::cli::Shutdown;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::session::Session;

/// What the guest is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Poweroff,
    Reboot,
}

/// How long a guest may take to answer, as in libxl.
const PATIENCE: Duration = Duration::from_secs(60);
/// The event of a domain that stopped or went.
const RELEASE: &str = "@releaseDomain";

pub(super) fn run(options: &Shutdown, request: Request) -> Outcome {
    if options.domain.is_none() && !options.all {
        return Err(Failure::new("You must specify -a or a domain id."));
    }
    let session = Session::open()?;
    let domains = match &options.domain {
        Some(domain) => vec![session.info(domain)?.domid],
        None => session.handle.domains()?.iter().map(|info| info.domid).filter(|&domid| domid != 0).collect(),
    };
    let mut failures = Vec::new();
    let mut asked = Vec::new();
    for domid in domains {
        match ask(&session, domid, request, options.fallback) {
            Ok(()) => asked.push(domid),
            Err(failure) => failures.push(format!("domain {domid}: {failure}")),
        }
    }
    if options.wait > 0 {
        wait(&session, asked, options.wait > 1)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::new(failures.join("; "))) }
}

fn ask(session: &Session, domid: u16, request: Request, fallback: bool) -> Outcome {
    let (word, doing, trigger) = match request {
        Request::Poweroff => ("poweroff", "Shutting down", Trigger::Power),
        Request::Reboot => ("reboot", "Rebooting", Trigger::Reset),
    };
    if has_stopped(session, domid)? {
        note(format_args!("Domain {domid} has shut down already"));
        return Ok(());
    }
    note(format_args!("{doing} domain {domid}"));
    if !listens(session, domid)? {
        if fallback {
            note(format_args!("PV control interface not available: sending ACPI {word} event."));
            return Ok(session.handle.send_trigger(domid, trigger, 0)?);
        }
        return Err(Failure::new("PV control interface not available; use -F to fall back to an ACPI event"));
    }
    let path = format!("/local/domain/{domid}/control/shutdown");
    session.store.write(Tx::NONE, &path, word)?;
    wait_for_answer(session, domid, &path)
}

/// Whether the guest has drivers that watch its control nodes: always, but for HVM guests without any.
fn listens(session: &Session, domid: u16) -> Outcome<bool> {
    if session.guest_type(domid)? != "hvm" {
        return Ok(true);
    }
    Ok(session.handle.param_value(domid, HvmParam::CallbackIrq)? != 0)
}

/// Whether a domain has shut down, is being destroyed, or is gone.
fn has_stopped(session: &Session, domid: u16) -> Outcome<bool> {
    let info = session.handle.domain_info(domid)?;
    Ok(info.is_none_or(|info| info.is_dying() || info.shutdown().is_some()))
}

/// Waits until the guest has emptied the node, or has stopped.
fn wait_for_answer(session: &Session, domid: u16, path: &str) -> Outcome {
    const TOKEN: &str = "shutdown-answer";
    let store = &session.store;
    store.watch(path, TOKEN)?;
    store.watch(RELEASE, TOKEN)?;
    let deadline = Instant::now() + PATIENCE;
    while store.read(Tx::NONE, path)?.is_some_and(|word| !word.is_empty()) && !has_stopped(session, domid)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if store.next_event(Some(left))?.is_none() {
            let seconds = PATIENCE.as_secs();
            return Err(Failure::new(format!("the guest did not answer in {seconds} s; is its system up?")));
        }
    }
    store.unwatch(RELEASE, TOKEN)?;
    Ok(store.unwatch(path, TOKEN)?)
}

/// Waits until all domains have shut down, or, with `destroyed`, are gone.
fn wait(session: &Session, mut domains: Vec<u16>, destroyed: bool) -> Outcome {
    note(format_args!("Waiting for {} domains", domains.len()));
    session.store.watch(RELEASE, "shutdown-wait")?;
    loop {
        let mut left = Vec::new();
        for domid in domains {
            match session.handle.domain_info(domid)? {
                Some(info) if !info.is_dying() => match info.shutdown() {
                    Some(_) if !destroyed => {
                        note(format_args!("Domain {domid} has been shut down, reason code {}", info.shutdown_code));
                    }
                    _ => left.push(domid),
                },
                _ => note(format_args!("Domain {domid} has been destroyed")),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        domains = left;
        session.store.next_event(None)?;
    }
}

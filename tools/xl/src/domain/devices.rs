//! Removing a domain's devices: each backend is told to close, waited for, and its nodes go.
//!
//! The list of devices is libxl's: `/libxl/DOMID/device/KIND/DEVID/backend` holds the backend's path. The console's
//! backend is xenconsoled, which has no states to go through.

use std::time::{Duration, Instant};

use libxc::xenstore::Tx;

use crate::failure::Outcome;
use crate::output::note;
use crate::session::Session;

/// How long a backend may take to close, as in libxl.
const PATIENCE: Duration = Duration::from_secs(10);
/// States of a backend (public/io/xenbus.h).
const CLOSING: &str = "5";
const CLOSED: &str = "6";

/// Removes all devices of a domain. A backend that does not close in time is left to itself with a warning: the domain
/// goes in any case.
pub(super) fn remove_all(session: &Session, domid: u16) -> Outcome {
    let store = &session.store;
    let list = format!("/libxl/{domid}/device");
    let children = |path: &str| store.children(Tx::NONE, path).map(Option::unwrap_or_default);
    for kind in children(&list)? {
        for devid in children(&format!("{list}/{kind}"))? {
            let device = format!("{list}/{kind}/{devid}");
            let backend = store.read(Tx::NONE, &format!("{device}/backend"))?;
            let Some(backend) = backend.filter(|path| path.starts_with("/local/domain/")) else { continue };
            if kind != "console" {
                close(session, &backend)?;
            }
            store.transaction(|tx| store.remove_with_empty_parents(tx, &backend))?;
        }
    }
    Ok(())
}

/// Asks a backend to close and waits for it.
fn close(session: &Session, backend: &str) -> Outcome {
    let store = &session.store;
    let state = format!("{backend}/state");
    let closed = || -> Outcome<bool> { Ok(store.read(Tx::NONE, &state)?.is_none_or(|state| state == CLOSED)) };
    if closed()? {
        return Ok(());
    }
    store.watch(&state, "device-close")?;
    store.write(Tx::NONE, &format!("{backend}/online"), "0")?;
    store.write(Tx::NONE, &state, CLOSING)?;
    let deadline = Instant::now() + PATIENCE;
    while !closed()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if store.next_event(Some(left))?.is_none() {
            note(format_args!("xl: warning: the backend {backend} did not close in {} s", PATIENCE.as_secs()));
            break;
        }
    }
    Ok(store.unwatch(&state, "device-close")?)
}

//! Destroying a domain with all that toolstacks keep about it: devices, nodes, user data, and the domain itself.
//!
//! The order is libxl's (`libxl__destroy_domid`): when the domain goes, nothing must point to it any more, because its id
//! may be given to another one.

use libxc::device::host::Host;
use libxc::trap::Trap;
use libxc::verbs::domain::DomainInfo;
use libxc::xenstore::Tx;

use super::machine::Machine;
use super::{devices, history};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// Destroys a domain, whichever toolstack made it.
pub fn destroy<T: Trap, H: Host>(session: &Session<T>, machine: &Machine<H>, domid: u16) -> Outcome {
    let info = session.handle.domain_info(domid)?;
    let Some(info) = info else { return Err(Failure::new(format!("there is no domain {domid}"))) };
    if !info.is_dying() {
        unless_gone(session, &info, session.handle.domain_pause(domid))?;
    }
    devices::remove_all(&devices::to_remove(session, &machine.host), domid)?;
    remove_nodes(session, domid)?;
    machine.user_data(domid, &info.uuid).remove_all()?;
    history::note(machine.run(), domid)?;
    unless_gone(session, &info, session.handle.domain_destroy(domid))
}

/// Somebody else, such as the domain's monitor, may destroy it at the same time: that it is gone is what was wanted.
fn unless_gone<T: Trap>(session: &Session<T>, info: &DomainInfo, done: libxc::error::Result<()>) -> Outcome {
    match done {
        Err(error) if error.is_absent() => {
            let now = session.handle.domain_info(info.domid)?;
            if now.is_some_and(|now| now.uuid == info.uuid) { Err(error.into()) } else { Ok(()) }
        }
        other => Ok(other?),
    }
}

fn remove_nodes<T: Trap>(session: &Session<T>, domid: u16) -> Outcome {
    let store = &session.store;
    let domain = format!("/local/domain/{domid}");
    store.transaction(|tx| {
        if let Some(vm) = store.read(tx, &format!("{domain}/vm"))?.filter(|vm| vm.starts_with("/vm/")) {
            store.remove_with_empty_parents(tx, &vm)?;
        }
        store.remove(tx, &domain)?;
        store.remove_with_empty_parents(tx, &format!("/libxl/{domid}"))
    })?;
    debug_assert_eq!(store.read(Tx::NONE, &domain).ok().flatten(), None);
    Ok(())
}

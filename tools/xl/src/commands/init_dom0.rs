//! `xl init-dom0`: what a toolstack expects to find about the control domain itself, set up once after each boot.
//!
//! It stands for Xen's program xen-init-dom0: nodes in xenstore, and a configuration that holds little more than the name. What is
//! there already stays.

use std::fs;
use std::io::ErrorKind;

use libxc::xenstore::Tx;
use serde_json::json;

use crate::domain::history;
use crate::domain::machine::Machine;
use crate::failure::{Failure, Outcome};
use crate::json;
use crate::session::Session;
use crate::userdata::CONFIGURATION;

/// Where ids of past domains and, on a host without Xen's tools, all user data are.
const FOLDERS: [&str; 2] = ["/run/xen", "/var/lib/xen"];

pub(super) fn run() -> Outcome {
    for folder in FOLDERS {
        fs::create_dir_all(folder).map_err(|error| Failure::new(format!("making {folder}: {error}")))?;
    }
    let session = Session::open()?;
    let store = &session.store;
    for pool in session.handle.cpu_pools()? {
        let path = format!("/local/pool/{}/name", pool.id);
        if store.read(Tx::NONE, &path)?.is_none() {
            store.write(Tx::NONE, &path, &format!("Pool-{}", pool.id))?;
        }
    }
    if store.read(Tx::NONE, "/local/domain/0/domid")?.is_some_and(|domid| domid == "0") {
        return Ok(());
    }
    store.write(Tx::NONE, "/local/domain/0/domid", "0")?;
    store.write(Tx::NONE, "/local/domain/0/name", "Domain-0")?;
    let machine = Machine::this();
    // Of the boot before, where /run outlives one.
    match history::clear(machine.run()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::new(format!("past domains: {error}")));
        }
        _ => {}
    }
    let info = session.info("0")?;
    let stub = json!({ "c_info": { "type": "pvh", "name": "Domain-0" }, "b_info": { "type.pvh": {} } });
    // libxl stores the terminating zero, too.
    let mut text = json::to_text(&json::in_order(stub)).into_bytes();
    text.push(0);
    machine.user_data(info.domid, &info.uuid).store(CONFIGURATION, &text)
}

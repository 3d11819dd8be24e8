//! Removing a device: the guest is asked to let go, the backend waited for, and what this machine had made for it is
//! given back.

use super::host::Host;
use super::list::Entry;
use super::medium::own_script;
use super::nodes::{self, CLOSED, CLOSING};
use super::{DeviceError, Devices};
use crate::error::{Error, Result};
use crate::xenstore::Tx;

/// What happens when the guest does not let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// The device stays.
    Never,
    /// It is taken from the guest.
    IfNeeded,
    /// It is taken without asking.
    AtOnce,
}

impl<H: Host> Devices<'_, H> {
    /// Removes a device. Whether its backend ended in order.
    ///
    /// # Errors
    /// The guest keeps the device, or something of it could not be given back; nodes stay then.
    pub fn remove(&self, entry: &Entry, force: Force) -> std::result::Result<bool, DeviceError> {
        let failed = |step| {
            let device = format!("{} {} of domain {}", entry.kind, entry.number, entry.domain);
            move |error| DeviceError { device, step, error, left_behind: None }
        };
        let closed = self.let_go(entry, force).map_err(failed("waiting for its backend to close"))?;
        self.give_back(entry).map_err(failed("giving back what served it"))?;
        let paths: &[&str] = &[&entry.record, &entry.frontend, &entry.backend_path];
        nodes::remove(self.store, paths).map_err(failed("removing its nodes"))?;
        Ok(closed)
    }

    fn let_go(&self, entry: &Entry, force: Force) -> Result<bool> {
        let taken = (force == Force::AtOnce).then_some(entry.frontend.as_str());
        if self.close(&entry.backend_path, taken)? {
            return Ok(true);
        }
        match force {
            Force::Never => Err(Error::Protocol(format!(
                "the guest did not let go in {} s; is it in use there? (--force takes it away all the same)",
                self.patience.as_secs()
            ))),
            Force::AtOnce => Ok(false),
            Force::IfNeeded => self.close(&entry.backend_path, Some(&entry.frontend)),
        }
    }

    /// Asks a backend to close and waits for it; whether it did. With `frontend` the guest's half is taken away.
    ///
    /// A backend whose other half is gone ends, and says so only if it is asked to close by then: Linux leaves its state alone
    /// otherwise. So both happen at once.
    pub(super) fn close(&self, back: &str, frontend: Option<&str>) -> Result<bool> {
        let (store, state) = (self.store, format!("{back}/state"));
        let is_closed = |state: Option<&str>| state.is_none_or(|state| state == CLOSED);
        let present = store.transaction(|tx| {
            frontend.map_or(Ok(()), |frontend| store.remove(tx, frontend))?;
            let present = store.read(tx, &state)?;
            if present.is_some() {
                store.write(tx, &format!("{back}/online"), "0")?;
            }
            if !is_closed(present.as_deref()) {
                store.write(tx, &state, CLOSING)?;
            }
            Ok(present)
        })?;
        if is_closed(present.as_deref()) {
            return Ok(true);
        }
        self.wait_until(&state, is_closed)
    }

    /// Gives back what this machine has made for a device. Another domain's nodes are not believed.
    fn give_back(&self, entry: &Entry) -> Result<()> {
        let Some(device) = entry.device().filter(|_| entry.backend == 0) else { return Ok(()) };
        let read = |node: &str| self.store.read(Tx::NONE, &format!("{}/{node}", entry.backend_path));
        if let Some(script) = read("script")?.filter(|script| !script.is_empty())
            && own_script(Some(&script), &["block", "vif-bridge", "vif-route"]).is_none()
        {
            return self.run_script(&script, &entry.backend_path, &device, false);
        }
        match read("node")? {
            Some(made) if made.starts_with("/dev/") => self.host.detach(&made, &read("params")?.unwrap_or_default()),
            _ => Ok(()),
        }
    }
}

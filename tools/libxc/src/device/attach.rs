//! Adding a device: nodes, the backend's readiness, and what this machine does for it.
//!
//! A step that fails takes back the ones before it, and the error names device, step and reason. The guest's half connects
//! when the guest's driver gets to it, which nobody waits for.

use std::time::Instant;

use super::host::Host;
use super::nodes::{self, CLOSED, CLOSING, CONNECTED, Disk, INIT_WAIT, INITIALISING, Nodes, Share, Vif, mac_text};
use super::{Device, DeviceError, Devices, Kind, link, medium};
use crate::error::{Error, Result};
use crate::xenstore::Tx;

/// Steps, for messages.
const CHECKING: &str = "checking it";
const WRITING: &str = "writing its nodes";
const WAITING: &str = "waiting for its backend";
const CONNECTING: &str = "connecting it to this machine";

type Added<R = ()> = std::result::Result<R, DeviceError>;

impl<H: Host> Devices<'_, H> {
    /// Finds out what makes a block device impossible, before there is a domain for it.
    ///
    /// # Errors
    /// What that is.
    pub fn check_disk(&self, backend: u16, disk: &Disk) -> Added {
        let check = || disk.device(0, backend).and_then(|device| medium::decide(self, disk, &device));
        check().map(drop).map_err(|error| fail(&format!("disk {}", disk.vdev), CHECKING, error))
    }

    /// The same for a network interface.
    ///
    /// # Errors
    /// What that is.
    pub fn check_vif(&self, backend: u16, vif: &Vif) -> Added {
        let device = Device { kind: Kind::Network, domain: 0, number: 0, backend };
        let name = format!("vif {}", mac_text(vif.mac));
        link::decide(self, vif, &device).map(drop).map_err(|error| fail(&name, CHECKING, error))
    }

    /// Adds a block device.
    ///
    /// # Errors
    /// What failed, in which step; nothing of the device is left, unless the error says so.
    pub fn add_disk(&self, domain: u16, backend: u16, disk: &Disk) -> Added<Device> {
        let name = format!("disk {} of domain {domain}", disk.vdev);
        let failed = |error| fail(&name, CHECKING, error);
        let device = disk.device(domain, backend).map_err(failed)?;
        let serving = medium::decide(self, disk, &device).map_err(failed)?;
        self.add(&name, &device, &disk.nodes(&device), || medium::connect(self, disk, &device, &serving))?;
        Ok(device)
    }

    /// Adds a network interface.
    ///
    /// # Errors
    /// As [`Devices::add_disk`].
    pub fn add_vif(&self, device: &Device, vif: &Vif) -> Added {
        let name = format!("vif {} ({}) of domain {}", device.number, mac_text(vif.mac), device.domain);
        let serving = link::decide(self, vif, device).map_err(|error| fail(&name, CHECKING, error))?;
        self.add(&name, device, &vif.nodes(device), || link::connect(self, vif, device, &serving))
    }

    /// Adds a share. Its backend is a program that somebody else starts, so nobody waits for it.
    ///
    /// # Errors
    /// As [`Devices::add_disk`].
    pub fn add_share(&self, device: &Device, share: &Share) -> Added {
        let name = format!("9pfs share {} of domain {}", share.tag, device.domain);
        nodes::write(self.store, device, &share.nodes(device)).map_err(|error| fail(&name, WRITING, error))
    }

    fn add(&self, name: &str, device: &Device, list: &Nodes, connect: impl FnOnce() -> Result<()>) -> Added {
        nodes::write(self.store, device, list).map_err(|error| fail(name, WRITING, error))?;
        let done = match self.wait_for_backend(device) {
            Ok(()) => connect().map_err(|error| (CONNECTING, error)),
            Err(error) => Err((WAITING, error)),
        };
        done.map_err(|(step, error)| {
            let left_behind = self.give_up(device).err();
            DeviceError { device: name.into(), step, error, left_behind }
        })
    }

    /// Waits until the backend has seen the device.
    fn wait_for_backend(&self, device: &Device) -> Result<()> {
        let path = format!("{}/state", device.backend_path());
        let mut last = None;
        let ready = self.wait_until(&path, |state| {
            last = state.map(String::from);
            matches!(state, Some(INIT_WAIT | CONNECTED | CLOSING | CLOSED) | None)
        })?;
        let reported = self.reported(device)?;
        match last.as_deref() {
            Some(INIT_WAIT | CONNECTED) if ready => Ok(()),
            Some(INITIALISING) if reported.is_none() => {
                let module = if device.kind == Kind::Block { "xen-blkback" } else { "xen-netback" };
                let seconds = self.patience.as_secs();
                Err(Error::Protocol(format!(
                    "no backend of domain {} took it in {seconds} s; is the module {module} loaded there?",
                    device.backend
                )))
            }
            state => Err(Error::Protocol(format!(
                "the backend is in state {}{}",
                state.unwrap_or("none"),
                reported.map(|text| format!(": {text}")).unwrap_or_default()
            ))),
        }
    }

    /// What a backend of Linux says about a device that it could not serve.
    fn reported(&self, device: &Device) -> Result<Option<String>> {
        let Device { kind, domain, number, backend } = device;
        let path = format!("/local/domain/{backend}/error/backend/{}/{domain}/{number}/error", kind.name());
        self.store.read(Tx::NONE, &path)
    }

    /// Waits until the toolstack of another domain has done its part.
    pub(super) fn wait_for_other_toolstack(&self, device: &Device) -> Result<()> {
        let path = format!("{}/hotplug-status", device.backend_path());
        let mut last = None;
        self.wait_until(&path, |status| {
            last = status.map(String::from);
            status.is_some_and(|status| !status.is_empty())
        })?;
        match last.as_deref() {
            Some("connected") => Ok(()),
            _ => Err(Error::Protocol(format!(
                "domain {} did not connect it in {} s (hotplug-status {last:?}); is `xl devd' running there?",
                device.backend,
                self.patience.as_secs()
            ))),
        }
    }

    /// Runs a hotplug script as libxl does.
    pub(super) fn run_script(&self, script: &str, back: &str, device: &Device, add: bool) -> Result<()> {
        let mut environment: Vec<(String, String)> = vec![
            ("script".into(), script.into()),
            ("XENBUS_TYPE".into(), device.kind.name().into()),
            ("XENBUS_PATH".into(), format!("backend/{}/{}/{}", device.kind.name(), device.domain, device.number)),
            ("XENBUS_BASE_PATH".into(), "backend".into()),
        ];
        let arguments: &[&str] = match (device.kind, add) {
            (Kind::Network, true) => &["online", "type_if=vif"],
            (Kind::Network, false) => &["offline", "type_if=vif"],
            (_, true) => &["add"],
            (_, false) => &["remove"],
        };
        if device.kind == Kind::Network {
            let gateway = self.store.read(Tx::NONE, &format!("{back}/gatewaydev"))?.unwrap_or_default();
            environment.push(("netdev".into(), gateway));
            environment.push(("vif".into(), format!("vif{}.{}", device.domain, device.number)));
        }
        let ran = self.host.run_script(script, arguments, &environment);
        let complaint = self.store.read(Tx::NONE, &format!("{back}/hotplug-error"))?.filter(|text| !text.is_empty());
        match (ran, complaint) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(_)) if !add => Ok(()),
            (Err(error), None) => Err(error),
            (_, Some(complaint)) => Err(Error::Protocol(format!("{script}: {complaint}"))),
        }
    }

    /// Takes a device back whose addition failed.
    fn give_up(&self, device: &Device) -> Result<()> {
        let (front, back, record) = (device.frontend_path(), device.backend_path(), device.record_path());
        let state = self.store.read(Tx::NONE, &format!("{back}/state"))?;
        let mut closed = Ok(());
        if state.is_some_and(|state| state != INITIALISING) {
            closed = self.close(&back, Some(&front)).map(|_| ());
        }
        nodes::remove(self.store, &[&record, &front, &back]).and(closed)
    }

    /// Watches a node until `is_done` with its value, or patience ends; whether it was done.
    pub(super) fn wait_until(&self, path: &str, mut is_done: impl FnMut(Option<&str>) -> bool) -> Result<bool> {
        const TOKEN: &str = "device";
        self.store.watch(path, TOKEN)?;
        let deadline = Instant::now() + self.patience;
        let result = loop {
            match self.store.read(Tx::NONE, path) {
                Ok(value) if is_done(value.as_deref()) => break Ok(true),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.store.next_event(Some(left)) {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        let unwatched = self.store.unwatch(path, TOKEN);
        result.and_then(|done| unwatched.map(|()| done))
    }
}

fn fail(device: &str, step: &'static str, error: Error) -> DeviceError {
    DeviceError { device: device.into(), step, error, left_behind: None }
}

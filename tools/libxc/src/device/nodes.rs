//! What a device has in xenstore: its halves' nodes, as libxl 4.17 writes them (libxl_disk.c, libxl_nic.c, libxl_9pfs.c,
//! `libxl__device_generic_add`).

use super::{Device, Kind, vdev};
use crate::error::{Error, Result};
use crate::xenstore::{Client, Permission, Tx};

/// Where scripts are, by the names that mean the toolstack's own handling.
pub const SCRIPTS: &str = "/etc/xen/scripts";
/// States of either half (public/io/xenbus.h).
pub const INITIALISING: &str = "1";
/// The backend waits for the guest, or for the toolstack.
pub const INIT_WAIT: &str = "2";
/// Both halves work.
pub const CONNECTED: &str = "4";
/// One half wants to end.
pub const CLOSING: &str = "5";
/// A half has ended.
pub const CLOSED: &str = "6";
/// What a network interface has without anything said about it.
pub const USUAL_MTU: u32 = 1500;

/// Names and values.
pub type List = Vec<(&'static str, String)>;

/// A device's nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The backend's; the toolstack's record has a copy.
    pub back: List,
    /// The frontend's, which the guest may write.
    pub front: List,
    /// Those of the frontend that it may only read.
    pub front_read_only: List,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// File or device; `None`: an empty drive.
    pub target: Option<String>,
    /// Format of an image that is not the disk itself, in QEMU's words.
    pub image: Option<&'static str>,
    /// Its name in the guest.
    pub vdev: String,
    /// Whether the guest may write.
    pub writable: bool,
    /// Whether it is a CD drive.
    pub cdrom: bool,
    /// Script that serves it; `None`: the toolstack does.
    pub script: Option<String>,
    /// Whether direct I/O is known to be safe.
    pub direct_io_safe: bool,
    /// Whether discards are passed on.
    pub discard: bool,
    /// Whether the guest trusts the backend.
    pub trusted: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// MAC address.
    pub mac: [u8; 6],
    /// Bridge.
    pub bridge: String,
    /// The interface whose address a routed one gets.
    pub gateway: Option<String>,
    /// The guest's addresses.
    pub ip: Option<String>,
    /// Script that serves it; `None`: the toolstack does, bridged.
    pub script: Option<String>,
    /// Name of the interface in the backend domain.
    pub name: Option<String>,
    /// Bytes in an interval, and the interval in microseconds.
    pub rate: Option<(u64, u32)>,
    /// Largest packet, if not the usual one.
    pub mtu: Option<u32>,
    /// Whether the guest trusts the backend.
    pub trusted: bool,
}

/// A share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The name the guest mounts it by.
    pub tag: String,
    /// The directory.
    pub path: String,
    /// How files' owners are kept.
    pub security_model: String,
}

fn flag(on: bool) -> String {
    (if on { "1" } else { "0" }).into()
}

/// A script as a path.
fn script_path(name: &str) -> String {
    if name.starts_with('/') { name.into() } else { format!("{SCRIPTS}/{name}") }
}

/// A MAC address in the usual form.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Disk {
    /// The device that it is.
    ///
    /// # Errors
    /// Its name is none that guests know.
    pub fn device(&self, domain: u16, backend: u16) -> Result<Device> {
        let number = vdev::number(&self.vdev).ok_or_else(|| {
            Error::Protocol(format!("vdev `{}' is none; write xvda, hdc, sdb1 or the like", self.vdev))
        })?;
        Ok(Device { kind: Kind::Block, domain, number, backend })
    }

    /// Its nodes.
    pub fn nodes(&self, device: &Device) -> Nodes {
        let kind = if self.cdrom { "cdrom" } else { "disk" };
        let mut back = vec![
            ("params", self.target.clone().unwrap_or_default()),
            ("script", script_path(self.script.as_deref().unwrap_or("block"))),
            ("frontend-id", device.domain.to_string()),
            ("online", flag(true)),
            ("removable", flag(self.cdrom)),
            ("bootable", flag(true)),
            ("state", INITIALISING.into()),
            ("dev", self.vdev.clone()),
            ("type", "phy".into()),
            ("mode", (if self.writable { "w" } else { "r" }).into()),
            ("device-type", kind.into()),
        ];
        if self.direct_io_safe {
            back.push(("direct-io-safe", flag(true)));
        }
        back.extend([("discard-enable", flag(self.discard)), ("specification", "xen".into())]);
        let front = vec![
            ("backend-id", device.backend.to_string()),
            ("state", INITIALISING.into()),
            ("virtual-device", device.number.to_string()),
            ("device-type", kind.into()),
            ("trusted", flag(self.trusted)),
        ];
        Nodes { back, front, front_read_only: Vec::new() }
    }
}

impl Vif {
    /// Its nodes.
    pub fn nodes(&self, device: &Device) -> Nodes {
        let number = device.number.to_string();
        let mtu = self.mtu.unwrap_or(USUAL_MTU);
        let mut back = vec![
            ("frontend-id", device.domain.to_string()),
            ("online", flag(true)),
            ("state", INITIALISING.into()),
            ("script", script_path(self.script.as_deref().unwrap_or("vif-bridge"))),
        ];
        back.extend(self.name.clone().map(|name| ("vifname", name)));
        back.push(("mac", mac_text(self.mac)));
        back.extend(self.ip.clone().map(|ip| ("ip", ip)));
        back.extend(self.gateway.clone().map(|gateway| ("gatewaydev", gateway)));
        back.extend(self.rate.map(|(bytes, microseconds)| ("rate", format!("{bytes},{microseconds}"))));
        back.extend((mtu != USUAL_MTU).then(|| ("mtu", mtu.to_string())));
        back.extend([
            ("bridge", self.bridge.clone()),
            ("handle", number.clone()),
            ("type", "vif".into()),
            // The backend connects once this says "connected".
            ("hotplug-status", String::new()),
        ]);
        let front = vec![
            ("backend-id", device.backend.to_string()),
            ("state", INITIALISING.into()),
            ("handle", number),
            ("mac", mac_text(self.mac)),
            ("trusted", flag(self.trusted)),
        ];
        Nodes { back, front, front_read_only: vec![("mtu", mtu.to_string())] }
    }
}

impl Share {
    /// Its nodes.
    pub fn nodes(&self, device: &Device) -> Nodes {
        let back = vec![
            ("frontend-id", device.domain.to_string()),
            ("online", flag(true)),
            ("state", INITIALISING.into()),
            ("path", self.path.clone()),
            ("security_model", self.security_model.clone()),
        ];
        let front =
            vec![("backend-id", device.backend.to_string()), ("state", INITIALISING.into()), ("tag", self.tag.clone())];
        Nodes { back, front, front_read_only: Vec::new() }
    }
}

/// Writes a device's nodes in one transaction.
///
/// # Errors
/// There is such a device already, or xenstored refuses.
pub fn write(store: &Client, device: &Device, nodes: &Nodes) -> Result<()> {
    let (front, back, record) = (device.frontend_path(), device.backend_path(), device.record_path());
    let owned = |owner, reader| [Permission { domain: owner, letter: 'n' }, Permission { domain: reader, letter: 'r' }];
    let guests = owned(device.domain, device.backend);
    let backends = owned(device.backend, device.domain);
    let put = |tx: Tx, base: &str, list: &List, permissions: Option<&[Permission]>| -> Result<()> {
        list.iter().try_for_each(|(name, value)| {
            let path = format!("{base}/{name}");
            store.write(tx, &path, value)?;
            permissions.map_or(Ok(()), |permissions| store.set_permissions(tx, &path, permissions))
        })
    };
    store.transaction(|tx| {
        if store.children(tx, &record)?.is_some() {
            return Err(Error::Protocol("the domain has such a device already".into()));
        }
        store.write(tx, &format!("{record}/frontend"), &front)?;
        store.write(tx, &format!("{record}/backend"), &back)?;
        for (path, permissions) in [(&front, &guests), (&back, &backends)] {
            store.remove(tx, path)?;
            store.mkdir(tx, path)?;
            store.set_permissions(tx, path, permissions)?;
        }
        store.write(tx, &format!("{front}/backend"), &back)?;
        put(tx, &front, &nodes.front, Some(&guests))?;
        put(tx, &front, &nodes.front_read_only, Some(&backends))?;
        store.write(tx, &format!("{back}/frontend"), &front)?;
        put(tx, &back, &nodes.back, None)?;
        put(tx, &record, &nodes.back, None)
    })
}

/// Removes a device's nodes, and their parents as far as these are empty.
pub fn remove(store: &Client, paths: &[&str]) -> Result<()> {
    store.transaction(|tx| paths.iter().try_for_each(|path| store.remove_with_empty_parents(tx, path)))
}

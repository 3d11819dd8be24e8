//! How this machine serves a block device: by a device it has, by a loop device over a file, by an image in a format of
//! QEMU's, or by a script.
//!
//! What can be known to fail is found out by [`decide`], before anything is written; [`connect`] does it once the backend
//! waits, by telling it the device's numbers (`physical-device`). `node` remembers a device that was made, for whoever
//! detaches it, as Xen's own script does; but it is written before the device is made, so that a toolstack that is killed
//! leaves none behind that nobody knows of.

use super::dma::Way;
use super::host::{Host, Made, Mounted, Number, What};
use super::nodes::{Disk, SCRIPTS};
use super::{Device, Devices};
use crate::error::{Error, Result};
use crate::xenstore::Tx;

/// How a disk is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// By another domain's toolstack.
    Elsewhere,
    /// By a script.
    Script(String),
    /// By a device of this machine.
    Device(Number),
    /// By a loop device, which copies.
    Loop,
    /// By a device made of an image in this format.
    Image(&'static str),
}

fn refuse<R>(text: impl Into<String>) -> Result<R> {
    Err(Error::Protocol(text.into()))
}

/// The script's name if it is one that the toolstack replaces by its own handling; the first if there is none.
pub(super) fn own_script<'a>(script: Option<&'a str>, names: &[&'a str]) -> Option<&'a str> {
    let Some(script) = script else { return names.first().copied() };
    let name = script.strip_prefix(SCRIPTS).and_then(|rest| rest.strip_prefix('/')).unwrap_or(script);
    names.iter().copied().find(|own| *own == name)
}

/// Decides how a disk is served.
///
/// # Errors
/// It cannot be, or must not be because somebody else uses it.
pub fn decide<H: Host>(devices: &Devices<'_, H>, disk: &Disk, device: &Device) -> Result<Serving> {
    if device.backend != 0 {
        return Ok(Serving::Elsewhere);
    }
    if let Some(script) = &disk.script
        && own_script(Some(script), &["block"]).is_none()
    {
        return Ok(Serving::Script(if script.starts_with('/') {
            script.clone()
        } else {
            format!("{SCRIPTS}/{script}")
        }));
    }
    let Some(target) = &disk.target else {
        return refuse("an empty drive needs a device model, which a PVH guest does not have");
    };
    if !target.starts_with('/') {
        return refuse(format!("{target} is no absolute path"));
    }
    let what = devices.host.inspect(target)?;
    let (serving, number) = match (what, disk.image) {
        (What::Other, _) => return refuse(format!("{target} is neither a file nor a block device")),
        (What::File, Some(format)) => (Serving::Image(format), None),
        (What::Block { number, .. }, Some(format)) => (Serving::Image(format), Some(number)),
        (What::File, None) => (Serving::Loop, None),
        (What::Block { number, dma }, None) => match devices.facts.block(dma) {
            Way::Direct => (Serving::Device(number), Some(number)),
            Way::Copied(_) => (Serving::Loop, Some(number)),
            Way::Refused(reason) => return refuse(reason),
        },
    };
    check_mounts(devices, disk, number)?;
    check_other_domains(devices, disk, target, number)?;
    Ok(serving)
}

/// A file system that two kernels write is soon none any more.
fn check_mounts<H: Host>(devices: &Devices<'_, H>, disk: &Disk, number: Option<Number>) -> Result<()> {
    let Some(number) = number else { return Ok(()) };
    match (devices.host.mounted(number)?, disk.writable) {
        (Mounted::No, _) | (Mounted::ReadOnly, false) => Ok(()),
        (Mounted::ReadOnly, true) => refuse("it is mounted in this domain, so that a guest must not write it"),
        (Mounted::Writable, _) => refuse("it is mounted in this domain for writing"),
    }
}

/// Whether another device has the same target, and one of the two may write.
fn check_other_domains<H: Host>(
    devices: &Devices<'_, H>,
    disk: &Disk,
    target: &str,
    number: Option<Number>,
) -> Result<()> {
    let store = devices.store;
    let root = "/local/domain/0/backend/vbd";
    let children = |path: &str| store.children(Tx::NONE, path).map(Option::unwrap_or_default);
    for domain in children(root)? {
        for device in children(&format!("{root}/{domain}"))? {
            let read = |node: &str| store.read(Tx::NONE, &format!("{root}/{domain}/{device}/{node}"));
            let same_path = read("params")?.is_some_and(|params| params == target);
            let same_device = number.is_some() && read("physical-device")? == number.map(numbers);
            let writes = disk.writable || read("mode")?.as_deref() == Some("w");
            if (same_path || same_device) && writes {
                let name = read("dev")?.unwrap_or(device);
                return refuse(format!("domain {domain} has it as {name}, and one of the two may write"));
            }
        }
    }
    Ok(())
}

/// A device's numbers as the backend wants them.
fn numbers(number: Number) -> String {
    format!("{:x}:{:x}", number.major, number.minor)
}

/// Serves a disk whose backend waits.
///
/// # Errors
/// Whatever fails; nothing that was made is left.
pub fn connect<H: Host>(devices: &Devices<'_, H>, disk: &Disk, device: &Device, serving: &Serving) -> Result<()> {
    let target = disk.target.as_deref().unwrap_or_default();
    let host = devices.host;
    let mut about_to = |path: &str| devices.store.write(Tx::NONE, &format!("{}/node", device.backend_path()), path);
    match serving {
        Serving::Elsewhere => devices.wait_for_other_toolstack(device),
        Serving::Script(script) => devices.run_script(script, &device.backend_path(), device, true),
        Serving::Device(number) => announce(devices, device, target, *number),
        Serving::Loop => {
            let made = host.attach_loop(target, !disk.writable, &mut about_to)?;
            announce_made(devices, device, target, made)
        }
        Serving::Image(format) => {
            let made = host.attach_image(target, format, !disk.writable, &mut about_to)?;
            announce_made(devices, device, target, made)
        }
    }
}

fn announce_made<H: Host>(devices: &Devices<'_, H>, device: &Device, target: &str, made: Made) -> Result<()> {
    announce(devices, device, &made.path, made.number).or_else(|error| {
        // The reason is worth more than whether this worked, too, unless something is left behind.
        devices
            .host
            .detach(&made.path, target)
            .map_err(|second| Error::Protocol(format!("{error}; {} is left behind: {second}", made.path)))?;
        Err(error)
    })
}

/// Tells the backend which device it is.
fn announce<H: Host>(devices: &Devices<'_, H>, device: &Device, path: &str, number: Number) -> Result<()> {
    let (store, back) = (devices.store, device.backend_path());
    store.transaction(|tx| {
        store.write(tx, &format!("{back}/physical-device-path"), path)?;
        store.write(tx, &format!("{back}/physical-device"), &numbers(number))?;
        store.write(tx, &format!("{back}/hotplug-status"), "connected")
    })
}

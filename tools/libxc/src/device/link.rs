//! How this machine serves a network interface: as a port of a bridge, routed, or by a script.
//!
//! The interface itself (`vifDOMAIN.NUMBER`) is the backend's, and goes with it, with all that was done to it.

use std::net::Ipv4Addr;

use super::dma::Way;
use super::host::Host;
use super::medium::own_script;
use super::nodes::{SCRIPTS, Vif};
use super::{Device, Devices};
use crate::error::{Error, Result};
use crate::xenstore::Tx;

/// How an interface is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// By another domain's toolstack.
    Elsewhere,
    /// By a script.
    Script(String),
    /// As a port of the bridge.
    Bridged,
    /// By routes to these addresses.
    Routed(Vec<Ipv4Addr>),
}

fn refuse<R>(text: impl Into<String>) -> Result<R> {
    Err(Error::Protocol(text.into()))
}

/// Decides how an interface is served.
///
/// # Errors
/// It cannot be.
pub fn decide<H: Host>(devices: &Devices<'_, H>, vif: &Vif, device: &Device) -> Result<Serving> {
    if device.backend != 0 {
        return Ok(Serving::Elsewhere);
    }
    let (serving, outward) = match own_script(vif.script.as_deref(), &["vif-bridge", "vif-route"]) {
        Some("vif-route") => (Serving::Routed(addresses(vif.ip.as_deref())?), vif.gateway.as_deref()),
        Some(_) => {
            let bridge = &vif.bridge;
            if !devices.host.is_bridge(bridge)? {
                return refuse(format!(
                    "there is no bridge {bridge}; make one (`ip link add {bridge} type bridge') or name another with bridge="
                ));
            }
            (Serving::Bridged, Some(bridge.as_str()))
        }
        None => {
            let script = vif.script.as_deref().unwrap_or_default();
            let path = if script.starts_with('/') { script.into() } else { format!("{SCRIPTS}/{script}") };
            return Ok(Serving::Script(path));
        }
    };
    let card = match outward {
        Some(interface) => devices.host.card_behind(interface)?,
        None => None,
    };
    match devices.facts.network(card.as_ref()) {
        Way::Direct | Way::Copied(_) => Ok(serving),
        Way::Refused(reason) => refuse(reason),
    }
}

fn addresses(ip: Option<&str>) -> Result<Vec<Ipv4Addr>> {
    let list = ip.unwrap_or_default().split_whitespace().map(|word| {
        let address = word.split_once('/').map_or(word, |(address, _)| address);
        address
            .parse()
            .map_err(|_| Error::Protocol(format!("ip: {word} is no IPv4 address; others need a script= of your own")))
    });
    let list: Vec<Ipv4Addr> = list.collect::<Result<_>>()?;
    if list.is_empty() { refuse("script=vif-route needs the guest's addresses, ip=") } else { Ok(list) }
}

/// Serves an interface whose backend waits.
///
/// # Errors
/// Whatever fails. What was done to the interface goes with it.
pub fn connect<H: Host>(devices: &Devices<'_, H>, vif: &Vif, device: &Device, serving: &Serving) -> Result<()> {
    let host = devices.host;
    match serving {
        Serving::Elsewhere => return devices.wait_for_other_toolstack(device),
        Serving::Script(script) => {
            devices.host.wait_for_interface(&usual_name(device), devices.patience)?;
            return devices.run_script(script, &device.backend_path(), device, true);
        }
        Serving::Bridged => {
            let interface = named(devices, vif, device)?;
            host.set_mtu(&interface, vif.mtu.map_or_else(|| host.mtu(&vif.bridge), Ok)?)?;
            host.join_bridge(&interface, &vif.bridge)?;
            host.set_up(&interface)?;
        }
        Serving::Routed(addresses) => {
            let interface = named(devices, vif, device)?;
            if let Some(mtu) = vif.mtu {
                host.set_mtu(&interface, mtu)?;
            }
            host.prepare_routing(&interface, vif.gateway.as_deref())?;
            host.set_up(&interface)?;
            addresses.iter().try_for_each(|&address| host.add_route(&interface, address))?;
        }
    }
    devices.store.write(Tx::NONE, &format!("{}/hotplug-status", device.backend_path()), "connected")
}

/// The interface, with its name.
fn named<H: Host>(devices: &Devices<'_, H>, vif: &Vif, device: &Device) -> Result<String> {
    let usual = usual_name(device);
    devices.host.wait_for_interface(&usual, devices.patience)?;
    match &vif.name {
        Some(name) if *name != usual => devices.host.rename(&usual, name).map(|()| name.clone()),
        _ => Ok(usual),
    }
}

/// What the backend calls it.
fn usual_name(device: &Device) -> String {
    format!("vif{}.{}", device.domain, device.number)
}

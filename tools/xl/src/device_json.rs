//! Devices in a domain's description: from the configuration to libxl's JSON, and back when a domain is built again with the
//! devices it had in the end.
//!
//! Part of [`crate::json`]; which key stands where is libxl_types.idl's business.

use libxc::device::nodes::mac_text;
use serde_json::Value;

use crate::config::disk::{Backend, Disk, Format};
use crate::config::domain::DomainConfig;
use crate::config::p9::P9;
use crate::config::vif::{Rate, Vif, VifType, parse_mac};
use crate::json::{Object, name_of};

const BACKENDS: [(Backend, &str); 3] =
    [(Backend::Phy, "phy"), (Backend::Qdisk, "qdisk"), (Backend::Standalone, "standalone")];

const FORMATS: [(Format, &str); 6] = [
    (Format::Raw, "raw"),
    (Format::Qcow, "qcow"),
    (Format::Qcow2, "qcow2"),
    (Format::Vhd, "vhd"),
    (Format::Qed, "qed"),
    (Format::Empty, "empty"),
];

const VIF_TYPES: [(VifType, &str); 2] = [(VifType::Vif, "vif"), (VifType::Ioemu, "vif_ioemu")];

fn by_name<T: Copy>(value: &Value, names: &[(T, &str)]) -> Option<T> {
    let name = value.as_str()?;
    names.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// A `libxl_device_disk`.
pub fn disk(disk: &Disk) -> Value {
    let mut object = Object::default();
    object.text("backend_domname", &disk.backend_domain);
    object.set("pdev_path", disk.target.clone().unwrap_or_default());
    object.set("vdev", disk.vdev.clone());
    object.given("backend", disk.backend.map(|backend| name_of(backend, &BACKENDS)));
    object.set("format", name_of(disk.format, &FORMATS));
    object.text("script", &disk.script);
    object.given("removable", disk.cdrom.then_some(1));
    object.given("readwrite", disk.writable.then_some(1));
    object.given("is_cdrom", disk.cdrom.then_some(1));
    object.given("direct_io_safe", disk.direct_io_safe.then_some(true));
    object.flag("discard_enable", disk.discard);
    object.flag("trusted", disk.trusted);
    object.done()
}

/// A `libxl_device_nic`, with its number.
pub fn nic((devid, vif): (usize, &Vif)) -> Value {
    let mut object = Object::default();
    object.text("backend_domname", &vif.backend);
    object.set("devid", devid);
    object.given("mtu", vif.mtu);
    object.text("model", &vif.model);
    object.given("mac", vif.mac.map(mac_text));
    object.text("ip", &vif.ip);
    object.text("bridge", &vif.bridge);
    object.text("ifname", &vif.name);
    object.text("script", &vif.script);
    object.given("nictype", vif.kind.map(|kind| name_of(kind, &VIF_TYPES)));
    object.given("rate_bytes_per_interval", vif.rate.map(|rate| rate.bytes));
    object.given("rate_interval_usecs", vif.rate.map(|rate| rate.interval_us));
    object.text("gatewaydev", &vif.gateway_dev);
    object.flag("trusted", vif.trusted);
    object.done()
}

/// A `libxl_device_p9`.
pub fn p9(share: &P9) -> Value {
    let mut object = Object::default();
    object.text("backend_domname", &share.backend);
    object.set("tag", share.tag.clone());
    object.set("path", share.path.clone());
    object.set("security_model", share.security_model.clone());
    object.done()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

/// One of libxl's three-valued booleans.
fn flag(value: &Value) -> Option<bool> {
    match value.as_str() {
        Some("True") => Some(true),
        Some("False") => Some(false),
        _ => None,
    }
}

/// Reads a `libxl_device_disk`; without a name in the guest it is none.
fn disk_from(value: &Value) -> Option<Disk> {
    Some(Disk {
        target: Some(text(&value["pdev_path"])).filter(|path| !path.is_empty()),
        format: by_name(&value["format"], &FORMATS).unwrap_or(Format::Raw),
        vdev: value["vdev"].as_str()?.into(),
        writable: value["readwrite"].as_u64() == Some(1),
        cdrom: value["is_cdrom"].as_u64() == Some(1),
        backend: by_name(&value["backend"], &BACKENDS),
        backend_domain: text(&value["backend_domname"]),
        script: text(&value["script"]),
        direct_io_safe: value["direct_io_safe"].as_bool() == Some(true),
        discard: flag(&value["discard_enable"]),
        trusted: flag(&value["trusted"]),
    })
}

fn vif_from(value: &Value) -> Vif {
    let rate = value["rate_bytes_per_interval"].as_u64().and_then(|bytes| {
        let interval = u32::try_from(value["rate_interval_usecs"].as_u64()?).ok()?;
        Some(Rate { bytes, interval_us: interval })
    });
    Vif {
        kind: by_name(&value["nictype"], &VIF_TYPES),
        mac: value["mac"].as_str().and_then(|text| parse_mac(text).ok()),
        bridge: text(&value["bridge"]),
        gateway_dev: text(&value["gatewaydev"]),
        ip: text(&value["ip"]),
        script: text(&value["script"]),
        backend: text(&value["backend_domname"]),
        name: text(&value["ifname"]),
        model: text(&value["model"]),
        rate,
        trusted: flag(&value["trusted"]),
        mtu: value["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok()),
    }
}

/// Takes over the devices that a stored description has.
pub fn take_devices(config: &mut DomainConfig, stored: &Value) {
    let list = |key: &str| stored[key].as_array().cloned().unwrap_or_default();
    config.disks = list("disks").iter().filter_map(disk_from).collect();
    config.vifs = list("nics").iter().map(vif_from).collect();
    let share = |value: &Value| P9 {
        tag: text(&value["tag"]),
        path: text(&value["path"]),
        security_model: text(&value["security_model"]),
        backend: text(&value["backend_domname"]),
    };
    config.p9s = list("p9s").iter().map(share).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices_come_back_from_what_is_stored() {
        let disks =
            ["/dev/vg/a,raw,xvda,rw,direct-io-safe", "format=qcow2,vdev=hdc,devtype=cdrom,no-discard,target=/x,y"];
        let vifs =
            ["mac=00:16:3e:00:00:01,bridge=br0,rate=10Mb/s", "type=vif,script=/bin/foo,ip=1.2.3.4,untrusted,mtu=9000"];
        let config = DomainConfig {
            disks: disks.map(|entry| Disk::parse(entry).expect("is well formed")).into(),
            vifs: vifs.map(|entry| Vif::parse(entry).expect("is well formed")).into(),
            p9s: vec![P9::parse("tag=t,path=/srv,security_model=none").expect("is well formed")],
            ..DomainConfig::default()
        };
        let stored = json!({
            "disks": config.disks.iter().map(disk).collect::<Vec<_>>(),
            "nics": config.vifs.iter().enumerate().map(nic).collect::<Vec<_>>(),
            "p9s": config.p9s.iter().map(p9).collect::<Vec<_>>(),
        });
        let mut read = DomainConfig::default();
        take_devices(&mut read, &stored);
        assert_eq!(read, config);
        take_devices(&mut read, &json!({}));
        assert_eq!(read, DomainConfig::default(), "all have been detached");
    }
}

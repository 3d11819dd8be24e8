//! A domain's devices: from the configuration to what libxc adds, all of them when a domain is made or goes, and single ones
//! while it runs.

use libxc::device::detach::Force;
use libxc::device::dma::Facts;
use libxc::device::host::Host;
use libxc::device::list::{Entry, entries, next_number};
use libxc::device::nodes::{self, Share};
use libxc::device::{Device, Devices, Kind, PATIENCE};
use libxc::trap::Trap;
use public_abi::sysctl::PhysCap;
use public_abi::version::Feature;

use crate::config::disk::{Backend, Disk, Format};
use crate::config::domain::DomainConfig;
use crate::config::p9::P9;
use crate::config::vif::{Vif, VifType};
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::session::Session;

/// The bridge without `bridge=`.
const BRIDGE: &str = "xenbr0";

/// What is known of DMA on this machine. `bounces`: the control domain's kernel copies every transfer.
pub fn facts<T: Trap>(session: &Session<T>, bounces: bool) -> Outcome<Facts> {
    let features = session.handle.features()?;
    let has = |feature: Feature| features & feature.bit() != 0;
    let capabilities = PhysCap::from_bits_truncate(session.handle.phys_info()?.capabilities);
    Ok(Facts {
        one_to_one: has(Feature::AutoTranslatedPhysmap) && has(Feature::DirectMapped),
        iommu: capabilities.contains(PhysCap::DIRECTIO),
        bounces,
    })
}

/// What devices are added and removed with on this machine.
pub fn on_this_machine<'a, T: Trap, H: Host>(session: &'a Session<T>, host: &'a H) -> Outcome<Devices<'a, H>> {
    let facts = facts(session, host.bounces()?)?;
    Ok(Devices { store: &session.store, host, facts, patience: PATIENCE })
}

/// The same for removing devices, for which nothing needs to be known of DMA.
pub fn to_remove<'a, T: Trap, H: Host>(session: &'a Session<T>, host: &'a H) -> Devices<'a, H> {
    Devices { store: &session.store, host, facts: Facts::default(), patience: PATIENCE }
}

/// Whether a configuration has none.
pub fn has_none(config: &DomainConfig) -> bool {
    config.disks.is_empty() && config.vifs.is_empty() && config.p9s.is_empty()
}

/// Fills in what a configuration leaves to the toolstack about its interfaces.
///
/// A MAC address is derived from the domain's UUID: as random as that, and the same each time that the domain is built.
pub fn complete(config: &DomainConfig, uuid: &[u8; 16]) -> DomainConfig {
    let mut config = config.clone();
    for (number, vif) in (0..).zip(&mut config.vifs) {
        complete_vif(vif, uuid, number);
    }
    config
}

fn complete_vif(vif: &mut Vif, uuid: &[u8; 16], number: u32) {
    vif.mac.get_or_insert_with(|| derive_mac(uuid, number));
    vif.kind.get_or_insert(VifType::Vif);
}

/// A MAC address with Xen's first half, 00:16:3e, for interface `number` of a domain.
fn derive_mac(uuid: &[u8; 16], number: u32) -> [u8; 6] {
    // FNV-1a with 64 bits: every bit of the UUID reaches the address, which is no secret.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    let bytes = uuid.iter().copied().chain(number.to_le_bytes());
    let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let [.., high, middle, low] = (hash ^ hash >> 32).to_be_bytes();
    [0x00, 0x16, 0x3e, high & 0x7f, middle, low]
}

/// A name, if it is not empty.
fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.into())
}

/// The domain that serves a device.
fn backend<T: Trap>(session: &Session<T>, name: &str) -> Outcome<u16> {
    if name.is_empty() { Ok(0) } else { session.find(name).map_err(|failure| failure.while_doing("backend")) }
}

/// A block device as libxc wants it.
pub fn disk(disk: &Disk) -> Outcome<nodes::Disk> {
    match disk.backend {
        None | Some(Backend::Phy) => {}
        Some(Backend::Qdisk | Backend::Standalone) => {
            return Err(Failure::new(format!(
                "disk {}: only the kernel's block backend is used here: leave backendtype= out, and raw files are served \
                 through loop devices, other images by qemu-nbd",
                disk.vdev
            )));
        }
    }
    let image = match disk.format {
        Format::Raw | Format::Empty => None,
        Format::Qcow => Some("qcow"),
        Format::Qcow2 => Some("qcow2"),
        Format::Vhd => Some("vpc"),
        Format::Qed => Some("qed"),
    };
    Ok(nodes::Disk {
        target: disk.target.clone(),
        image,
        vdev: disk.vdev.clone(),
        writable: disk.writable,
        cdrom: disk.cdrom,
        script: given(&disk.script),
        direct_io_safe: disk.direct_io_safe,
        discard: disk.discard.unwrap_or(disk.writable),
        trusted: disk.trusted.unwrap_or(true),
    })
}

/// A network interface as libxc wants it; `complete` has been here.
pub fn vif(vif: &Vif) -> Outcome<nodes::Vif> {
    if vif.kind == Some(VifType::Ioemu) {
        return Err(Failure::new("vif: type=ioemu needs a device model, which a PVH guest does not have"));
    }
    Ok(nodes::Vif {
        mac: vif.mac.ok_or_else(|| Failure::new("vif: it has no MAC address"))?,
        bridge: given(&vif.bridge).unwrap_or_else(|| BRIDGE.into()),
        gateway: given(&vif.gateway_dev),
        ip: given(&vif.ip),
        script: given(&vif.script),
        name: given(&vif.name),
        rate: vif.rate.map(|rate| (rate.bytes, rate.interval_us)),
        mtu: vif.mtu,
        trusted: vif.trusted.unwrap_or(true),
    })
}

fn failure(error: libxc::device::DeviceError) -> Failure {
    Failure::new(error.to_string())
}

/// Finds out what of a configuration's devices cannot be, before there is a domain.
pub fn check<T: Trap, H: Host>(session: &Session<T>, devices: &Devices<'_, H>, config: &DomainConfig) -> Outcome {
    for entry in &config.disks {
        devices.check_disk(backend(session, &entry.backend_domain)?, &disk(entry)?).map_err(failure)?;
    }
    for entry in &config.vifs {
        devices.check_vif(backend(session, &entry.backend)?, &vif(entry)?).map_err(failure)?;
    }
    Ok(())
}

/// Adds all devices of a configuration to a domain that does not run yet.
pub fn add_all<T: Trap, H: Host>(
    session: &Session<T>,
    devices: &Devices<'_, H>,
    domid: u16,
    config: &DomainConfig,
) -> Outcome {
    for entry in &config.disks {
        devices.add_disk(domid, backend(session, &entry.backend_domain)?, &disk(entry)?).map_err(failure)?;
    }
    for (number, entry) in (0..).zip(&config.vifs) {
        let backend = backend(session, &entry.backend)?;
        let device = Device { kind: Kind::Network, domain: domid, number, backend };
        devices.add_vif(&device, &vif(entry)?).map_err(failure)?;
    }
    for (number, P9 { tag, path, security_model, backend: name }) in (0..).zip(&config.p9s) {
        let device = Device { kind: Kind::Share, domain: domid, number, backend: backend(session, name)? };
        let share = Share { tag: tag.clone(), path: path.clone(), security_model: security_model.clone() };
        devices.add_share(&device, &share).map_err(failure)?;
    }
    Ok(())
}

/// Adds a block device to a domain.
pub fn attach_disk<T: Trap, H: Host>(
    session: &Session<T>,
    devices: &Devices<'_, H>,
    domid: u16,
    entry: &Disk,
) -> Outcome<Device> {
    devices.add_disk(domid, backend(session, &entry.backend_domain)?, &disk(entry)?).map_err(failure)
}

/// Adds a network interface to a domain. Its number, and the entry with what was left to the toolstack.
pub fn attach_vif<T: Trap, H: Host>(
    session: &Session<T>,
    devices: &Devices<'_, H>,
    domid: u16,
    uuid: &[u8; 16],
    entry: &Vif,
) -> Outcome<(Device, Vif)> {
    let number = next_number(&session.store, domid, Kind::Network)?;
    let mut entry = entry.clone();
    complete_vif(&mut entry, uuid, number);
    let device = Device { kind: Kind::Network, domain: domid, number, backend: backend(session, &entry.backend)? };
    devices.add_vif(&device, &vif(&entry)?).map_err(failure)?;
    Ok((device, entry))
}

/// Removes a device from a domain that goes on.
pub fn detach<H: Host>(devices: &Devices<'_, H>, entry: &Entry, force: Force) -> Outcome {
    if !devices.remove(entry, force).map_err(failure)? {
        note(format_args!("xl: warning: the backend {} did not close in {} s", entry.backend_path, PATIENCE.as_secs()));
    }
    Ok(())
}

/// Removes all devices of a domain that goes. A backend that does not close in time is left to itself with a warning, and so
/// is what cannot be given back at the second try either: the domain goes in any case.
pub fn remove_all<H: Host>(devices: &Devices<'_, H>, domid: u16) -> Outcome {
    for entry in entries(devices.store, domid, None)? {
        if entry.kind == "console" {
            // Its backend is xenconsoled, which has no states to go through.
            devices.store.transaction(|tx| devices.store.remove_with_empty_parents(tx, &entry.backend_path))?;
            continue;
        }
        let removed = detach(devices, &entry, Force::AtOnce).or_else(|first| {
            note(format_args!("xl: warning: {first}; trying again"));
            detach(devices, &entry, Force::AtOnce)
        });
        if let Err(failure) = removed {
            note(format_args!("xl: warning: {failure}"));
            nodes::remove(devices.store, &[&entry.backend_path])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_xens_and_stay() {
        let mac = derive_mac(&[7; 16], 0);
        assert_eq!(mac[..3], [0x00, 0x16, 0x3e]);
        assert!(mac[3] < 0x80);
        assert_eq!(mac, derive_mac(&[7; 16], 0));
        assert_ne!(mac, derive_mac(&[7; 16], 1));
        let mut other = [7; 16];
        other[15] = 6;
        assert_ne!(mac, derive_mac(&other, 0));
        let vifs = vec![Vif { mac: Some([2, 0, 0, 0, 0, 1]), ..Vif::default() }, Vif::default()];
        let config = complete(&DomainConfig { vifs, ..DomainConfig::default() }, &[7; 16]);
        assert_eq!(config.vifs[0].mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(config.vifs[1].mac, Some(derive_mac(&[7; 16], 1)));
    }
}

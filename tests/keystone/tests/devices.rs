//! Devices over a fake xenstored, fake backends and a fake machine: nodes, what the machine is asked for, removal, and every
//! request failing once.

use keystone::backends::Backends;
use keystone::host::FakeHost;
use keystone::store::Store;
use libxc::device::detach::Force;
use libxc::device::dma::Facts;
use libxc::device::list::{Entry, entries, next_number};
use libxc::device::nodes::{Disk, Share, Vif};
use libxc::device::{Device, DeviceError, Devices, Kind as DeviceKind};
use libxc::fault::{self, How, Kind, Plan};
use libxc::xenstore::{Client, Tx};
use public_abi::Errno;
use std::time::Duration;

/// A guest that exists, as far as xenstore knows.
const GUEST: u16 = 3;

struct Bench {
    store: Store,
    client: Client,
    host: FakeHost,
    facts: Facts,
}

impl Bench {
    fn new() -> Self {
        let store = Store::new();
        let client = store.client();
        client.write(Tx::NONE, &format!("/local/domain/{GUEST}/name"), "g").expect("is written");
        client.mkdir(Tx::NONE, &format!("/local/domain/{GUEST}/device/suspend")).expect("is made");
        Self { store, client, host: FakeHost::default(), facts: Facts::default() }
    }

    fn devices(&self) -> Devices<'_, FakeHost> {
        Devices { store: &self.client, host: &self.host, facts: self.facts, patience: Duration::from_millis(20) }
    }

    fn text(&self, path: &str) -> Option<String> {
        self.store.tree().text(path)
    }

    fn only_entry(&self, kind: &str) -> Entry {
        let mut all = entries(&self.client, GUEST, Some(kind)).expect("can be listed");
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

fn disk(target: &str) -> Disk {
    Disk {
        target: Some(target.into()),
        image: None,
        vdev: "xvda".into(),
        writable: true,
        cdrom: false,
        script: None,
        direct_io_safe: false,
        discard: true,
        trusted: true,
    }
}

fn vif() -> Vif {
    Vif {
        mac: [0, 0x16, 0x3e, 1, 2, 3],
        bridge: "br0".into(),
        gateway: None,
        ip: None,
        script: None,
        name: None,
        rate: Some((62_500, 50_000)),
        mtu: None,
        trusted: true,
    }
}

fn interface(number: u32) -> Device {
    Device { kind: DeviceKind::Network, domain: GUEST, number, backend: 0 }
}

/// What a failure says; it must have left nothing behind.
fn reason<R: std::fmt::Debug>(result: Result<R, DeviceError>) -> String {
    let error = result.expect_err("fails");
    assert!(error.left_behind.is_none(), "{error}");
    error.to_string()
}

#[test]
fn a_file_becomes_a_disk_and_goes_again() {
    let bench = Bench::new();
    let before = bench.store.tree();
    bench.devices().add_disk(GUEST, 0, &disk("/img/root")).expect("is added");
    let back = "/local/domain/0/backend/vbd/3/51712";
    for (node, value) in [
        ("params", "/img/root"),
        ("script", "/etc/xen/scripts/block"),
        ("frontend", "/local/domain/3/device/vbd/51712"),
        ("frontend-id", "3"),
        ("type", "phy"),
        ("mode", "w"),
        ("dev", "xvda"),
        ("device-type", "disk"),
        ("discard-enable", "1"),
        ("node", "/dev/loop0"),
        ("physical-device", "7:0"),
        ("physical-device-path", "/dev/loop0"),
        ("hotplug-status", "connected"),
        ("state", "2"),
    ] {
        assert_eq!(bench.text(&format!("{back}/{node}")).as_deref(), Some(value), "{node}");
    }
    let front = "/local/domain/3/device/vbd/51712";
    for (node, value) in
        [("backend", back), ("backend-id", "0"), ("virtual-device", "51712"), ("state", "1"), ("trusted", "1")]
    {
        assert_eq!(bench.text(&format!("{front}/{node}")).as_deref(), Some(value), "{node}");
    }
    assert_eq!(bench.text("/libxl/3/device/vbd/51712/params").as_deref(), Some("/img/root"));
    // The same again, and the same file under another name.
    assert!(reason(bench.devices().add_disk(GUEST, 0, &disk("/img/other"))).contains("already"));
    let second = Disk { vdev: "xvdb".into(), writable: false, ..disk("/img/root") };
    assert!(reason(bench.devices().add_disk(GUEST, 0, &second)).contains("domain 3 has it as xvda"));
    let entry = bench.only_entry("vbd");
    assert_eq!((entry.number, entry.backend), (51712, 0));
    assert_eq!(entry.frontend_number(&bench.client, "state").expect("can be read"), Some(1));
    assert!(bench.devices().remove(&entry, Force::Never).expect("is removed"));
    assert_eq!(*bench.host.asked.borrow(), ["loop /img/root read_only=false", "detach /dev/loop0"]);
    assert_eq!(bench.store.tree(), before);
}

#[test]
fn each_target_is_served_in_its_way() {
    let asked = |disk: &Disk| {
        let bench = Bench::new();
        bench.devices().add_disk(GUEST, 0, disk).expect("is added");
        let number = bench.text("/local/domain/0/backend/vbd/3/51712/physical-device");
        let asked = bench.host.asked.borrow().join(";");
        bench.devices().remove(&bench.only_entry("vbd"), Force::AtOnce).expect("is removed");
        assert!(bench.host.made.borrow().is_empty());
        (number.unwrap_or_default(), asked)
    };
    assert_eq!(asked(&disk("/dev/vg/a")), ("103:11".into(), String::new()));
    let image = Disk { image: Some("qcow2"), writable: false, ..disk("/img/a.qcow2") };
    assert_eq!(asked(&image), ("2b:0".into(), "qcow2 /img/a.qcow2 read_only=true".into()));
    let script = Disk { script: Some("block-iscsi".into()), ..disk("iqn.2026:x") };
    assert_eq!(asked(&script), (String::new(), "/etc/xen/scripts/block-iscsi add backend/vbd/3/51712".into()));
    for (bad, word) in [
        (Disk { vdev: "vda".into(), ..disk("/img/a") }, "vdev"),
        (Disk { target: None, cdrom: true, ..disk("/img/a") }, "empty drive"),
        (disk("relative"), "absolute"),
        (disk("/nosuch"), "/nosuch"),
        (disk("/"), "neither"),
    ] {
        let bench = Bench::new();
        let before = bench.store.tree();
        let reason = reason(bench.devices().add_disk(GUEST, 0, &bad));
        assert!(reason.contains("checking it") && reason.contains(word), "{reason}");
        assert_eq!(bench.store.tree(), before);
    }
}

#[test]
fn hardware_is_kept_from_guests_pages_where_it_would_miss_them() {
    let mut bench = Bench::new();
    bench.host.hardware.set(true);
    bench.facts = Facts { one_to_one: true, ..Facts::default() };
    bench.devices().add_disk(GUEST, 0, &disk("/dev/nvme0n1")).expect("is added");
    assert_eq!(*bench.host.asked.borrow(), ["loop /dev/nvme0n1 read_only=false"]);
    assert!(reason(bench.devices().add_vif(&interface(0), &vif())).contains("eth0"));
    bench.facts.iommu = true;
    bench.devices().add_vif(&interface(0), &vif()).expect("is added");
}

#[test]
fn a_mounted_device_is_no_guests() {
    let bench = Bench::new();
    bench.host.mounted.set(true);
    assert!(reason(bench.devices().add_disk(GUEST, 0, &disk("/dev/sda1"))).contains("mounted"));
}

#[test]
fn an_interface_joins_its_bridge() {
    let bench = Bench::new();
    let before = bench.store.tree();
    let number = next_number(&bench.client, GUEST, DeviceKind::Network).expect("can be asked");
    bench.devices().add_vif(&interface(number), &vif()).expect("is added");
    let back = "/local/domain/0/backend/vif/3/0";
    for (node, value) in [
        ("mac", "00:16:3e:01:02:03"),
        ("bridge", "br0"),
        ("rate", "62500,50000"),
        ("handle", "0"),
        ("script", "/etc/xen/scripts/vif-bridge"),
        ("hotplug-status", "connected"),
    ] {
        assert_eq!(bench.text(&format!("{back}/{node}")).as_deref(), Some(value), "{node}");
    }
    assert_eq!(bench.text("/local/domain/3/device/vif/0/mtu").as_deref(), Some("1500"));
    assert_eq!(*bench.host.asked.borrow(), ["mtu vif3.0 1400", "join vif3.0 br0", "up vif3.0"]);
    assert_eq!(next_number(&bench.client, GUEST, DeviceKind::Network).expect("can be asked"), 1);
    assert!(
        reason(bench.devices().add_vif(&interface(1), &Vif { bridge: "x".into(), ..vif() })).contains("no bridge x")
    );
    bench.devices().remove(&bench.only_entry("vif"), Force::IfNeeded).expect("is removed");
    assert_eq!(bench.store.tree(), before);
}

#[test]
fn a_routed_interface_gets_its_routes() {
    let bench = Bench::new();
    let routed = Vif {
        script: Some("vif-route".into()),
        ip: Some("10.0.0.2 10.0.0.3/32".into()),
        gateway: Some("eth1".into()),
        name: Some("mine".into()),
        mtu: Some(9000),
        ..vif()
    };
    bench.devices().add_vif(&interface(0), &routed).expect("is added");
    assert_eq!(
        *bench.host.asked.borrow(),
        [
            "rename vif3.0 mine",
            "mtu mine 9000",
            "routing mine eth1",
            "up mine",
            "route mine 10.0.0.2",
            "route mine 10.0.0.3"
        ]
    );
    assert!(reason(bench.devices().add_vif(&interface(1), &Vif { ip: None, ..routed.clone() })).contains("ip="));
    let sixth = Vif { ip: Some("fe80::1".into()), ..routed };
    assert!(reason(bench.devices().add_vif(&interface(1), &sixth)).contains("fe80::1"));
}

#[test]
fn a_share_has_its_nodes() {
    let bench = Bench::new();
    let device = Device { kind: DeviceKind::Share, domain: GUEST, number: 0, backend: 0 };
    let share = Share { tag: "t".into(), path: "/srv".into(), security_model: "none".into() };
    bench.devices().add_share(&device, &share).expect("is added");
    assert_eq!(bench.text("/local/domain/3/device/9pfs/0/tag").as_deref(), Some("t"));
    assert_eq!(bench.text("/local/domain/0/backend/9pfs/3/0/path").as_deref(), Some("/srv"));
    assert_eq!(bench.text("/local/domain/0/backend/9pfs/3/0/security_model").as_deref(), Some("none"));
}

#[test]
fn backends_that_will_not_are_named_and_leave_nothing() {
    for (backends, word) in [(Backends::Absent, "xen-blkback"), (Backends::Refusing, "no such thing")] {
        let bench = Bench::new();
        bench.store.set_backends(backends);
        let reason = reason(bench.devices().add_disk(GUEST, 0, &disk("/img/root")));
        assert!(
            reason.starts_with("disk xvda of domain 3: waiting for its backend: ") && reason.contains(word),
            "{reason}"
        );
        assert_eq!(entries(&bench.client, GUEST, None).expect("can be listed"), []);
        assert!(
            !bench.store.tree().nodes.keys().any(|path| path.contains("/backend/vbd/3") && !path.contains("/error/"))
        );
    }
}

#[test]
fn a_device_in_use_stays_unless_it_is_forced() {
    let bench = Bench::new();
    let before = bench.store.tree();
    bench.store.set_backends(Backends::Held);
    bench.devices().add_disk(GUEST, 0, &disk("/img/root")).expect("is added");
    let entry = bench.only_entry("vbd");
    assert!(reason(bench.devices().remove(&entry, Force::Never)).contains("did not let go"));
    assert_eq!(bench.host.made.borrow().len(), 1, "the guest still has its disk");
    assert!(bench.devices().remove(&entry, Force::AtOnce).expect("is removed"));
    assert_eq!(bench.store.tree(), before);
    bench.devices().add_vif(&interface(0), &vif()).expect("is added");
    assert!(bench.devices().remove(&bench.only_entry("vif"), Force::IfNeeded).expect("is removed"));
    assert_eq!(bench.store.tree(), before);
}

/// A domain that serves devices could write any path into its nodes: they are not believed.
#[test]
fn another_domains_nodes_make_this_machine_give_nothing_back() {
    let bench = Bench::new();
    let back = "/local/domain/5/backend/vbd/3/51712";
    for (path, value) in [
        ("/libxl/3/device/vbd/51712/backend".into(), back),
        ("/libxl/3/device/vbd/51712/frontend".into(), "/local/domain/0/name"),
        (format!("{back}/node"), "/dev/loop7"),
        (format!("{back}/script"), "/bin/evil"),
    ] {
        bench.client.write(Tx::NONE, &path, value).expect("is written");
    }
    bench.devices().remove(&bench.only_entry("vbd"), Force::AtOnce).expect("is removed");
    assert!(bench.host.asked.borrow().is_empty());
    assert_eq!(bench.text("/local/domain/0/name").as_deref(), Some("Domain-0"));
}

/// Lets `act` fail at a later point each time, until nothing fails; gives how often something failed.
fn fail_everywhere(arm: impl Fn(Option<u64>), is_due: impl Fn() -> bool, mut act: impl FnMut(u64, bool)) -> u64 {
    for n in 0.. {
        arm(Some(n));
        act(n, false);
        let has_failed = !is_due();
        arm(None);
        act(n, true);
        if !has_failed {
            return n;
        }
    }
    unreachable!("there is an end")
}

/// Adds and removes devices with something failing; whatever fails, a second try removes all that is left.
fn add_and_remove(bench: &Bench, arm: impl Fn(Option<u64>), is_due: impl Fn() -> bool) -> u64 {
    let before = bench.store.tree();
    let devices = bench.devices();
    let image = Disk { image: Some("qcow2"), vdev: "xvdb".into(), ..disk("/img/b") };
    let mut present = Vec::new();
    fail_everywhere(arm, is_due, |n, is_second| {
        if !is_second {
            let check = |what: Result<(), DeviceError>| {
                if let Err(error) = what {
                    assert!(error.left_behind.is_none(), "failure {n}: {error}");
                    assert!(error.to_string().contains("of domain 3: "), "failure {n}: {error}");
                }
            };
            check(devices.add_disk(GUEST, 0, &disk("/img/a")).map(drop));
            check(devices.add_disk(GUEST, 0, &image).map(drop));
            check(devices.add_vif(&interface(0), &vif()));
            present = bench.host.made.borrow().keys().cloned().collect();
            for entry in entries(&bench.client, GUEST, None).unwrap_or_default() {
                check(devices.remove(&entry, Force::AtOnce).map(drop));
            }
        } else {
            for entry in entries(&bench.client, GUEST, None).expect("can be listed") {
                devices.remove(&entry, Force::AtOnce).expect("is removed at the second try");
            }
            assert!(present.len() <= 2, "failure {n}");
            assert!(bench.host.made.borrow().is_empty(), "failure {n} leaves {:?}", bench.host.made.borrow());
            assert_eq!(bench.store.tree(), before, "failure {n}");
        }
    })
}

#[test]
fn every_request_to_xenstored_that_fails_leaves_nothing_behind() {
    let bench = Bench::new();
    let arm = |n| bench.store.fail_request(n);
    let failures = add_and_remove(&bench, arm, || bench.store.failure_is_due());
    assert!(failures > 250, "{failures}");
}

#[test]
fn every_request_to_the_machine_that_fails_leaves_nothing_behind() {
    let bench = Bench::new();
    let arm = |n: Option<u64>| match n {
        Some(number) => fault::arm(Plan { kind: Some(Kind::Host), number, how: How::Error(Errno::EPERM) }),
        None => drop(fault::disarm()),
    };
    let failures = add_and_remove(&bench, arm, || !fault::has_failed());
    assert!(failures > 10, "{failures}");
}

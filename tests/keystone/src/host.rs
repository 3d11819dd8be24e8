//! The machine that devices are served by, for tests: it notes what it is asked for, keeps what it has made, and lets the
//! n-th request fail.

use libxc::device::dma::{Card, Dma};
use libxc::device::host::{Host, Made, Mounted, Number, What};
use libxc::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The machine.
#[derive(Default)]
pub struct FakeHost {
    /// Everything that was asked for and changes something.
    pub asked: RefCell<Vec<String>>,
    /// Block devices that were made and are still there.
    pub made: RefCell<BTreeSet<String>>,
    /// Whether hardware is behind block devices and bridges.
    pub hardware: Cell<bool>,
    /// Whether block devices are mounted.
    pub mounted: Cell<bool>,
    requests: Cell<u64>,
    fail_at: Cell<Option<u64>>,
}

impl FakeHost {
    /// Refuses request number `n` from now, counted from 0.
    pub fn fail_request(&self, n: Option<u64>) {
        self.fail_at.set(n.map(|n| self.requests.get() + n));
    }

    /// Whether the request that is to be refused is still to come.
    pub fn failure_is_due(&self) -> bool {
        self.fail_at.get().is_some()
    }

    fn count(&self) -> Result<()> {
        let number = self.requests.replace(self.requests.get() + 1);
        if self.fail_at.get() == Some(number) {
            self.fail_at.set(None);
            return Err(Error::system("asking the fake machine", io::Error::from(ErrorKind::PermissionDenied)));
        }
        Ok(())
    }

    fn note(&self, text: String) -> Result<()> {
        self.count()?;
        self.asked.borrow_mut().push(text);
        Ok(())
    }

    fn make(&self, kind: &str, major: u32, what: String) -> Result<Made> {
        self.note(what)?;
        let mut made = self.made.borrow_mut();
        let minor = (0..).find(|minor| !made.contains(&format!("/dev/{kind}{minor}"))).unwrap_or(0);
        let path = format!("/dev/{kind}{minor}");
        made.insert(path.clone());
        Ok(Made { path, number: Number { major, minor } })
    }
}

impl Host for FakeHost {
    fn inspect(&self, path: &str) -> Result<What> {
        self.count()?;
        match path {
            _ if path.starts_with("/dev/") => Ok(What::Block {
                number: Number { major: 259, minor: 17 },
                dma: if self.hardware.get() { Dma::Ordinary } else { Dma::None },
            }),
            _ if path.starts_with("/img/") => Ok(What::File),
            "/" => Ok(What::Other),
            _ => Err(Error::system(path, io::Error::from_raw_os_error(2))),
        }
    }

    fn mounted(&self, _: Number) -> Result<Mounted> {
        self.count()?;
        Ok(if self.mounted.get() { Mounted::Writable } else { Mounted::No })
    }

    fn attach_loop(&self, path: &str, read_only: bool) -> Result<Made> {
        self.make("loop", 7, format!("loop {path} read_only={read_only}"))
    }

    fn attach_image(&self, path: &str, format: &str, read_only: bool) -> Result<Made> {
        self.make("nbd", 43, format!("{format} {path} read_only={read_only}"))
    }

    fn detach(&self, path: &str) -> Result<()> {
        self.note(format!("detach {path}"))?;
        self.made.borrow_mut().remove(path);
        Ok(())
    }

    fn run_script(&self, script: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<()> {
        let path = environment.iter().find(|(name, _)| name == "XENBUS_PATH").map_or("", |(_, value)| value);
        self.note(format!("{script} {} {path}", arguments.join(" ")))
    }

    fn is_bridge(&self, name: &str) -> Result<bool> {
        self.count()?;
        Ok(name.starts_with("br"))
    }

    fn card_behind(&self, _: &str) -> Result<Option<Card>> {
        self.count()?;
        Ok(self.hardware.get().then(|| Card { name: "eth0".into(), dma: Dma::Ordinary }))
    }

    fn wait_for_interface(&self, _: &str, _: Duration) -> Result<()> {
        self.count()
    }

    fn mtu(&self, _: &str) -> Result<u32> {
        self.count()?;
        Ok(1400)
    }

    fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        self.note(format!("mtu {interface} {mtu}"))
    }

    fn rename(&self, interface: &str, name: &str) -> Result<()> {
        self.note(format!("rename {interface} {name}"))
    }

    fn set_up(&self, interface: &str) -> Result<()> {
        self.note(format!("up {interface}"))
    }

    fn join_bridge(&self, interface: &str, bridge: &str) -> Result<()> {
        self.note(format!("join {interface} {bridge}"))
    }

    fn prepare_routing(&self, interface: &str, gateway: Option<&str>) -> Result<()> {
        self.note(format!("routing {interface} {}", gateway.unwrap_or("-")))
    }

    fn add_route(&self, interface: &str, address: Ipv4Addr) -> Result<()> {
        self.note(format!("route {interface} {address}"))
    }
}

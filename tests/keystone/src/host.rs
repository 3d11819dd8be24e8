//! The machine that devices are served by, for tests: it notes what it is asked for and keeps what it has made. The switch of
//! [`libxc::fault`] lets the n-th request fail.

use libxc::device::dma::{Card, Dma};
use libxc::device::host::{AboutTo, Host, Made, Mounted, Number, What};
use libxc::error::{Error, Result};
use libxc::fault;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The machine.
#[derive(Default)]
pub struct FakeHost {
    /// Everything that was asked for and changes something.
    pub asked: RefCell<Vec<String>>,
    /// Block devices that were made and are still there, and what of.
    pub made: RefCell<BTreeMap<String, String>>,
    /// Whether hardware is behind block devices and bridges.
    pub hardware: Cell<bool>,
    /// Whether block devices are mounted.
    pub mounted: Cell<bool>,
    /// What somebody else does while the next block device is given back.
    pub meanwhile: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl FakeHost {
    /// Asks for something, unless the switch says otherwise.
    fn ask(&self, doing: impl Fn() -> String) -> Result<()> {
        fault::check_host(&doing).map_err(|error| Error::system(doing(), error))
    }

    fn note(&self, text: String) -> Result<()> {
        self.ask(|| text.clone())?;
        self.asked.borrow_mut().push(text);
        Ok(())
    }

    fn make(&self, kind: &str, major: u32, target: &str, what: String, about_to: AboutTo<'_>) -> Result<Made> {
        let is_free = |minor: &u32| !self.made.borrow().contains_key(&format!("/dev/{kind}{minor}"));
        let minor = (0..).find(is_free).unwrap_or(0);
        let path = format!("/dev/{kind}{minor}");
        about_to(&path)?;
        self.note(what)?;
        self.made.borrow_mut().insert(path.clone(), target.into());
        Ok(Made { path, number: Number { major, minor } })
    }
}

impl Host for FakeHost {
    fn bounces(&self) -> Result<bool> {
        self.ask(|| "reading /proc/cmdline".into())?;
        Ok(false)
    }

    fn inspect(&self, path: &str) -> Result<What> {
        self.ask(|| path.into())?;
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
        self.ask(|| "reading /proc/self/mountinfo".into())?;
        Ok(if self.mounted.get() { Mounted::Writable } else { Mounted::No })
    }

    fn attach_loop(&self, path: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made> {
        self.make("loop", 7, path, format!("loop {path} read_only={read_only}"), about_to)
    }

    fn attach_image(&self, path: &str, format: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made> {
        self.make("nbd", 43, path, format!("{format} {path} read_only={read_only}"), about_to)
    }

    fn detach(&self, path: &str, target: &str) -> Result<()> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.note(format!("detach {path}"))?;
        let mut made = self.made.borrow_mut();
        if made.get(path).is_some_and(|of| of == target) {
            made.remove(path);
        }
        Ok(())
    }

    fn run_script(&self, script: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<()> {
        let path = environment.iter().find(|(name, _)| name == "XENBUS_PATH").map_or("", |(_, value)| value);
        self.note(format!("{script} {} {path}", arguments.join(" ")))
    }

    fn is_bridge(&self, name: &str) -> Result<bool> {
        self.ask(|| format!("looking for the bridge {name}"))?;
        Ok(name.starts_with("br"))
    }

    fn card_behind(&self, interface: &str) -> Result<Option<Card>> {
        self.ask(|| format!("looking for the card behind {interface}"))?;
        Ok(self.hardware.get().then(|| Card { name: "eth0".into(), dma: Dma::Ordinary }))
    }

    fn wait_for_interface(&self, interface: &str, _: Duration) -> Result<()> {
        self.ask(|| format!("waiting for {interface}"))
    }

    fn mtu(&self, interface: &str) -> Result<u32> {
        self.ask(|| format!("the MTU of {interface}"))?;
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

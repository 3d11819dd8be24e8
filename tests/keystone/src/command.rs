//! Commands of xl, each run by a process of its own in the control domain, with the machine that serves devices and the
//! directories that a process leaves files in.
//!
//! The code is xl's from where it has read its arguments. A process that is killed ([`Bench::run`]) does nothing any more, not
//! even undo what it did; but its kernel unmaps what it had mapped and closes its connection, which is what dropping does here.

use crate::host::FakeHost;
use crate::kernel;
use crate::snapshot::Snapshot;
use crate::store::Listener;
use crate::toolstack::Toolstack;
use crate::trap::FakeTrap;
use libxc::Handle;
use libxc::device::detach::Force;
use libxc::verbs::domain::DomainInfo;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use xl::config;
use xl::config::disk::Disk;
use xl::config::vif::Vif;
use xl::domain::guest::Images;
use xl::domain::machine::Machine;
use xl::domain::{attach, change, create, destroy};
use xl::failure::{Failure, Outcome};
use xl::host_config::HostConfig;
use xl::session::Session;

/// The guest that commands create: with a disk and an interface.
const CONFIG: &str = r#"
name = "g"
extra = "console=hvc0"
memory = 4
vcpus = 1
disk = [ "/img/root,raw,xvda,rw" ]
vif = [ "bridge=br0" ]
"#;

/// The unwinding of a process that was killed.
struct Killed;

/// Ends a process as `kill -9` does: for [`libxc::fault::How::End`].
pub fn kill() -> ! {
    // Not a panic: nothing is printed.
    resume_unwind(Box::new(Killed))
}

/// A process.
pub type Process = Session<FakeTrap>;

/// How a process has ended.
#[derive(Debug)]
pub enum Ended<R> {
    /// By itself.
    Alone(Outcome<R>),
    /// It was killed.
    Killed,
}

/// Everything that a command can have an effect on, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    host: Snapshot,
    /// Block devices that the machine has made, and what of.
    made: BTreeMap<String, String>,
    /// Files of user data.
    files: BTreeMap<String, Vec<u8>>,
}

impl State {
    /// What is different in another one; empty if nothing is.
    pub fn difference(&self, other: &Self) -> String {
        let mut text = self.host.difference(&other.host);
        if self.made != other.made {
            text.push_str(&format!("devices: {:?} became {:?}\n", self.made, other.made));
        }
        if self.files != other.files {
            text.push_str(&format!("files: {:?} became {:?}\n", self.files, other.files));
        }
        text
    }
}

/// A toolstack, its machine, and its directories.
pub struct Bench<'a> {
    /// The toolstack, whose own session only looks.
    pub toolstack: &'a Toolstack,
    /// The machine.
    pub machine: Machine<FakeHost>,
    config: String,
    /// Where processes reach xenstored.
    listener: Listener,
}

impl<'a> Bench<'a> {
    /// One whose directories have this name.
    pub fn new(toolstack: &'a Toolstack, name: &str) -> Self {
        let place: PathBuf = std::env::temp_dir().join(format!("keystone-{name}-{}", std::process::id()));
        let directory = |name: &str| {
            let path = place.join(name);
            fs::create_dir_all(&path).expect("a directory can be made");
            path
        };
        let (data, run) = (directory("data"), directory("run"));
        let lock_file = run.join("lock").display().to_string();
        let settings = Some(HostConfig { lock_file, ..HostConfig::default() });
        let machine = Machine { host: FakeHost::default(), data, run, settings };
        let images = directory("images");
        fs::write(images.join("kernel"), kernel::elf()).expect("can be written");
        fs::write(images.join("ramdisk"), toolstack.ramdisk()).expect("can be written");
        let config = format!("{CONFIG}kernel = \"{0}/kernel\"\nramdisk = \"{0}/ramdisk\"\n", images.display());
        toolstack.store.set_consoles(true);
        let listener = toolstack.store.listen(place.join("xenstored"));
        Self { toolstack, machine, config, listener }
    }

    /// What there is now.
    pub fn state(&self) -> State {
        let file = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("can be listed").path();
            (path.to_string_lossy().into_owned(), fs::read(&path).expect("can be read"))
        };
        State {
            host: Snapshot::take(self.toolstack),
            made: self.machine.host.made.borrow().clone(),
            files: fs::read_dir(&self.machine.data).expect("can be listed").map(file).collect(),
        }
    }

    /// Runs a command in a process of its own.
    pub fn run<R>(&self, command: impl FnOnce(&Self, &Process) -> Outcome<R>) -> Ended<R> {
        let whole = || -> Outcome<R> {
            let handle = Handle::new(FakeTrap::new(&self.toolstack.control))?;
            command(self, &Process { handle, store: self.listener.client() })
        };
        match catch_unwind(AssertUnwindSafe(whole)) {
            Ok(outcome) => Ended::Alone(outcome),
            Err(reason) if reason.is::<Killed>() => Ended::Killed,
            Err(reason) => resume_unwind(reason),
        }
    }

    /// Another process.
    pub fn process(&self) -> Process {
        let handle = Handle::new(FakeTrap::new(&self.toolstack.control)).expect("a handle");
        Process { handle, store: self.listener.client() }
    }

    /// Runs a command that must succeed.
    pub fn succeed<R>(&self, command: impl FnOnce(&Self, &Process) -> Outcome<R>) -> R {
        match self.run(command) {
            Ended::Alone(Ok(result)) => result,
            Ended::Alone(Err(failure)) => panic!("{failure}"),
            Ended::Killed => panic!("was killed"),
        }
    }

    /// `xl create -p`.
    pub fn create(&self, process: &Process) -> Outcome<u16> {
        let (config, report) = config::read("guest.cfg", self.config.as_bytes(), &[]);
        assert!(!report.has_errors(), "{:?}", report.findings().iter().map(ToString::to_string).collect::<Vec<_>>());
        let images = Images::read(&config)?;
        create::create(process, &self.machine, &config, [0x22; 16], &images)
    }

    /// `xl destroy`.
    pub fn destroy(&self, process: &Process, domid: u16) -> Outcome {
        destroy::destroy(process, &self.machine, domid)
    }

    fn info(&self, process: &Process, domid: u16) -> Outcome<DomainInfo> {
        let info = process.handle.domain_info(domid)?;
        info.ok_or_else(|| Failure::new(format!("Domain {domid} does not exist.")))
    }

    /// `xl block-attach` of a file as xvdb.
    pub fn block_attach(&self, process: &Process, domid: u16) -> Outcome {
        let disk = Disk::parse("/img/more,raw,xvdb,r").expect("is a disk");
        attach::block(process, &self.machine, &self.info(process, domid)?, &disk)
    }

    /// `xl block-detach xvdb`.
    pub fn block_detach(&self, process: &Process, domid: u16) -> Outcome {
        attach::block_detach(process, &self.machine, &self.info(process, domid)?, "xvdb", Force::Never)
    }

    /// `xl network-attach`.
    pub fn network_attach(&self, process: &Process, domid: u16) -> Outcome {
        let vif = Vif::parse("bridge=br0").expect("is an interface");
        attach::network(process, &self.machine, &self.info(process, domid)?, &vif)
    }

    /// `xl network-detach 1`.
    pub fn network_detach(&self, process: &Process, domid: u16) -> Outcome {
        attach::network_detach(process, &self.machine, &self.info(process, domid)?, "1")
    }

    /// `xl mem-set`.
    pub fn mem_set(&self, process: &Process, domid: u16, mib: u64) -> Outcome {
        change::memory_target(process, domid, mib << 10)
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let place = self.machine.data.parent().map(Path::to_path_buf).unwrap_or_default();
        if let Err(error) = fs::remove_dir_all(&place) {
            eprintln!("removing {}: {error}", place.display());
        }
    }
}

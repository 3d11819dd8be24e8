//! What `xl create` does, from the text of a configuration file to a domain that is built and paused; and what `xl destroy`
//! does.
//!
//! Everything here is the real toolstack's but the files: the kernel is the tests' own, and there is no user data.

use crate::control::Control;
use crate::kernel;
use crate::store::Store;
use crate::trap::FakeTrap;
use image::Kernel;
use libxc::Handle;
use libxc::build::{BuildError, Built, Payloads, build};
use libxc::plan::BuildPlan;
use libxc::plan::pvh::plan;
use std::rc::Rc;
use xl::domain::guest;
use xl::host_config::HostConfig;
use xl::session::Session;

/// The toolstack of a host.
pub struct Toolstack {
    /// The control domain in which it runs.
    pub control: Rc<Control>,
    /// Its hypervisor and its xenstore.
    pub session: Session<FakeTrap>,
    /// That xenstore itself.
    pub store: Store,
    kernel: Vec<u8>,
    ramdisk: Vec<u8>,
}

/// Why a domain was not created.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is no good, or the host was asked for something that it did not answer.
    Before(String),
    /// A step of the plan failed.
    Build(BuildError),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Before(text) => f.write_str(text),
            Self::Build(error) => error.fmt(f),
        }
    }
}

impl Toolstack {
    /// A toolstack in a control domain that has booted.
    pub fn new(control: &Rc<Control>) -> Self {
        let store = Store::new();
        let handle = Handle::new(FakeTrap::new(control)).expect("memory for its buffer");
        let session = Session { handle, store: store.client() };
        let ramdisk = (0..5000u32).map(|index| (index * 11) as u8).collect();
        Self { control: control.clone(), session, store, kernel: kernel::elf(), ramdisk }
    }

    /// The hypervisor.
    pub fn handle(&self) -> &Handle<FakeTrap> {
        &self.session.handle
    }

    /// The way to it.
    pub fn trap(&self) -> &FakeTrap {
        self.session.handle.trap()
    }

    /// The initial RAM disk that domains with `ramdisk=` get.
    pub fn ramdisk(&self) -> &[u8] {
        &self.ramdisk
    }

    /// The plan for a configuration.
    ///
    /// # Errors
    /// All findings in the configuration, or what the host did not answer.
    pub fn plan(&self, config: &str) -> Result<(BuildPlan, &[u8]), Failure> {
        let before = |error: xl::failure::Failure| Failure::Before(error.to_string());
        let (mut config, report) = xl::config::read("guest.cfg", config.as_bytes(), &[]);
        if report.has_errors() {
            let findings: Vec<String> = report.findings().iter().map(ToString::to_string).collect();
            return Err(Failure::Before(findings.join("\n")));
        }
        // A host without xl.conf: domains claim their memory.
        HostConfig::default().complete(&mut config);
        let nodes = guest::nodes_of_cpus(&self.session).map_err(before)?;
        let pool = guest::cpu_pool(&self.session, &config).map_err(before)?;
        let uuid = config.uuid.unwrap_or([0x11; 16]);
        let spec = guest::specification(&config, uuid, &nodes, pool).map_err(before)?;
        let facts = guest::host_facts(&self.session).map_err(before)?;
        let ramdisk = if config.ramdisk.is_some() { self.ramdisk.as_slice() } else { &[] };
        let planned = plan(&spec, &self.kernel(), ramdisk.len() as u64, &facts);
        Ok((planned.map_err(|error| Failure::Before(error.to_string()))?, ramdisk))
    }

    fn kernel(&self) -> Kernel<'_> {
        Kernel::parse(&self.kernel).expect("the tests' own kernel is good")
    }

    /// Creates a domain; it is paused.
    ///
    /// # Errors
    /// What failed; nothing is left behind.
    pub fn create(&self, config: &str) -> Result<Built, Failure> {
        let (plan, ramdisk) = self.plan(config)?;
        let kernel_file = self.kernel.as_slice().into();
        let payloads = Payloads { kernel: &self.kernel(), kernel_file, ramdisk: ramdisk.into() };
        build(&plan, &payloads, self.handle(), &self.session.store).map_err(Failure::Build)
    }

    /// Destroys a domain with all that is known of it.
    ///
    /// # Errors
    /// The hypervisor's or xenstored's.
    pub fn destroy(&self, domid: u16) -> libxc::Result<()> {
        let store = &self.session.store;
        self.handle().domain_pause(domid)?;
        store.transaction(|tx| {
            if let Some(vm) = store.read(tx, &format!("/local/domain/{domid}/vm"))? {
                store.remove_with_empty_parents(tx, &vm)?;
            }
            let console = format!("/local/domain/0/backend/console/{domid}/0");
            [format!("/local/domain/{domid}"), format!("/libxl/{domid}"), console]
                .iter()
                .try_for_each(|path| store.remove_with_empty_parents(tx, path))
        })?;
        self.handle().domain_destroy(domid)?;
        self.control.world().machine.forget_scripts(machine::DomId(domid));
        Ok(())
    }
}

//! Boots one machine of a bench and gives its readings.
//!
//! Between [`super::plan`] and [`super::parse`]: fills in the harness's requests, and gathers the text. The bench guest's own
//! verdict does not count here: a row that failed says so itself.

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSegment};

use super::parse::{self, Reading, Readings};
use super::plan::{Machine, Scene};
use super::toolstack;
use crate::artifacts;
use crate::exit::Verdict;
use crate::harness::dom0::{self, View};
use crate::harness::guest::{self, GuestRequest};
use crate::harness::request::{Emulator, Hypervisor, PathPair, Request};
use crate::initramfs::dom0::{Daemons, Tools};
use crate::paths::Paths;
use crate::progress;
use crate::provision::packages;

/// Limits in seconds, for a slow and busy machine.
const CONTROL_SECONDS: u64 = 600;
const LINUX_SECONDS: u64 = 1_800;
const TOOLSTACK_SECONDS: u64 = 7_200;
/// RAM of the machine in which a hundred domains live.
const MEMORY_MIB: u32 = 4_096;
/// Where scripts put what they found.
const LOG: &str = "/tests/log";

/// Somebody wants an end of it all, not of one machine only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Boots it; `qemu_args` are for QEMU and the bench guest as control domain only.
///
/// # Errors
/// The machine does not come up, or does not measure anything; [`Interrupted`].
pub(crate) fn run(paths: &Paths, machine: Machine, qemu_args: &[String]) -> Result<Readings> {
    let mut readings = match machine.scene {
        Scene::Control => control(paths, machine, qemu_args)?,
        Scene::Guest => linux(paths, machine, include_str!("guest.sh"))?,
        Scene::Memory => linux(paths, machine, include_str!("memory.sh"))?,
        Scene::Toolstack => linux(paths, machine, include_str!("toolstack.sh"))?,
    };
    if readings.is_empty() {
        bail!("nothing was measured; the console's logs are in {}", paths.logs.display());
    }
    if machine.scene == Scene::Memory {
        readings.insert("image-bytes".to_owned(), Reading::once(image_bytes(paths, machine.hypervisor)?));
    }
    Ok(readings)
}

/// The bench guest's program.
pub(crate) fn bench_guest(paths: &Paths) -> Result<std::path::PathBuf> {
    artifacts::test_guests(paths)?
        .into_iter()
        .find_map(|(name, path)| (name == "bench").then_some(path))
        .context("the package guests gives no program named bench")
}

fn control(paths: &Paths, machine: Machine, qemu_args: &[String]) -> Result<Readings> {
    let request = GuestRequest {
        hypervisor: machine.hypervisor,
        emulator: machine.emulator,
        args: String::new(),
        xen_args: String::new(),
        cpu: None,
        smp: 1,
        vcpus: None,
        as_guest: None,
        mem: 1024,
        dom0_mem: 256,
        icount: machine.emulator == Emulator::Qemu,
        pvh: false,
        grub: false,
        timeout: CONTROL_SECONDS,
    };
    let text = Capture::default();
    let view = View { name: "bench".to_owned(), screen: Box::new(text.clone()), news: Box::new(|_| {}) };
    let outcome = guest::run(paths, &bench_guest(paths)?, &request, qemu_args, view)?;
    match &outcome.verdict {
        Verdict::Status(0) => {}
        Verdict::Interrupted(_) => return Err(Interrupted.into()),
        Verdict::Failed(reason) => progress::warn(&format!("the bench guest says: {reason}")),
        other => bail!("{}; the console's log is {}", other.describe(), outcome.log.display()),
    }
    Ok(parse::readings(&text.text()))
}

/// A machine with a Linux control domain that runs a script.
fn linux(paths: &Paths, machine: Machine, script: &str) -> Result<Readings> {
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (script_path, log) = (work.path().join("script"), work.path().join("log"));
    std::fs::write(&script_path, script)?;
    let mut request = Request::from_words([])?;
    request.hypervisor = machine.hypervisor;
    request.emulator = machine.emulator;
    // Exact counts need the counting clock; memory does not.
    request.icount = machine.scene != Scene::Memory && machine.emulator == Emulator::Qemu;
    request.smp = Some(1);
    request.dom0_elf = true;
    request.domu_elf = true;
    request.timeout = Some(LINUX_SECONDS);
    request.script = Some(script_path);
    request.put = toolstack::files(work.path())?;
    request.put.push(PathPair { from: bench_guest(paths)?.display().to_string(), to: "/tests/bench".to_owned() });
    // Kept: it says more than the tables do.
    let report = paths.logs.join(format!("bench-toolstack-{:?}.report", machine.hypervisor).to_lowercase());
    match machine.scene {
        Scene::Toolstack => with_toolstack(paths, &mut request, &report)?,
        Scene::Memory => request.mem = MEMORY_MIB,
        Scene::Control | Scene::Guest => {}
    }
    request.get = vec![PathPair { from: LOG.to_owned(), to: log.display().to_string() }];
    let view = View { name: "bench".to_owned(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = dom0::run(paths, &request, view)?;
    if matches!(outcome.verdict, Verdict::Interrupted(_)) {
        return Err(Interrupted.into());
    }
    if outcome.verdict != Verdict::Status(0) {
        progress::warn(&format!("{}; the console's log is {}", outcome.verdict.describe(), outcome.log.display()));
    }
    let text = |file: &Path| match file.is_file() {
        true => std::fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        false => Ok(String::new()),
    };
    if machine.scene == Scene::Toolstack {
        return Ok(toolstack::readings(&text(&report)?, &text(&log)?));
    }
    Ok(parse::readings(&text(&log)?))
}

/// Each hypervisor with its own toolstack and daemons, and with our xl for what Debian's cannot do here.
fn with_toolstack(paths: &Paths, request: &mut Request, report: &Path) -> Result<()> {
    artifacts::xl(paths)?;
    (request.tools, request.daemons) = match request.hypervisor {
        Hypervisor::Oxen => (Tools::Oxen, Daemons::Oxen),
        Hypervisor::Xen => (Tools::Debian, Daemons::Debian),
    };
    request.qemu_args = toolstack::plugin(&artifacts::hvcount(paths)?, report, request.hypervisor);
    request.timeout = Some(TOOLSTACK_SECONDS);
    Ok(())
}

/// Bytes of a hypervisor's image in memory: code, data, and what begins as zeroes.
fn image_bytes(paths: &Paths, hypervisor: Hypervisor) -> Result<u64> {
    let image = match hypervisor {
        Hypervisor::Oxen => artifacts::hypervisor(paths)?,
        Hypervisor::Xen => packages::xen_hypervisor(paths)?,
    };
    let bytes = std::fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    let file = object::File::parse(bytes.as_slice()).with_context(|| format!("{}", image.display()))?;
    Ok(file.segments().map(|segment| segment.size()).sum())
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Capture(Rc<RefCell<Vec<u8>>>);

impl Capture {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

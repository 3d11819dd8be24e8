//! One run with a Linux control domain: gather files, make the image, boot, follow, write the fetched files out.
//!
//! Called by `cargo xtask dom0`, the scenario tests and the demo. The steps stand in [`run`] in their order.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::boot;
use super::request::{Emulator, Hypervisor, Request};
use super::run_dir::RunDir;
use super::watch::{News, Sinks, Watch};
use crate::artifacts;
use crate::console::files::State;
use crate::disk::{self, Disks};
use crate::exit::Verdict;
use crate::initramfs::dom0::{self, Daemons, Parts, Tools};
use crate::initramfs::sysroot::Sysroot;
use crate::initramfs::{self, cpio, tree::Tree};
use crate::iso;
use crate::paths::Paths;
use crate::progress;
use crate::provision::kernel_elf;
use crate::provision::packages::{self, KernelFiles};
use crate::qemu::machine;
use crate::qemu::terminal::{self, RawMode};

/// How a run ended, for the caller to report.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The verdict; its code is the command's.
    pub(crate) verdict: Verdict,
    /// The console's log.
    pub(crate) log: PathBuf,
    /// dom0 ended in order, but the machine did not power off.
    pub(crate) power_off_failed: bool,
}

/// How a run shows itself.
pub(crate) struct View<'a> {
    /// Name for the log file.
    pub(crate) name: String,
    /// Where the console goes.
    pub(crate) screen: Box<dyn Write + 'a>,
    /// Told what happens.
    pub(crate) news: Box<dyn FnMut(News<'_>) + 'a>,
}

/// Everything that a run boots from, made and fetched.
pub(crate) struct Prepared {
    /// The host's files.
    pub(super) host: HostFiles,
    /// dom0's initramfs.
    pub(super) initramfs: PathBuf,
    /// Where files of this run go.
    pub(super) run_dir: RunDir,
}

impl Prepared {
    /// The files as an ISO image wants them.
    pub(crate) fn files(&self) -> iso::Files<'_> {
        iso::Files {
            hypervisor: &self.host.hypervisor,
            kernel: &self.host.kernel.image,
            initramfs: Some(&self.initramfs),
        }
    }
}

/// Gathers the files and makes dom0's initramfs, whose init marks its messages with `marker`.
pub(crate) fn prepare(paths: &Paths, request: &Request, marker: &str, name: &str) -> Result<Prepared> {
    let host = gather(paths, request)?;
    let mut tree = match &host.userland {
        Userland::Initramfs(packages) => image(&host, packages, request)?,
        Userland::Disks(_) => {
            let mut tree = Tree::new();
            initramfs::disk::add_service(&mut tree, request.tools);
            tree
        }
    };
    add_run_files(&mut tree, request, marker)?;
    let archive = match &host.userland {
        Userland::Initramfs(_) => cpio::archive(&tree)?,
        Userland::Disks(disks) => {
            let own = &disks.dom0.initramfs;
            let own = std::fs::read(own).with_context(|| format!("cannot read {}", own.display()))?;
            initramfs::disk::initramfs(&own, &tree)?
        }
    };
    let run_dir = RunDir::new(paths, name)?;
    let initramfs = run_dir.write("dom0.cpio", &archive)?;
    Ok(Prepared { host, initramfs, run_dir })
}

/// Boots, follows and ends one machine.
///
/// # Errors
/// Whatever keeps the machine from being started; from then on all is in the verdict.
pub(crate) fn run(paths: &Paths, request: &Request, mut view: View<'_>) -> Result<Outcome> {
    check_targets(request)?;
    let marker = format!("@oxen:{:016x}", RandomState::new().hash_one(0));
    let prepared = prepare(paths, request, &marker, &view.name)?;
    let launch = boot::launch_of(paths, request, &prepared)?;
    let interactive = request.script.is_none();
    (view.news)(News::Booting { log: prepared.run_dir.log_path() });
    let raw = if interactive { RawMode::enter()? } else { None };
    let mut watch = Watch::new(
        &marker,
        request.get.len(),
        request.limit(),
        raw.is_some(),
        Sinks { log: prepared.run_dir.create_log()?, screen: view.screen, news: view.news },
    );
    let end = machine::run(&launch, request.limit(), interactive, &mut watch)?;
    drop(raw);
    let power_off_failed = watch.power_off_failed();
    let verdict = watch.verdict(&end);
    let verdict = write_fetched(request, watch.into_files(), verdict)?;
    Ok(Outcome { verdict, log: prepared.run_dir.log_path().to_path_buf(), power_off_failed })
}

/// The host files of one run.
pub(super) struct HostFiles {
    pub(super) emulator: boot::Program,
    pub(super) hypervisor: PathBuf,
    pub(super) kernel: KernelFiles,
    pub(super) userland: Userland,
}

/// Where dom0's programs come from.
pub(super) enum Userland {
    /// From the initramfs, which is made of these.
    Initramfs(Box<Packages>),
    /// From a disk.
    Disks(Disks),
}

/// What an initramfs is made of.
pub(super) struct Packages {
    guest_kernel: KernelFiles,
    guest_elf: Option<PathBuf>,
    userland: Sysroot,
    oxen_xl: Option<PathBuf>,
    oxen_daemons: Vec<PathBuf>,
}

/// Builds or fetches everything the run needs.
fn gather(paths: &Paths, request: &Request) -> Result<HostFiles> {
    let hypervisor = match request.hypervisor {
        Hypervisor::Oxen => artifacts::hypervisor(paths)?,
        Hypervisor::Xen => packages::xen_hypervisor(paths)?,
    };
    let emulator = boot::program(paths, request.emulator, request.hypervisor)?;
    let (mut kernel, userland) = match request.disk {
        Some(_) => {
            ensure!(request.emulator == Emulator::Qemu, "--disk is for QEMU");
            let disks = disk::ensure(paths)?;
            let kernel = request.kernel.as_deref().map_or(Ok(disks.dom0.kernel.clone()), existing)?;
            (KernelFiles { image: kernel, modules: None }, Userland::Disks(disks))
        }
        None => {
            let kernel = match &request.kernel {
                Some(image) => packages::kernel_files(&existing(image)?),
                None => packages::kernel(paths)?,
            };
            if kernel.modules.is_none() {
                progress::warn(&format!(
                    "no modules beside {}: dom0 has only what this kernel holds itself",
                    kernel.image.display()
                ));
            }
            (kernel, Userland::Initramfs(Box::new(gather_packages(paths, request)?)))
        }
    };
    if request.dom0_elf {
        kernel.image = kernel_elf::unpacked(paths, &kernel.image)?;
    }
    Ok(HostFiles { emulator, hypervisor, kernel, userland })
}

/// Builds or fetches what an initramfs is made of.
fn gather_packages(paths: &Paths, request: &Request) -> Result<Packages> {
    let oxen_xl = match request.tools {
        Tools::Oxen => Some(artifacts::xl(paths)?),
        Tools::Debian => artifacts::existing_xl(paths),
    };
    let oxen_daemons = match request.daemons {
        Daemons::Oxen => artifacts::daemons(paths)?,
        Daemons::Debian => Vec::new(),
    };
    let guest_kernel = match &request.domu_kernel {
        Some(image) => packages::kernel_files(&existing(image)?),
        None => packages::kernel(paths)?,
    };
    let guest_elf = request.domu_elf.then(|| kernel_elf::unpacked(paths, &guest_kernel.image)).transpose()?;
    let userland = Sysroot::new(packages::xen_userland(paths)?);
    Ok(Packages { guest_kernel, guest_elf, userland, oxen_xl, oxen_daemons })
}

fn existing(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find {}", path.display()))
}

/// The folders of `--get` are checked before the boot: nobody wants to learn of them afterwards.
fn check_targets(request: &Request) -> Result<()> {
    for pair in &request.get {
        let parent = match Path::new(&pair.to).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        anyhow::ensure!(parent.is_dir(), "--get {}={}: there is no folder {}", pair.from, pair.to, parent.display());
        anyhow::ensure!(!pair.from.contains('\n'), "--get: a path must not contain a line end");
    }
    Ok(())
}

fn image(host: &HostFiles, files: &Packages, request: &Request) -> Result<Tree> {
    dom0::tree(&Parts {
        userland: &files.userland,
        modules: host.kernel.modules.as_deref(),
        guest_modules: files.guest_kernel.modules.as_deref(),
        guest_kernel: &files.guest_kernel.image,
        guest_elf: files.guest_elf.as_deref(),
        tools: request.tools,
        oxen_xl: files.oxen_xl.as_deref(),
        oxen_daemons: &files.oxen_daemons,
    })
    .context("cannot make dom0's initramfs")
}

/// Adds the script, the files put in, and what init must know.
fn add_run_files(tree: &mut Tree, request: &Request, marker: &str) -> Result<()> {
    for pair in &request.put {
        put(tree, &pair.to, Path::new(&pair.from)).with_context(|| format!("--put {}={}", pair.from, pair.to))?;
    }
    let mode = match &request.script {
        Some(script) => {
            tree.copy("oxen/script", script).context("--script")?;
            "script"
        }
        None => "shell",
    };
    let (rows, columns) = terminal::size()
        .map_or((String::new(), String::new()), |(rows, columns)| (rows.to_string(), columns.to_string()));
    let conf = format!("MARK={marker}\nMODE={mode}\nROWS={rows}\nCOLUMNS={columns}\n");
    tree.file("oxen/run.conf", 0o644, conf.into_bytes());
    let list: String = request.get.iter().map(|pair| format!("{}\n", pair.from)).collect();
    tree.file("oxen/get.list", 0o644, list.into_bytes());
    Ok(())
}

/// Puts a file, or a folder with everything in it.
fn put(tree: &mut Tree, to: &str, from: &Path) -> Result<()> {
    if !from.is_dir() {
        return tree.copy(to, from);
    }
    tree.directory(to);
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("the name {} is not UTF-8", name.display()))?;
        put(tree, &format!("{to}/{name}"), &entry.path())?;
    }
    Ok(())
}

/// Writes the fetched files. A file that did not come spoils a success, and is only mentioned beside a failure.
fn write_fetched(request: &Request, states: Vec<State>, verdict: Verdict) -> Result<Verdict> {
    let mut problems = Vec::new();
    for (pair, state) in request.get.iter().zip(states) {
        match state {
            State::Complete(contents) => {
                std::fs::write(&pair.to, contents).with_context(|| format!("--get: cannot write {}", pair.to))?
            }
            State::Missing => problems.push(format!("dom0 has no file {}", pair.from)),
            State::Incomplete => problems.push(format!("{} did not arrive", pair.from)),
        }
    }
    if problems.is_empty() {
        return Ok(verdict);
    }
    let text = format!("--get: {}", problems.join("; "));
    if verdict == Verdict::Status(0) {
        return Ok(Verdict::Broken(text));
    }
    progress::warn(&text);
    Ok(verdict)
}

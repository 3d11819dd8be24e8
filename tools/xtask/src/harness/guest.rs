//! One run of a bare-metal PVH guest, directly on the hypervisor: as the control domain, or as a guest that another tiny
//! control domain makes (`launcher` of `tests/guests`).
//!
//! The guest's ELF file is the only boot module, or the launcher's one module; under Bochs, GRUB brings them from an image made
//! for the run. Its verdict is read from its console (`console::cases`), the end of its domain from the hypervisor's: the
//! launcher ends as its guest did. Called by `cargo xtask guest` and by layer 2 of the tests.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::boot::{self, Program};
use super::dom0::View;
use super::request::{Emulator, Hypervisor};
use super::run_dir::RunDir;
use crate::console::cases::Cases;
use crate::console::crash::{Detector, DomainEnd, Sign};
use crate::exit::Verdict;
use crate::iso::{self, Entry};
use crate::paths::Paths;
use crate::provision::{grub, packages};
use crate::qemu::command::{Boot, BootModule, Machine};
use crate::qemu::machine::{self, End, Flow, Launch, Link, Observer};
use crate::{artifacts, bochs};

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct GuestRequest {
    /// Which hypervisor boots
    #[arg(long, value_enum, default_value = "oxen")]
    pub(crate) hypervisor: Hypervisor,
    /// Which emulator runs
    #[arg(long, value_enum, default_value = "qemu")]
    pub(crate) emulator: Emulator,
    /// The control domain's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) args: String,
    /// Words added to the hypervisor's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) xen_args: String,
    /// CPU model of QEMU [default: EPYC-v4,+pku for oxen, EPYC,-rdtscp,-monitor for xen]
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Number of physical CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) smp: u32,
    /// Run it as a guest with this many MiB, made by a tiny control domain, instead of as the control domain
    #[arg(long, value_name = "MIB", num_args = 0..=1, default_missing_value = "64")]
    pub(crate) as_guest: Option<u32>,
    /// Number of the guest's CPUs [default: that of the physical ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) vcpus: Option<u32>,
    /// RAM of the machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) mem: u32,
    /// RAM of the control domain in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) dom0_mem: u32,
    /// Count time in instructions
    #[arg(long)]
    pub(crate) icount: bool,
    /// Boot Oxen by its PVH note, from a copy without the multiboot1 header
    #[arg(long, conflicts_with_all = ["grub", "as_guest"])]
    pub(crate) pvh: bool,
    /// Boot by GRUB, from an image made for this run
    #[arg(long)]
    pub(crate) grub: bool,
    /// Time limit in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct GuestOutcome {
    /// The verdict; its code is the command's.
    pub(crate) verdict: Verdict,
    /// Whether the guest itself gave one.
    pub(crate) said: bool,
    /// How the hypervisor says the domain ended.
    pub(crate) domain_end: Option<DomainEnd>,
    /// The console's log.
    pub(crate) log: PathBuf,
}

/// After the guest's verdict: time for its domain to end.
const DOMAIN_END: Duration = Duration::from_secs(20);
/// After a panic's first line: time for the rest of the epitaph.
const EPITAPH: Duration = Duration::from_secs(2);
/// After the hypervisor said that the domain has ended and the machine halts: time for the rest of its words.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// After the hypervisor said that it ends the machine: time for QEMU to end by itself.
const MACHINE_END: Duration = Duration::from_secs(30);

/// Boots one guest.
///
/// # Errors
/// Whatever keeps the machine from being started.
pub(crate) fn run(
    paths: &Paths,
    elf: &Path,
    request: &GuestRequest,
    qemu_args: &[String],
    view: View<'_>,
) -> Result<GuestOutcome> {
    let elf = elf.canonicalize().with_context(|| format!("cannot find {}", elf.display()))?;
    let run_dir = RunDir::new(paths, &view.name)?;
    let launch = launch_of(paths, elf, request, qemu_args, &run_dir)?;
    let mut watch = GuestWatch::new(view, run_dir.create_log()?, request.hypervisor);
    let limit = Duration::from_secs(request.timeout);
    let end = machine::run(&launch, Some(limit), false, &mut watch)?;
    Ok(GuestOutcome {
        verdict: watch.verdict(&end),
        said: watch.cases.any(),
        domain_end: watch.domain_end,
        log: run_dir.log_path().to_path_buf(),
    })
}

/// The process to start. Debian's Xen takes a PVH control domain only where there is an IOMMU, which Bochs has not.
fn launch_of(
    paths: &Paths,
    elf: PathBuf,
    request: &GuestRequest,
    qemu_args: &[String],
    run_dir: &RunDir,
) -> Result<Launch> {
    let (image, cpu, words, device) = match request.hypervisor {
        Hypervisor::Oxen => {
            let mut image = artifacts::hypervisor(paths)?;
            if request.pvh {
                image = artifacts::pvh_variant(paths, &image)?;
            }
            // The model is of processors without protection keys; later ones have them.
            (image, "EPYC-v4,+pku", "", None)
        }
        Hypervisor::Xen => (
            packages::xen_hypervisor(paths)?,
            "EPYC,-rdtscp,-monitor",
            // Loading vector registers at their first use goes wrong here: QEMU's XSAVE raises no #NM.
            " dom0=pvh iommu=no-sharept bootscrub=0 spec-ctrl=eager-fpu",
            Some(["-device", "amd-iommu"]),
        ),
    };
    let vcpus = request.vcpus.unwrap_or(request.smp);
    let line = format!(
        "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all noreboot{words} dom0_mem={0}M,max:{0}M \
         dom0_max_vcpus={1}-{1} {2}",
        request.dom0_mem,
        if request.as_guest.is_some() { 1 } else { vcpus },
        request.xen_args
    );
    let line = line.trim_end();
    let modules = match request.as_guest {
        None => vec![BootModule { path: elf, args: request.args.clone() }],
        Some(mebibytes) => vec![
            BootModule {
                path: artifacts::launcher(paths)?,
                args: format!("vcpus={vcpus} memory={mebibytes} {}", request.args).trim_end().to_owned(),
            },
            BootModule { path: elf, args: String::new() },
        ],
    };
    let program = boot::program(paths, request.emulator, request.hypervisor)?;
    let boot = if request.grub || matches!(program, Program::Bochs(_)) {
        Boot::Iso(grub_image(paths, request.hypervisor, run_dir, &image, line, &modules)?)
    } else {
        Boot::Kernel { image, args: line.to_owned(), modules }
    };
    let qemu = match (program, &boot) {
        (Program::Qemu(qemu), _) => qemu,
        (Program::Bochs(bochs), Boot::Iso(image)) => {
            ensure!(
                request.hypervisor == Hypervisor::Oxen,
                "Xen wants an IOMMU for a PVH control domain, and Bochs has none"
            );
            return bochs.launch(run_dir, image, request.smp, request.mem);
        }
        (Program::Bochs(_), Boot::Kernel { .. }) => bail!("Bochs boots from an image"),
    };
    Machine {
        qemu,
        board: "q35",
        cpu: request.cpu.clone().unwrap_or_else(|| cpu.to_owned()),
        cpus: request.smp,
        memory_mib: request.mem,
        icount: request.icount,
        boot,
        extra: device.into_iter().flatten().map(str::to_owned).chain(qemu_args.iter().cloned()).collect(),
    }
    .launch()
}

/// An image for this run alone, from which GRUB starts the hypervisor with one module or two.
fn grub_image(
    paths: &Paths,
    hypervisor: Hypervisor,
    run_dir: &RunDir,
    image: &Path,
    line: &str,
    modules: &[BootModule],
) -> Result<PathBuf> {
    grub::ensure(paths)?;
    let [first, rest @ ..] = modules else { bail!("there is nothing to boot") };
    let entry = Entry {
        title: "guest".to_owned(),
        protocol: boot::protocol(hypervisor),
        hypervisor_args: line.to_owned(),
        dom0_args: first.args.clone(),
    };
    let out = run_dir.path("boot.iso");
    let second = rest.first().map(|module| module.path.as_path());
    let files = iso::Files { hypervisor: image, kernel: &first.path, initramfs: second };
    iso::make(&out, &files, &[entry], 0)?;
    Ok(out)
}

/// Follows the console.
struct GuestWatch<'a> {
    view: View<'a>,
    log: File,
    cases: Cases,
    detector: Detector,
    panic: bool,
    no_boot: Option<String>,
    domain_end: Option<DomainEnd>,
    /// The hypervisor has said that it ends the machine, too.
    machine_ends: bool,
    hypervisor: Hypervisor,
    ending: bool,
    timed_out: bool,
}

impl<'a> GuestWatch<'a> {
    fn new(view: View<'a>, log: File, hypervisor: Hypervisor) -> Self {
        Self {
            view,
            log,
            cases: Cases::default(),
            detector: Detector::default(),
            panic: false,
            no_boot: None,
            domain_end: None,
            machine_ends: false,
            hypervisor,
            ending: false,
            timed_out: false,
        }
    }

    fn verdict(&self, end: &End) -> Verdict {
        if self.panic {
            return Verdict::HypervisorPanic;
        }
        if let Some(reason) = &self.no_boot {
            return Verdict::Broken(reason.clone());
        }
        // A guest may be made to end by crashing, once it has said its verdict.
        if self.domain_end == Some(DomainEnd::Crash) && !self.cases.any() {
            return Verdict::Dom0Crash;
        }
        if self.timed_out {
            return Verdict::TimedOut;
        }
        match end {
            End::Interrupted => return Verdict::Interrupted("before the end".to_owned()),
            End::Exited { status, messages } if !status.success() && !bochs::is_power_off(messages) => {
                return Verdict::Broken(format!("the emulator ended ({status}): {messages}"));
            }
            End::Stopped if self.machine_ends => {
                return Verdict::Broken("the domain has ended, but the machine has not".to_owned());
            }
            End::Exited { .. } | End::Stopped => {}
        }
        let problems = self.cases.problems();
        if problems.is_empty() { Verdict::Status(0) } else { Verdict::Failed(problems.join("; ")) }
    }
}

impl Observer for GuestWatch<'_> {
    fn console(&mut self, bytes: &[u8], link: &mut Link) -> Flow {
        // The log and the screen only inform; the verdict does not depend on them.
        drop(self.log.write_all(bytes));
        drop(self.view.screen.write_all(bytes).and_then(|()| self.view.screen.flush()));
        let had_verdict = self.cases.any();
        self.cases.feed(bytes);
        if self.cases.any() && !had_verdict {
            self.ending = true;
            link.set_deadline(DOMAIN_END);
        }
        for sign in self.detector.feed(bytes) {
            match sign {
                Sign::HypervisorPanic => {
                    self.panic = true;
                    link.set_deadline(EPITAPH);
                }
                Sign::NoBoot(reason) => {
                    self.no_boot.get_or_insert(reason);
                    link.set_deadline(LAST_WORDS);
                }
                Sign::Dom0(end) => {
                    self.domain_end = Some(end);
                    self.machine_ends = ends_machine(self.hypervisor, end);
                    link.set_deadline(if self.machine_ends { MACHINE_END } else { LAST_WORDS });
                }
                Sign::KernelPanic => continue,
            }
            self.ending = true;
        }
        Flow::Continue
    }

    fn deadline(&mut self, _link: &mut Link) -> Flow {
        self.timed_out = !self.ending;
        Flow::Stop
    }
}

/// Whether QEMU must end with the control domain. A crash halts the machine, because it is always booted with `noreboot`;
/// Debian's Xen also halts where Oxen powers off.
fn ends_machine(hypervisor: Hypervisor, end: DomainEnd) -> bool {
    match (hypervisor, end) {
        (Hypervisor::Oxen, DomainEnd::PowerOff) | (_, DomainEnd::Reboot) => true,
        (Hypervisor::Xen, DomainEnd::PowerOff) | (_, DomainEnd::Crash) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn verdict(text: &str) -> Verdict {
        verdict_of(text, Hypervisor::Xen, &End::Stopped)
    }

    fn verdict_of(text: &str, hypervisor: Hypervisor, end: &End) -> Verdict {
        let view = View { name: String::new(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
        let mut watch = GuestWatch::new(view, tempfile::tempfile().unwrap(), hypervisor);
        let (mut link, _input) = Link::for_test();
        watch.console(text.as_bytes(), &mut link);
        assert_eq!(watch.deadline(&mut link), Flow::Stop);
        watch.verdict(end)
    }

    #[test]
    fn the_machine_must_end_with_its_control_domain() {
        let exited = End::Exited { status: std::process::ExitStatus::from_raw(0), messages: String::new() };
        let off = "GUEST-TEST a PASS\n(XEN) Hardware Dom0 halted: powering off the machine\n";
        let reboot = "GUEST-TEST a PASS\n(XEN) Hardware Dom0 shutdown: rebooting machine\n";
        let crash = "GUEST-TEST a PASS\n(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting.\n";
        let bochs = End::Exited {
            status: std::process::ExitStatus::from_raw(1 << 8),
            messages: "Bochs is exiting with the following message:\n[ACPI  ] ACPI control: soft power off".to_owned(),
        };
        assert_eq!(verdict_of(off, Hypervisor::Oxen, &bochs), Verdict::Status(0));
        let broken = End::Exited {
            status: std::process::ExitStatus::from_raw(1 << 8),
            messages: "Bochs is exiting with the following message:\n[CPU0  ] no such thing".to_owned(),
        };
        assert!(matches!(verdict_of(off, Hypervisor::Oxen, &broken), Verdict::Broken(_)));
        for text in [off, reboot] {
            assert_eq!(verdict_of(text, Hypervisor::Oxen, &exited), Verdict::Status(0));
            assert!(matches!(verdict_of(text, Hypervisor::Oxen, &End::Stopped), Verdict::Broken(_)));
        }
        assert_eq!(verdict_of(off, Hypervisor::Xen, &End::Stopped), Verdict::Status(0), "Xen halts");
        assert_eq!(verdict_of(crash, Hypervisor::Oxen, &End::Stopped), Verdict::Status(0));
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict("GUEST-TEST a PASS\n"), Verdict::Status(0));
        assert_eq!(verdict("GUEST-TEST a FAIL no\n"), Verdict::Failed("a: no".into()));
        assert_eq!(verdict("GUEST-TEST a\n"), Verdict::TimedOut);
        let crashed = "(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.\n";
        assert_eq!(verdict(crashed), Verdict::Dom0Crash);
        assert_eq!(verdict(&format!("GUEST-TEST a PASS\n{crashed}")), Verdict::Status(0));
        assert_eq!(verdict("(XEN) Panic on CPU 0:\n"), Verdict::HypervisorPanic);
        assert_eq!(verdict("(XEN) Oxen cannot start: no\n"), Verdict::Broken("Oxen cannot start: no".into()));
        assert_eq!(
            verdict("hello\n(XEN) Hardware Dom0 halted: halting machine\n"),
            Verdict::Status(0),
            "a guest without verdict only has to end"
        );
    }
}

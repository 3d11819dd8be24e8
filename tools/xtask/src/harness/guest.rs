//! One run of a bare-metal PVH guest as the control domain, directly on Oxen.
//!
//! The guest's ELF file is the only boot module. Its verdict is read from its console (`console::cases`). A guest that
//! gives no verdict succeeds when the machine ends in order. Called by `cargo xtask guest` and by layer 2 of the tests.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::dom0::{Outcome, View};
use super::run_dir::RunDir;
use crate::console::cases::Cases;
use crate::console::crash::{Detector, Sign};
use crate::exit::Verdict;
use crate::paths::Paths;
use crate::provision::qemu;
use crate::qemu::command::{Boot, BootModule, Machine};
use crate::qemu::machine::{self, End, Flow, Link, Observer};

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct GuestRequest {
    /// The guest's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) args: String,
    /// Words added to the hypervisor's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) xen_args: String,
    /// CPU model of QEMU
    #[arg(long, value_name = "MODEL", default_value = "EPYC-v4")]
    pub(crate) cpu: String,
    /// Number of physical CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) smp: u32,
    /// RAM of the machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub(crate) mem: u32,
    /// Count time in instructions
    #[arg(long)]
    pub(crate) icount: bool,
    /// Boot the hypervisor by its PVH note, from a copy without the multiboot1 header
    #[arg(long)]
    pub(crate) pvh: bool,
    /// Time limit in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

/// After the last word of guest or hypervisor: time for the rest to be printed.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Boots one guest on a built hypervisor.
///
/// # Errors
/// Whatever keeps the machine from being started.
pub(crate) fn run(
    paths: &Paths,
    hypervisor: &Path,
    elf: &Path,
    request: &GuestRequest,
    qemu_args: &[String],
    view: View,
) -> Result<Outcome> {
    let elf = elf.canonicalize().with_context(|| format!("cannot find {}", elf.display()))?;
    let run_dir = RunDir::new(paths, &view.name)?;
    let machine = Machine {
        qemu: qemu::stock(paths)?,
        board: "q35",
        cpu: request.cpu.clone(),
        cpus: request.smp,
        memory_mib: request.mem,
        icount: request.icount,
        boot: boot(hypervisor, elf, request),
        extra: qemu_args.to_vec(),
    };
    let mut watch = GuestWatch {
        view,
        log: run_dir.create_log()?,
        cases: Cases::default(),
        detector: Detector::default(),
        panic: false,
        crash: false,
        ending: false,
        timed_out: false,
    };
    let limit = Duration::from_secs(request.timeout);
    let end = machine::run(&machine, Some(limit), false, &mut watch)?;
    Ok(Outcome {
        verdict: watch.verdict(&end),
        log: run_dir.log_path().to_path_buf(),
        power_off_failed: false,
        has_verdict: watch.cases.any(),
    })
}

fn boot(hypervisor: &Path, elf: PathBuf, request: &GuestRequest) -> Boot {
    let line = format!("console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all noreboot {}", request.xen_args);
    Boot::Kernel {
        image: hypervisor.to_path_buf(),
        args: line.trim_end().to_owned(),
        modules: vec![BootModule { path: elf, args: request.args.clone() }],
    }
}

/// Follows the console.
struct GuestWatch {
    view: View,
    log: File,
    cases: Cases,
    detector: Detector,
    panic: bool,
    crash: bool,
    ending: bool,
    timed_out: bool,
}

impl GuestWatch {
    fn verdict(&self, end: &End) -> Verdict {
        if self.panic {
            return Verdict::HypervisorPanic;
        }
        // A hostile guest may well end by crashing, once it has said its verdict.
        if self.crash && !self.cases.any() {
            return Verdict::Dom0Crash;
        }
        if self.timed_out {
            return Verdict::TimedOut;
        }
        match end {
            End::Interrupted => return Verdict::Interrupted("before the verdict".to_owned()),
            End::Exited { status, messages } if !status.success() => {
                return Verdict::Broken(format!("QEMU ended ({status}): {messages}"));
            }
            End::Exited { .. } | End::Stopped => {}
        }
        let problems = self.cases.problems();
        if problems.is_empty() { Verdict::Status(0) } else { Verdict::Failed(problems.join("; ")) }
    }
}

impl Observer for GuestWatch {
    fn console(&mut self, bytes: &[u8], link: &mut Link) -> Flow {
        // The log and the screen only inform; the verdict does not depend on them.
        drop(self.log.write_all(bytes));
        drop(self.view.screen.write_all(bytes).and_then(|()| self.view.screen.flush()));
        self.cases.feed(bytes);
        let mut last_words = self.cases.any();
        for sign in self.detector.feed(bytes) {
            match sign {
                Sign::HypervisorPanic => self.panic = true,
                Sign::Dom0Crash => self.crash = true,
                Sign::Dom0Ended => {}
                Sign::KernelPanic => continue,
            }
            last_words = true;
        }
        if last_words && !self.ending {
            self.ending = true;
            link.set_deadline(LAST_WORDS);
        }
        Flow::Continue
    }

    fn deadline(&mut self, _link: &mut Link) -> Flow {
        self.timed_out = !self.ending;
        Flow::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, limit_passed: bool) -> Verdict {
        let mut watch = GuestWatch {
            view: View { name: String::new(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) },
            log: tempfile::tempfile().unwrap(),
            cases: Cases::default(),
            detector: Detector::default(),
            panic: false,
            crash: false,
            ending: false,
            timed_out: false,
        };
        let (mut link, _input) = Link::for_test();
        watch.console(text.as_bytes(), &mut link);
        if limit_passed {
            assert_eq!(watch.deadline(&mut link), Flow::Stop);
        }
        watch.verdict(&End::Stopped)
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict("GUEST-TEST a PASS\n", true), Verdict::Status(0));
        assert_eq!(verdict("GUEST-TEST a FAIL no\n", true), Verdict::Failed("a: no".into()));
        assert_eq!(verdict("GUEST-TEST a\n", true), Verdict::TimedOut);
        let crashed = "(XEN) Hardware Dom0 crashed: rebooting machine in 5 seconds.\n";
        assert_eq!(verdict(crashed, true), Verdict::Dom0Crash);
        assert_eq!(verdict(&format!("GUEST-TEST a PASS\n{crashed}"), true), Verdict::Status(0));
        assert_eq!(verdict("(XEN) Panic on CPU 0:\n", true), Verdict::HypervisorPanic);
        assert_eq!(
            verdict("hello\n(XEN) Hardware Dom0 halted: halting machine\n", true),
            Verdict::Status(0),
            "a guest without verdict only has to end"
        );
    }
}

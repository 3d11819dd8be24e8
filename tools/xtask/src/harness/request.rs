//! What a caller wants of a run with a Linux control domain. The command line of `cargo xtask dom0` fills it in, and so
//! do the scenario tests from their headers, in the same words.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, ValueEnum};

use crate::initramfs::dom0::{Daemons, Tools};

/// Which hypervisor boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hypervisor {
    /// Ours.
    Oxen,
    /// Debian's Xen 4.17, with a PV dom0.
    Xen,
}

/// Which emulator the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emulator {
    /// QEMU, with its code generator.
    Qemu,
    /// Bochs: slow, without input, always exact, and with what QEMU's AMD model lacks (NRIPS).
    Bochs,
}

/// A device of the machine behind which a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiskDevice {
    /// virtio-blk.
    Virtio,
    /// NVMe.
    Nvme,
    /// A SATA disk at an AHCI controller.
    Ahci,
}

impl DiskDevice {
    /// The device's part of QEMU's command line for the disk numbered `index`, whose drive has the name `drive`.
    pub(crate) fn argument(self, index: usize, drive: &str) -> String {
        match self {
            Self::Virtio => format!("virtio-blk-pci,drive={drive}"),
            Self::Nvme => format!("nvme,drive={drive},serial={drive}"),
            Self::Ahci => format!("ide-hd,bus=ide.{index},drive={drive}"),
        }
    }
}

/// `HOST=DOM0` or `DOM0=HOST`: two paths around the first equals sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPair {
    /// Path before the sign.
    pub(crate) from: String,
    /// Path after it.
    pub(crate) to: String,
}

impl FromStr for PathPair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => {
                Ok(Self { from: from.to_owned(), to: to.to_owned() })
            }
            _ => bail!("expected FROM=TO with two paths"),
        }
    }
}

/// Options of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Request {
    /// Script for dom0's /bin/sh; without it, an interactive shell
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Put a file of this machine into dom0 before it boots (repeatable)
    #[arg(long, value_name = "HOST=DOM0")]
    pub(crate) put: Vec<PathPair>,
    /// Fetch a file out of dom0 at the end, also after a failure (repeatable)
    #[arg(long, value_name = "DOM0=HOST")]
    pub(crate) get: Vec<PathPair>,
    /// dom0's kernel instead of Debian's
    #[arg(long, value_name = "VMLINUZ")]
    pub(crate) kernel: Option<PathBuf>,
    /// The guest kernel at /guest/vmlinuz instead of Debian's
    #[arg(long, value_name = "VMLINUZ")]
    pub(crate) domu_kernel: Option<PathBuf>,
    /// Unpack dom0's kernel beforehand, so that it boots faster
    #[arg(long)]
    pub(crate) dom0_elf: bool,
    /// Unpack the guest kernel beforehand: it is at /guest/vmlinux, too, and /guest/pvh.cfg is created seconds faster
    #[arg(long)]
    pub(crate) domu_elf: bool,
    /// Boot dom0 from a Debian 12 disk (`cargo xtask image`) behind this device, to systemd and a login. A run's writes are
    /// forgotten at its end. The daemons are the disk's own
    #[arg(long, value_enum, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "virtio")]
    pub(crate) disk: Option<DiskDevice>,
    /// Whose toolstack `xl` is in dom0
    #[arg(long, value_enum, default_value = "debian")]
    pub(crate) tools: Tools,
    /// Whose xenstored and xenconsoled run in dom0
    #[arg(long, value_enum, default_value = "debian")]
    pub(crate) daemons: Daemons,
    /// Which hypervisor boots
    #[arg(long, value_enum, default_value = "oxen")]
    pub(crate) hypervisor: Hypervisor,
    /// Which emulator runs
    #[arg(long, value_enum, default_value = "qemu")]
    pub(crate) emulator: Emulator,
    /// CPU model of QEMU [default: EPYC-v4 for oxen, EPYC,-rdtscp,-xsave for xen]
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Number of physical CPUs [default: 2 for oxen, 1 for xen]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub(crate) smp: Option<u32>,
    /// RAM of the machine in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub(crate) mem: u32,
    /// RAM of dom0 in MiB
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    pub(crate) dom0_mem: u32,
    /// Words added to the hypervisor's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) xen_args: String,
    /// Words added to dom0's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) dom0_args: String,
    /// Words added to QEMU's command line; quotes keep spaces
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub(crate) qemu_args: String,
    /// Boot from an ISO image through GRUB (multiboot2) instead of by QEMU's own loader (multiboot1)
    #[arg(long)]
    pub(crate) grub: bool,
    /// Count time in instructions: slower, and every run is the same
    #[arg(long)]
    pub(crate) icount: bool,
    /// Time limit in seconds [default: 600 with a script, none for a shell]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

/// Limit of a run with a script when none is given.
const SCRIPT_LIMIT: Duration = Duration::from_secs(600);

/// A command line that is nothing but a request.
#[derive(Parser)]
#[command(name = "run:", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    request: Request,
}

impl Request {
    /// Reads a request from words such as a scenario's head has.
    ///
    /// # Errors
    /// clap's message about the wrong word.
    pub(crate) fn from_words(words: impl IntoIterator<Item = String>) -> Result<Self> {
        Ok(Line::try_parse_from(words)?.request)
    }

    /// The time limit that holds.
    pub(crate) fn limit(&self) -> Option<Duration> {
        match (self.timeout, &self.script) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, Some(_)) => Some(SCRIPT_LIMIT),
            (None, None) => None,
        }
    }

    /// The number of physical CPUs that holds. Under Debian's Xen a second CPU only slows the emulation down.
    pub(crate) fn cpus(&self) -> u32 {
        self.smp.unwrap_or(match self.hypervisor {
            Hypervisor::Oxen => 2,
            Hypervisor::Xen => 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_begin_with_dashes_are_values() {
        let words =
            ["--hypervisor", "xen", "--qemu-args", "-device edu", "--put", "a=/b", "--put", "c=/d=e", "--script", "s"];
        let request = Request::from_words(words.map(str::to_owned)).unwrap();
        assert_eq!(request.qemu_args, "-device edu");
        assert_eq!(request.put[1].to, "/d=e");
        assert_eq!((request.cpus(), request.limit()), (1, Some(SCRIPT_LIMIT)));
    }

    #[test]
    fn a_pair_without_two_paths_is_an_error() {
        for text in ["a", "=b", "a="] {
            assert!(text.parse::<PathPair>().is_err(), "{text}");
        }
    }
}

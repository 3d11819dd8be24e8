//! Bochs as the machine under test: an emulator whose AMD model gives the next instruction's address at an exit (NRIPS),
//! which QEMU's has not.
//!
//! Slow (some 60 million instructions a second) and exact: its time stamp counter counts instructions. It boots from an ISO
//! image through its BIOS and GRUB, writes its serial port to standard output and reads nothing. It does not end when the
//! machine halts; whoever watches the console stops it. Run by `qemu::machine`, provided by [`crate::provision::packages`].

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::harness::run_dir::RunDir;
use crate::paths::Paths;
use crate::provision::packages;
use crate::qemu::machine::Launch;

/// An unpacked Bochs.
#[derive(Clone, Debug)]
pub(crate) struct Bochs {
    root: PathBuf,
}

/// Instructions in one of the machine's seconds. The guest's time limits are counted in them, so more is kinder to slow
/// software; a kernel takes this for its processor's frequency.
const INSTRUCTIONS_PER_SECOND: u32 = 1_000_000_000;
/// Where the plugins are found, from the run's folder.
const PLUGINS: &str = "plugins";
/// Commands for the debugger that is built into Debian's Bochs: go on.
const COMMANDS: &str = "c\n";

/// Fetches Bochs unless it is there.
pub(crate) fn provide(paths: &Paths) -> Result<Bochs> {
    Ok(Bochs { root: packages::bochs(paths)? })
}

impl Bochs {
    /// The process that boots `image`; its configuration goes into the run's folder.
    pub(crate) fn launch(&self, run: &RunDir, image: &Path, cpus: u32, memory_mib: u32) -> Result<Launch> {
        let log = run.path("bochs.log");
        let configuration = run.write("bochsrc", self.configuration(image, &log, cpus, memory_mib).as_bytes())?;
        let commands = run.write("commands", COMMANDS.as_bytes())?;
        // Bochs 2.7 overruns a buffer when the path of its plugins is long: it finds them by a short one.
        symlink(self.root.join("usr/lib/x86_64-linux-gnu/bochs/plugins"), run.path(PLUGINS))
            .context("cannot make a symbolic link in the run's folder")?;
        let dir = |below: &str| self.root.join(below).display().to_string();
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(dir).join(":");
        Ok(Launch {
            // Its own dynamic loader and libraries: it does not care what this machine has installed.
            program: self.root.join("lib64/ld-linux-x86-64.so.2"),
            arguments: [
                "--library-path".into(),
                libraries.into(),
                self.root.join("usr/bin/bochs-bin").into(),
                "-q".into(),
                "-f".into(),
                configuration.into(),
                "-rc".into(),
                commands.into(),
            ]
            .to_vec(),
            env: vec![("LTDL_LIBRARY_PATH".to_owned(), PLUGINS.to_owned())],
            folder: Some(run.path("")),
        })
    }

    fn configuration(&self, image: &Path, log: &Path, cpus: u32, memory_mib: u32) -> String {
        let file = |below: &str| self.root.join(below).display().to_string();
        format!(
            "config_interface: textconfig\n\
             display_library: rfb, options=\"timeout=0\"\n\
             romimage: file={}\n\
             vgaromimage: file={}\n\
             megs: {memory_mib}\n\
             cpu: model=ryzen, count={cpus}, ips={INSTRUCTIONS_PER_SECOND}\n\
             clock: sync=none, time0=1\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={}, status=inserted\n\
             boot: cdrom\n\
             sound: driver=dummy\n\
             com1: enabled=1, mode=file, dev=/dev/stdout\n\
             log: {}\n\
             panic: action=report\n\
             error: action=ignore\n\
             info: action=ignore\n\
             debug: action=ignore\n",
            file("usr/share/bochs/BIOS-bochs-latest"),
            file("usr/share/vgabios/vgabios.bin"),
            image.display(),
            log.display(),
        )
    }
}

/// Whether the emulator ended because its machine was powered off, which it reports as a failure with exit status 1.
pub(crate) fn is_power_off(messages: &str) -> bool {
    messages.contains("ACPI control: soft power off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_image_and_the_serial_port() {
        let bochs = Bochs { root: "/b".into() };
        let text = bochs.configuration(Path::new("/r/boot.iso"), Path::new("/r/log"), 1, 512);
        assert!(text.contains("path=/r/boot.iso, status=inserted\n"), "{text}");
        assert!(text.contains("cpu: model=ryzen, count=1, ips=1000000000\n"), "{text}");
        assert!(text.contains("com1: enabled=1, mode=file, dev=/dev/stdout\n"), "{text}");
        assert!(text.lines().all(|line| !line.starts_with(' ')), "{text}");
    }
}

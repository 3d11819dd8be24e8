//! Typed QEMU command lines.
//!
//! A [`Machine`] says what is to be booted; [`Machine::arguments`] writes it as QEMU wants it. Built by the commands,
//! run by [`super::machine`].

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::machine::Launch;
use crate::provision::qemu::Qemu;

/// A boot module: a file, and the words that follow its name in the module's command line.
#[derive(Clone, Debug)]
pub(crate) struct BootModule {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its command line; may be empty.
    pub(crate) args: String,
}

/// What the machine starts from.
#[derive(Clone, Debug)]
pub(crate) enum Boot {
    /// QEMU loads the hypervisor itself, by its multiboot1 header or PVH note.
    Kernel {
        /// The hypervisor's image.
        image: PathBuf,
        /// The hypervisor's command line.
        args: String,
        /// Modules, in order.
        modules: Vec<BootModule>,
    },
    /// From an ISO image through the firmware and GRUB.
    Iso(PathBuf),
}

/// One emulated machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The QEMU to run.
    pub(crate) qemu: Qemu,
    /// Machine type, for example q35.
    pub(crate) board: &'static str,
    /// CPU model with its flags.
    pub(crate) cpu: String,
    /// Number of physical CPUs.
    pub(crate) cpus: u32,
    /// RAM in MiB.
    pub(crate) memory_mib: u32,
    /// Count time in instructions, so that runs repeat exactly.
    pub(crate) icount: bool,
    /// What to boot.
    pub(crate) boot: Boot,
    /// Further arguments, already split.
    pub(crate) extra: Vec<String>,
}

impl Machine {
    /// The process to start.
    ///
    /// # Errors
    /// As [`Machine::arguments`].
    pub(crate) fn launch(&self) -> Result<Launch> {
        let Qemu { program, env, .. } = self.qemu.clone();
        Ok(Launch { program, arguments: self.arguments()?, env, folder: None })
    }

    /// All arguments after the program's name. The serial port is on standard input and output.
    ///
    /// # Errors
    /// A file name that QEMU's module list cannot express.
    pub(crate) fn arguments(&self) -> Result<Vec<OsString>> {
        let mut args: Vec<OsString> = self.qemu.first_args.iter().map(OsString::from).collect();
        let cpus = self.cpus.to_string();
        let memory = self.memory_mib.to_string();
        args.extend(
            [
                // Never KVM: where /dev/kvm exists in our surroundings it has no nested virtualisation.
                "-accel",
                "tcg",
                "-machine",
                self.board,
                "-cpu",
                &self.cpu,
                "-smp",
                &cpus,
                "-m",
                &memory,
                "-nodefaults",
                "-net",
                "none",
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
                "-chardev",
                "stdio,id=console,signal=off",
                "-serial",
                "chardev:console",
            ]
            .map(OsString::from),
        );
        if self.icount {
            args.extend(["-icount", "shift=0,sleep=off"].map(OsString::from));
        }
        match &self.boot {
            Boot::Kernel { image, args: line, modules } => {
                args.extend(["-kernel".into(), image.into(), "-append".into(), line.into()]);
                if !modules.is_empty() {
                    args.extend(["-initrd".into(), module_list(modules)?.into()]);
                }
            }
            Boot::Iso(path) => args.extend(["-cdrom".into(), path.into(), "-boot".into(), "d".into()]),
        }
        args.extend(self.extra.iter().map(OsString::from));
        Ok(args)
    }
}

/// The argument of `-initrd`: modules separated by commas, each "FILE WORDS"; a comma inside is doubled.
fn module_list(modules: &[BootModule]) -> Result<String> {
    let mut list = Vec::new();
    for module in modules {
        let Some(path) = module.path.to_str() else {
            bail!("the file name {} is not UTF-8", module.path.display());
        };
        if path.contains(' ') {
            bail!("QEMU cannot load a boot module whose path holds a space: {path}");
        }
        let text = if module.args.is_empty() { path.to_owned() } else { format!("{path} {}", module.args) };
        list.push(text.replace(',', ",,"));
    }
    Ok(list.join(","))
}

/// Splits a person's `--qemu-args` into words; single and double quotes keep spaces.
///
/// # Errors
/// A quote that is not closed.
pub(crate) fn split_words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        bail!("the quote {open} is not closed in: {text}");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, args: &str) -> BootModule {
        BootModule { path: path.into(), args: args.into() }
    }

    #[test]
    fn commas_in_module_arguments_are_doubled_and_separators_are_not() {
        let modules = [module("/a/vmlinuz", "console=hvc0 test=a,b"), module("/a/x,y", "")];
        assert_eq!(module_list(&modules).unwrap(), "/a/vmlinuz console=hvc0 test=a,,b,/a/x,,y");
    }

    #[test]
    fn a_space_in_a_path_is_refused() {
        let error = module_list(&[module("/a b/vmlinuz", "")]).unwrap_err();
        assert!(error.to_string().contains("/a b/vmlinuz"));
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(
            split_words(r#"-device edu  -append 'a "b" c' "" x"y z""#).unwrap(),
            ["-device", "edu", "-append", "a \"b\" c", "", "xy z"]
        );
        assert!(split_words("a 'b").is_err());
    }

    #[test]
    fn a_whole_command_line() {
        let machine = Machine {
            qemu: Qemu {
                program: "qemu".into(),
                first_args: vec!["-L".into(), "/data".into()],
                env: Vec::new(),
                xen_cpu: "EPYC",
            },
            board: "q35",
            cpu: "EPYC-v4".into(),
            cpus: 2,
            memory_mib: 2048,
            icount: true,
            boot: Boot::Kernel {
                image: "/o/oxen".into(),
                args: "console=com1 com1=115200,8n1".into(),
                modules: vec![module("/k", "a=1,2")],
            },
            extra: vec!["-s".into()],
        };
        let line: Vec<String> =
            machine.arguments().unwrap().into_iter().map(|arg| arg.into_string().unwrap()).collect();
        assert_eq!(line[..2], ["-L", "/data"], "a private copy's loader wants its arguments first");
        let after = |name: &str| {
            let at = line.iter().position(|arg| arg == name).unwrap();
            line[at + 1].as_str()
        };
        assert_eq!(after("-append"), "console=com1 com1=115200,8n1", "-append is no list: commas stay");
        assert_eq!(after("-initrd"), "/k a=1,,2");
        assert_eq!(after("-smp"), "2");
        assert_eq!(after("-icount"), "shift=0,sleep=off");
        assert_eq!(line.last().unwrap(), "-s");
    }
}

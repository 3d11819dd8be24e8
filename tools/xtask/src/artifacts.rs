//! Builds our own programs with cargo and puts them where people look for them.
//!
//! The hypervisor lands at `target/oxen/oxen`, our static `xl`, `xenstored` and `xenconsoled` beside it. Called by `cargo xtask build` and by
//! every command that boots Oxen, so that nobody tests an old image.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::changeset;
use crate::paths::Paths;
use crate::progress;

/// One cargo package that gives one program.
struct Program {
    package: &'static str,
    profile: &'static str,
    target: &'static str,
    what: &'static str,
}

const HYPERVISOR: Program =
    Program { package: "oxen", profile: "bare", target: "x86_64-unknown-none", what: "building the hypervisor" };
const XL: Program =
    Program { package: "xl", profile: "release", target: "x86_64-unknown-linux-musl", what: "building xl" };

/// Our daemons; each package gives the program of its name.
const DAEMONS: [Program; 2] =
    [daemon("xenstored", "building xenstored"), daemon("xenconsoled", "building xenconsoled")];

const fn daemon(package: &'static str, what: &'static str) -> Program {
    Program { package, profile: "release", target: "x86_64-unknown-linux-musl", what }
}

const GUESTS: Program =
    Program { package: "guests", profile: "bare", target: "x86_64-unknown-none", what: "building the test guests" };

const HVCOUNT: Program = Program {
    package: "hvcount",
    profile: "release",
    target: "x86_64-unknown-linux-gnu",
    what: "building the instruction counter",
};

/// Builds the hypervisor and gives its path in `target/oxen`. One run of this tool builds it once.
pub(crate) fn hypervisor(paths: &Paths) -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(image) = BUILT.get() {
        return Ok(image.clone());
    }
    let image = build_hypervisor(paths)?;
    Ok(BUILT.get_or_init(|| image).clone())
}

fn build_hypervisor(paths: &Paths) -> Result<PathBuf> {
    let built = cargo_build(paths, &HYPERVISOR)?;
    let [image] = built.as_slice() else {
        bail!("the package oxen must give one program, but gave {}", built.len());
    };
    publish(paths, image, "oxen")
}

/// Builds our xl as a static program. One run of this tool builds it once.
pub(crate) fn xl(paths: &Paths) -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = BUILT.get() {
        return Ok(program.clone());
    }
    let program = build_xl(paths)?;
    Ok(BUILT.get_or_init(|| program).clone())
}

fn build_xl(paths: &Paths) -> Result<PathBuf> {
    let built = cargo_build(paths, &XL)?;
    let Some(program) = built.iter().find(|path| path.ends_with("xl")) else {
        bail!("the package xl gives no program named xl");
    };
    publish(paths, program, "xl")
}

/// Builds our daemons as static programs. One run of this tool builds them once.
pub(crate) fn daemons(paths: &Paths) -> Result<Vec<PathBuf>> {
    static BUILT: OnceLock<Vec<PathBuf>> = OnceLock::new();
    if let Some(programs) = BUILT.get() {
        return Ok(programs.clone());
    }
    let mut programs = Vec::new();
    for daemon in &DAEMONS {
        let built = cargo_build(paths, daemon)?;
        let Some(program) = built.iter().find(|path| path.ends_with(daemon.package)) else {
            bail!("the package {0} gives no program named {0}", daemon.package);
        };
        programs.push(publish(paths, program, daemon.package)?);
    }
    Ok(BUILT.get_or_init(|| programs).clone())
}

/// Builds QEMU's plugin that counts instructions.
pub(crate) fn hvcount(paths: &Paths) -> Result<PathBuf> {
    let built = cargo_build(paths, &HVCOUNT)?;
    let [plugin] = built.as_slice() else {
        bail!("the package hvcount must give one library, but gave {}", built.len());
    };
    publish(paths, plugin, "libhvcount.so")
}

/// The tiny control domain that makes one guest. One run of this tool builds it once.
pub(crate) fn launcher(paths: &Paths) -> Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(launcher) = BUILT.get() {
        return Ok(launcher.clone());
    }
    let guests = test_guests(paths)?;
    let launcher = guests.into_iter().find(|(name, _)| name == "launcher").map(|(_, path)| path);
    let launcher = launcher.context("the package guests has no program named launcher")?;
    Ok(BUILT.get_or_init(|| launcher).clone())
}

/// Builds all test guests; gives their names and files. One run of this tool builds them once.
pub(crate) fn test_guests(paths: &Paths) -> Result<Vec<(String, PathBuf)>> {
    static BUILT: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    if let Some(built) = BUILT.get() {
        return Ok(built.clone());
    }
    let built = build_test_guests(paths)?;
    Ok(BUILT.get_or_init(|| built).clone())
}

fn build_test_guests(paths: &Paths) -> Result<Vec<(String, PathBuf)>> {
    let built = cargo_build(paths, &GUESTS)?;
    Ok(built
        .into_iter()
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.into_owned(), path.clone())
        })
        .collect())
}

/// A copy of the hypervisor without its multiboot1 header, so that QEMU boots it by the PVH note.
///
/// # Errors
/// The image has no multiboot1 header to take away.
pub(crate) fn pvh_variant(paths: &Paths, image: &Path) -> Result<PathBuf> {
    let mut bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let at = multiboot1_header(&bytes).with_context(|| format!("{} has no multiboot1 header", image.display()))?;
    bytes[at..at + 4].fill(0);
    let place = paths.images.join("oxen-pvh");
    let fresh = tempfile::NamedTempFile::new_in(&paths.images)?.into_temp_path();
    std::fs::write(&fresh, &bytes)?;
    fresh.persist(&place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

/// Where a loader finds the header: in the first 8192 bytes, aligned to 4, three words that sum to zero (Multiboot
/// Specification 0.6.96, section 3.1).
fn multiboot1_header(image: &[u8]) -> Option<usize> {
    const MAGIC: u32 = 0x1bad_b002;
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    (0..8192).step_by(4).find(|&at| {
        word(at) == Some(MAGIC)
            && word(at + 4)
                .zip(word(at + 8))
                .is_some_and(|(flags, sum)| MAGIC.wrapping_add(flags).wrapping_add(sum) == 0)
    })
}

/// Our xl if an earlier command has built it.
pub(crate) fn existing_xl(paths: &Paths) -> Option<PathBuf> {
    Some(paths.images.join("xl")).filter(|path| path.is_file())
}

/// Runs `cargo build` and gives the programs that it names in its messages.
fn cargo_build(paths: &Paths, program: &Program) -> Result<Vec<PathBuf>> {
    ensure_target(paths, program.target)?;
    let step = progress::step(program.what);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .current_dir(&paths.root)
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--package", program.package, "--profile", program.profile])
        .args(["--target", program.target])
        .env(changeset::VARIABLE, changeset::of(&paths.root))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    // What the compiler has to say is shown at the end: the spinner would run over it.
    let mut errors = child.stderr.take().context("cargo has no error output")?;
    let diagnostics = thread::spawn(move || {
        let mut text = String::new();
        // A read error only shortens the text.
        drop(errors.read_to_string(&mut text));
        text
    });
    let mut messages = String::new();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line.context("cannot read cargo's messages")?;
        if let Some(name) = compiled(&line) {
            step.now(&name);
        }
        messages += &line;
        messages.push('\n');
    }
    let status = child.wait().context("cannot wait for cargo")?;
    let success = status.success();
    if success {
        step.done();
    } else {
        drop(step);
    }
    eprint!("{}", diagnostics.join().unwrap_or_default());
    if !success {
        bail!(
            "{} failed: cargo's messages are above (package {}, target {})",
            program.what,
            program.package,
            program.target
        );
    }
    Ok(executables(&messages))
}

/// The crate that one of cargo's messages says has just been compiled.
fn compiled(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    let fresh = message.get("fresh")?.as_bool()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    (!fresh).then(|| name.to_owned())
}

/// Makes sure that the toolchain has the standard library of a target. rustup installs what rust-toolchain.toml names
/// together with the toolchain, but not into a toolchain that was there before.
pub(crate) fn ensure_target(paths: &Paths, target: &str) -> Result<()> {
    let is_there = || -> Result<bool> {
        let output = Command::new("rustc")
            .current_dir(&paths.root)
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .context("cannot run rustc")?;
        Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    };
    if is_there()? {
        return Ok(());
    }
    let step = progress::step(&format!("installing the Rust target {target}"));
    rustup_target(paths, "add", target)?;
    if !is_there()? {
        // rustup believes that it is installed although its files are gone.
        rustup_target(paths, "remove", target)?;
        rustup_target(paths, "add", target)?;
    }
    step.done();
    Ok(())
}

fn rustup_target(paths: &Paths, verb: &str, target: &str) -> Result<()> {
    let status = Command::new("rustup")
        .current_dir(&paths.root)
        .args(["--quiet", "target", verb, target])
        .stdin(Stdio::null())
        .status()
        .context("the Rust target is missing, and rustup, which installs it, cannot be run")?;
    if !status.success() {
        bail!("rustup cannot {verb} the Rust target {target}: its message is above");
    }
    Ok(())
}

/// The paths of programs and dynamic libraries in cargo's JSON messages.
fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            // Procedural macros are dynamic libraries, too, but no product.
            let kinds = message.get("target")?.get("crate_types").and_then(Value::as_array);
            let is_library = kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"));
            let files = message.get("filenames").and_then(Value::as_array).filter(|_| is_library);
            let library = || files?.iter().filter_map(Value::as_str).find(|name| name.ends_with(".so"));
            message.get("executable").and_then(Value::as_str).or_else(library).map(PathBuf::from)
        })
        .collect()
}

/// Copies a built program into `target/oxen`. The old file is replaced in one step: a QEMU may be reading it.
fn publish(paths: &Paths, built: &Path, name: &str) -> Result<PathBuf> {
    let place = paths.images.join(name);
    let fresh = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(&paths.images)
        .context("cannot write into target/oxen")?
        .into_temp_path();
    std::fs::copy(built, &fresh).with_context(|| format!("cannot copy {} to {}", built.display(), place.display()))?;
    fresh.persist(&place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multiboot1_header_is_found_by_its_sum() {
        let mut image = vec![0_u8; 9000];
        image[64..68].copy_from_slice(&0x1bad_b002_u32.to_le_bytes());
        assert_eq!(multiboot1_header(&image), None, "the sum is wrong");
        image[72..76].copy_from_slice(&0x1bad_b002_u32.wrapping_neg().to_le_bytes());
        assert_eq!(multiboot1_header(&image), Some(64));
        assert_eq!(multiboot1_header(&image[..70]), None);
    }

    #[test]
    fn what_was_compiled_is_named_and_what_was_there_is_not() {
        let message =
            |fresh| format!(r#"{{"reason":"compiler-artifact","target":{{"name":"image"}},"fresh":{fresh}}}"#);
        assert_eq!(compiled(&message(false)).as_deref(), Some("image"));
        assert_eq!(compiled(&message(true)), None);
        assert_eq!(compiled(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["proc-macro"]},"filenames":["/t/libmacro.so"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"crate_types":["cdylib"]},"filenames":["/t/libx.so"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"oxen"},"executable":"/t/x/oxen"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), ["/t/libx.so", "/t/x/oxen"].map(PathBuf::from));
    }
}

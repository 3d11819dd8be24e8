//! Into the background: the program starts itself anew, in a session of its own, and waits until that one is ready.
//!
//! So nothing has to be forked, and a failure to start is seen by whoever started it. In the foreground the service manager is
//! told, if there is one.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio, id};

use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::notify;

/// What the process in the background says when it is ready.
const READY: &str = "ready";
/// The hidden option that says that this is that process.
pub const OPTION: &str = "--in-background";

/// What is said of a failure.
pub type Result<T> = std::result::Result<T, String>;

/// What a daemon does when it is ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready<'a> {
    /// Where the process id goes.
    pub pid_file: Option<&'a Path>,
    /// Whether it is printed, too.
    pub print_pid: bool,
    /// Whether this is the process in the background.
    pub in_background: bool,
}

/// Starts the daemon, whose name this is, in the background, with the same arguments and [`OPTION`]; comes back when it is ready.
///
/// # Errors
/// It did not start; it has said why.
pub fn start(name: &str) -> Result<()> {
    // By its path, so that lists of processes show its name.
    let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let mut child = Command::new(program)
        .arg0(name)
        .args(std::env::args_os().skip(1))
        .arg(OPTION)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("starting the daemon: {error}"))?;
    let output = child.stdout.take().ok_or("the daemon has no output")?;
    for line in BufReader::new(output).lines() {
        match line {
            Ok(line) if line == READY => return Ok(()),
            Ok(line) => println!("{line}"),
            Err(error) => return Err(format!("hearing of the daemon: {error}")),
        }
    }
    Err("the daemon ended before it was ready".to_owned())
}

impl Ready<'_> {
    /// The daemon is ready: writes its process id, and lets go of whoever started it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say(self) -> Result<()> {
        if let Some(path) = self.pid_file {
            fs::write(path, format!("{}\n", id())).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if self.print_pid {
            println!("{}", id());
        }
        if !self.in_background {
            return notify::ready().map_err(|error| format!("telling the service manager: {error}"));
        }
        let failed = |error: std::io::Error| format!("leaving the terminal: {error}");
        // It fails only for the leader of a process group, which the process that was started is not.
        setsid().map_err(|error| failed(error.into()))?;
        std::env::set_current_dir("/").map_err(failed)?;
        writeln!(stdout(), "{READY}").and_then(|()| stdout().flush()).map_err(failed)?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
        dup2_stdin(&null)
            .and_then(|()| dup2_stdout(&null))
            .and_then(|()| dup2_stderr(&null))
            .map_err(|error| failed(error.into()))
    }
}

//! The command line, in the words of Xen 4.17's C xenstored.
//!
//! `main` parses it; `crate::daemon` runs by it.

use std::path::PathBuf;

use clap::Parser;

use crate::limits::Limits;

/// The xenstore daemon.
#[derive(Clone, Debug, Parser)]
#[command(name = "xenstored", disable_help_flag = true, disable_version_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Options {
    /// Print help
    #[arg(short = 'H', long, visible_short_alias = 'h', action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Do not connect to the control domain's kernel
    #[arg(short = 'D', long)]
    pub(crate) no_domain_init: bool,
    /// Write the daemon's process id to a file
    #[arg(short = 'F', long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short = 'N', long)]
    pub(crate) no_fork: bool,
    /// Print the daemon's process id
    #[arg(short = 'P', long)]
    pub(crate) output_pid: bool,
    /// Log requests to a file
    #[arg(short = 'T', long, value_name = "FILE")]
    pub(crate) trace_file: Option<PathBuf>,
    /// Nodes a domain may own [default: 1000]
    #[arg(short = 'E', long, value_name = "N")]
    entry_nb: Option<u64>,
    /// Bytes of a node [default: 2048]
    #[arg(short = 'S', long, value_name = "BYTES")]
    entry_size: Option<u64>,
    /// Watches of a domain [default: 128]
    #[arg(short = 'W', long, value_name = "N")]
    watch_nb: Option<u64>,
    /// Open transactions of a domain [default: 10]
    #[arg(short = 't', long, value_name = "N")]
    transaction: Option<u64>,
    /// Permissions of a node [default: 5]
    #[arg(short = 'A', long, value_name = "N")]
    perm_nb: Option<u64>,
    /// Bytes of a path [default: 3072]
    #[arg(short = 'M', long, value_name = "BYTES")]
    path_max: Option<u64>,
    /// Another limit: transaction-nodes, memory, outstanding, or any name that `xenstore-control quota` lists (repeatable)
    #[arg(short = 'Q', long, value_name = "WHAT=N", value_parser = pair)]
    quota: Vec<(String, u64)>,
    /// A limit above which the log says so: memory (repeatable)
    #[arg(short = 'q', long, value_name = "WHAT=N", value_parser = pair)]
    quota_soft: Vec<(String, u64)>,
    /// Accepted and without effect: no client waits for another (repeatable)
    #[arg(short = 'w', long, value_name = "WHAT=SECONDS", value_parser = pair)]
    timeout: Vec<(String, u64)>,
    /// Begin with an empty store instead of that of an earlier daemon
    #[arg(short = 'R', long)]
    pub(crate) no_recovery: bool,
    /// Accepted and without effect: the store is always in memory
    #[arg(short = 'I', long, value_name = "on|off", num_args = 0..=1)]
    internal_db: Option<Option<String>>,
    /// Keep the nodes of domains that are gone
    #[arg(short = 'K', long)]
    pub(crate) keep_orphans: bool,
    /// Say more
    #[arg(short = 'V', long)]
    pub(crate) verbose: bool,
    /// Where socket and state are
    #[arg(long, value_name = "DIR", env = "XENSTORED_RUNDIR", default_value = "/run/xenstored")]
    pub(crate) run_dir: PathBuf,
    /// The process in the background itself
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,
}

/// `NAME=NUMBER`.
fn pair(text: &str) -> Result<(String, u64), String> {
    let pair = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    pair.ok_or_else(|| format!("expected WHAT=NUMBER instead of \"{text}\""))
}

impl Options {
    /// The limits.
    ///
    /// # Errors
    /// The name of a limit that there is none of.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        let mut limits = Limits::default();
        let options = [
            ("nodes", self.entry_nb),
            ("node-size", self.entry_size),
            ("watches", self.watch_nb),
            ("transactions", self.transaction),
            ("node-permissions", self.perm_nb),
            ("path-max", self.path_max),
        ];
        let named = options.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
        let quotas = self.quota.iter().map(|(name, value)| (name.as_str(), *value));
        for (name, value) in named.chain(quotas) {
            if !limits.set(name, value) {
                return Err(format!("there is no limit \"{name}\""));
            }
        }
        for (name, value) in &self.quota_soft {
            if name != "memory" {
                return Err(format!("there is no soft limit \"{name}\""));
            }
            limits.memory_soft = *value;
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::try_parse_from([&["xenstored"], words].concat()).expect("is a command line")
    }

    #[test]
    fn limits_are_set_by_xens_options() {
        let options =
            parse(&["-E", "7", "--entry-size=9", "-Q", "outstanding=3", "--quota", "memory=4", "-q", "memory=2"]);
        let limits = options.limits().expect("are limits");
        assert_eq!((limits.nodes, limits.node_size, limits.outstanding), (7, 9, 3));
        assert_eq!((limits.memory, limits.memory_soft, limits.watches), (4, 2, 128));
        assert!(parse(&["-Q", "nothing=1"]).limits().is_err());
        assert!(Options::try_parse_from(["xenstored", "-Q", "memory"]).is_err());
    }

    #[test]
    fn everyday_command_lines() {
        let options =
            parse(&["--pid-file", "/run/xen/xenstored.pid", "-N", "--verbose", "-I", "on", "-w", "watch-event=20"]);
        assert!(options.no_fork && options.verbose && !options.no_domain_init);
        assert_eq!(options.run_dir, PathBuf::from("/run/xenstored"));
        assert!(parse(&["-D", "-K", "-R", "-P"]).keep_orphans);
    }
}

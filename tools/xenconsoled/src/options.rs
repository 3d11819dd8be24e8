//! The command line, in the words of Xen 4.17's xenconsoled, with limits of logs added.
//!
//! `lib` parses it; `crate::daemon` runs by it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Whose console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whose {
    /// Nobody's
    None,
    /// The guests'
    Guest,
    /// The hypervisor's
    Hv,
    /// Both
    All,
}

impl Whose {
    /// Whether guests are among them.
    pub(crate) fn has_guests(self) -> bool {
        matches!(self, Whose::Guest | Whose::All)
    }

    /// Whether the hypervisor is among them.
    pub(crate) fn has_hypervisor(self) -> bool {
        matches!(self, Whose::Hv | Whose::All)
    }
}

/// What happens with output that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overflow {
    /// The oldest is forgotten
    Discard,
    /// The guest has to wait
    Keep,
}

/// The console daemon.
#[derive(Clone, Debug, Parser)]
#[command(name = "xenconsoled", version, disable_help_flag = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Options {
    /// Print help
    #[arg(short, long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Say more
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Whose output is written to log files
    #[arg(short, long, value_enum, default_value = "none")]
    pub(crate) log: Whose,
    /// Where log files are
    #[arg(short = 'r', long, value_name = "DIR", default_value = "/var/log/xen/console")]
    pub(crate) log_dir: PathBuf,
    /// Where the process id is written; locked as long as the daemon lives
    #[arg(short, long, value_name = "PATH", default_value = "/run/xen/xenconsoled.pid")]
    pub(crate) pid_file: PathBuf,
    /// Whose log files have the time in front of each line
    #[arg(short, long, value_enum, default_value = "none")]
    pub(crate) timestamp: Whose,
    /// What happens with output that nobody reads
    #[arg(short, long, value_enum, default_value = "discard")]
    pub(crate) overflow_data: Overflow,
    /// Write a dot for each ESC character to log files
    #[arg(short = 'e', long)]
    pub(crate) replace_escape: bool,
    /// Size above which a log file is put aside under a number: bytes, or with k, M or G; 0 for no limit
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub(crate) log_size: u64,
    /// How many log files that were put aside are kept
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) log_files: u32,
    /// The process in the background itself
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,
}

/// A number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        Some(digits) => match text.as_bytes().last() {
            Some(b'k' | b'K') => (digits, 10),
            Some(b'm' | b'M') => (digits, 20),
            _ => (digits, 30),
        },
        None => (text, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| format!("expected a number of bytes instead of \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::try_parse_from([&["xenconsoled"], words].concat()).expect("is a command line")
    }

    #[test]
    fn everyday_command_lines() {
        let options = parse(&["--log=guest", "--log-dir=/x", "--pid-file=/y", "--timestamp=all", "-o", "keep"]);
        assert!(options.log.has_guests() && !options.log.has_hypervisor() && !options.interactive);
        assert!(options.timestamp.has_guests() && options.timestamp.has_hypervisor());
        assert_eq!((options.log_dir, options.overflow_data), (PathBuf::from("/x"), Overflow::Keep));
        let options = parse(&["-i", "-v", "-l", "hv", "-r", "/x", "-p", "/y", "-t", "none", "--replace-escape"]);
        assert!(options.interactive && options.replace_escape && options.log.has_hypervisor());
        assert_eq!(parse(&[]).log, Whose::None);
        assert!(Options::try_parse_from(["xenconsoled", "--log=some"]).is_err());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((size("7"), size("3k"), size("2M"), size("1G")), (Ok(7), Ok(3 << 10), Ok(2 << 20), Ok(1 << 30)));
        assert!(size("x").is_err() && size("").is_err() && size("99999999999G").is_err());
        assert_eq!((parse(&[]).log_size, parse(&["--log-size=0"]).log_size), (16 << 20, 0));
    }
}

//! Exit codes of the commands that boot a machine, and how a run's end becomes one of them.
//!
//! The codes are part of the harness's interface (issue 2, item 6): a script's own status 0..=119 is passed through.

use std::process::ExitCode;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The script, shell or test guest ended with this status.
    Status(u8),
    /// A test guest says that it failed; with its reason.
    Failed(String),
    /// The hypervisor stopped with a panic.
    HypervisorPanic,
    /// dom0's kernel crashed.
    Dom0Crash,
    /// The machine did not come up, or the harness failed; with the reason.
    Broken(String),
    /// The time limit passed.
    TimedOut,
    /// Ctrl-C or another request to end; with what was reached.
    Interrupted(String),
}

/// Highest status of a script that is passed through.
const HIGHEST_STATUS: u8 = 119;

impl Verdict {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Status(status) => (*status).min(HIGHEST_STATUS),
            Self::Failed(_) => 1,
            Self::HypervisorPanic => 120,
            Self::Dom0Crash => 121,
            Self::Broken(_) | Self::Interrupted(_) => 122,
            Self::TimedOut => 124,
        }
    }

    /// The same for the end of `main`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// One line for a person.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Status(0) => "succeeded".to_owned(),
            Self::Status(status) if *status > HIGHEST_STATUS => {
                format!("ended with status {status}, reported as {HIGHEST_STATUS}")
            }
            Self::Status(status) => format!("ended with status {status}"),
            Self::HypervisorPanic => "the hypervisor panicked".to_owned(),
            Self::Dom0Crash => "dom0 crashed".to_owned(),
            Self::Failed(reason) | Self::Broken(reason) => reason.clone(),
            Self::Interrupted(reached) => format!("interrupted; {reached}"),
            Self::TimedOut => "the time limit passed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        assert_eq!(Verdict::Status(0).code(), 0);
        assert_eq!(Verdict::Status(119).code(), 119);
        assert_eq!(Verdict::Status(120).code(), 119, "not to be taken for a panic");
        assert_eq!(Verdict::Status(255).code(), 119);
        assert_eq!(Verdict::Failed(String::new()).code(), 1);
        assert_eq!(Verdict::HypervisorPanic.code(), 120);
        assert_eq!(Verdict::Dom0Crash.code(), 121);
        assert_eq!(Verdict::Broken(String::new()).code(), 122);
        assert_eq!(Verdict::TimedOut.code(), 124);
        assert!(Verdict::Status(127).describe().contains("127"));
    }
}

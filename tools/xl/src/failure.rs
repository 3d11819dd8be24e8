//! Why a command failed, in one message for the user.

use std::fmt;

/// A message that says what failed, why, and what to do where there is something to do; empty if nobody is there to read it.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with a message.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure(message.into())
    }

    /// A failure that is not worth a message: the reader of the output has gone.
    pub fn silent() -> Failure {
        Failure(String::new())
    }

    /// Whether there is no message.
    pub fn is_silent(&self) -> bool {
        self.0.is_empty()
    }

    /// The same failure, with what was being done in front.
    #[must_use]
    pub fn while_doing(self, doing: impl fmt::Display) -> Failure {
        Failure(format!("{doing}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<libxc::Error> for Failure {
    fn from(error: libxc::Error) -> Self {
        Failure(error.to_string())
    }
}

/// The outcome of something that a command does.
pub type Outcome<T = ()> = Result<T, Failure>;

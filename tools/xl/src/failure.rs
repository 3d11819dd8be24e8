//! Why a command failed, in one message for the user, and the exit code that goes with it.

use std::fmt;

/// A message that says what failed, why, and what to do where there is something to do; empty if nobody is there to read it.
#[derive(Debug)]
pub struct Failure {
    message: String,
    /// `None`: the usual one.
    code: Option<u8>,
}

/// The exit code of almost every failure.
const FAILURE: u8 = 1;

impl Failure {
    /// A failure with a message.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: without_numbers(message.into()), code: None }
    }

    /// A failure that is not worth a message: the reader of the output has gone.
    pub fn silent() -> Failure {
        Failure { message: String::new(), code: None }
    }

    /// Whether there is no message.
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// The same failure, with what was being done in front; one without a message stays without.
    #[must_use]
    pub fn while_doing(self, doing: impl fmt::Display) -> Failure {
        if self.is_silent() { self } else { Failure { message: format!("{doing}: {}", self.message), code: self.code } }
    }

    /// The same failure with another exit code. `xl create` has several, as Xen's has: scripts may look at them.
    #[must_use]
    pub fn with_code(self, code: u8) -> Failure {
        Failure { code: Some(code), ..self }
    }

    /// The same failure with another exit code, unless it has got one already.
    #[must_use]
    pub fn or_code(self, code: u8) -> Failure {
        Failure { code: self.code.or(Some(code)), ..self }
    }

    /// The exit code, 1 to 255.
    pub fn code(&self) -> u8 {
        self.code.unwrap_or(FAILURE)
    }
}

/// The text without Rust's " (os error 2)" behind a reason of the kernel's: the words before it say the same.
fn without_numbers(mut text: String) -> String {
    const START: &str = " (os error ";
    while let Some(start) = text.find(START) {
        let Some(length) = text[start..].find(')') else { break };
        text.replace_range(start..=start + length, "");
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<libxc::Error> for Failure {
    fn from(error: libxc::Error) -> Self {
        Failure::new(error.to_string())
    }
}

/// The outcome of something that a command does.
pub type Outcome<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_words_without_a_number() {
        let error = std::io::Error::from_raw_os_error(2);
        let failure = Failure::new(format!("kernel: /x: {error}; ramdisk: /y: {error}"));
        let reason = "No such file or directory";
        assert_eq!(failure.to_string(), format!("kernel: /x: {reason}; ramdisk: /y: {reason}"));
        assert_eq!(Failure::new("ends in (os error 2").to_string(), "ends in (os error 2");
    }

    #[test]
    fn the_code_stays_when_words_are_added() {
        let failure = Failure::new("no memory").with_code(3).while_doing("creating");
        assert_eq!((failure.to_string().as_str(), failure.code()), ("creating: no memory", 3));
        assert_eq!(Failure::new("x").code(), 1);
        assert_eq!(Failure::new("x").or_code(3).or_code(6).code(), 3);
    }
}

//! The person's terminal while an interactive shell of dom0 is on it.
//!
//! Raw mode passes every key to dom0, Ctrl-C included. Ctrl-A is the one key kept here, as in QEMU: Ctrl-A X ends the
//! machine, Ctrl-A Ctrl-A sends a Ctrl-A. The old mode comes back when the [`RawMode`] is dropped.

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

const CTRL_A: u8 = 1;

/// Keeps the terminal in raw mode while it lives.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches standard input to raw mode; none when it is not a terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before) {
            eprintln!("cannot restore the terminal's mode ({error}); `stty sane` does");
        }
    }
}

/// The terminal's rows and columns.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// What the keys mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Send these bytes to the machine.
    Send(Vec<u8>),
    /// End the machine.
    Quit,
}

/// Finds the Ctrl-A commands among the keys.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    pending: bool,
}

impl Escape {
    /// Takes the next keys.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Keys {
        let mut out = Vec::new();
        for &byte in bytes {
            if std::mem::take(&mut self.pending) {
                match byte {
                    b'x' | b'X' => return Keys::Quit,
                    CTRL_A => out.push(CTRL_A),
                    other => out.extend([CTRL_A, other]),
                }
            } else if byte == CTRL_A {
                self.pending = true;
            } else {
                out.push(byte);
            }
        }
        Keys::Send(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(b"ls\x01"), Keys::Send(b"ls".to_vec()));
        assert_eq!(escape.feed(b"\x01b"), Keys::Send(b"\x01b".to_vec()));
        assert_eq!(escape.feed(b"\x01c"), Keys::Send(b"\x01c".to_vec()));
        assert_eq!(escape.feed(b"\x01"), Keys::Send(Vec::new()));
        assert_eq!(escape.feed(b"x"), Keys::Quit);
    }
}

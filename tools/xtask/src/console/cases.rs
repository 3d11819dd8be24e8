//! The verdict lines of tiny bare-metal guests (package `guests`).
//!
//! Each guest prints one line in the end, `GUEST-TEST NAME PASS` or `GUEST-TEST NAME FAIL REASON`, and then shuts its
//! domain down. The words may stand at the end of a line that someone else began. A guest that ends without the line has
//! failed.

/// What a guest has said.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    line: Vec<u8>,
    /// Name of each verdict, and the reason of a failure.
    seen: Vec<(String, Result<(), String>)>,
}

/// Enough of a line to hold a verdict and its reason.
const LONGEST: usize = 1024;

impl Cases {
    /// Takes more console text.
    pub(crate) fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                if let Some((_, rest)) = line.split_once("GUEST-TEST ") {
                    self.seen.extend(parse(rest.trim_end()));
                }
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
    }

    /// Whether the guest has given a verdict.
    pub(crate) fn any(&self) -> bool {
        !self.seen.is_empty()
    }

    /// The failures; none for a success.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.seen.iter().filter_map(|(name, end)| Some(format!("{name}: {}", end.as_ref().err()?))).collect()
    }
}

fn parse(rest: &str) -> Option<(String, Result<(), String>)> {
    let (name, end) = rest.split_once(' ')?;
    let end = match end.split_once(' ').unwrap_or((end, "")) {
        ("PASS", _) => Ok(()),
        ("FAIL", "") => Err("no reason given".to_owned()),
        ("FAIL", reason) => Err(reason.to_owned()),
        _ => return None,
    };
    Some((name.to_owned(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(text: &str) -> Cases {
        let mut cases = Cases::default();
        cases.feed(text.as_bytes());
        cases
    }

    #[test]
    fn a_pass_stands_anywhere_in_a_line() {
        let cases = cases("(XEN) x\r\nhalf a line GUEST-TEST msr_scan PASS\r\n");
        assert!(cases.any());
        assert_eq!(cases.problems(), Vec::<String>::new());
    }

    #[test]
    fn failures_carry_their_reason() {
        let text = "GUEST-TEST a FAIL got 3, want 4\nGUEST-TEST b FAIL\n";
        assert_eq!(cases(text).problems(), ["a: got 3, want 4", "b: no reason given"]);
    }

    #[test]
    fn half_a_verdict_is_none() {
        assert!(!cases("GUEST-TEST a PA(XEN) x\nGUEST-TEST a PASS").any());
    }
}

//! The verdict lines of tiny bare-metal guests (package `guests`).
//!
//! A guest prints one line per case, `@test NAME ok`, `@test NAME failed: WHY` or `@test NAME skipped: WHY`, and at the
//! end `@done COUNT` with the number of those lines, so that a lost line is no silent success. The lines may stand at the
//! end of a line that someone else began.

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// As it should.
    Ok,
    /// With the reason.
    Failed(String),
    /// Not possible on this machine, with the reason.
    Skipped(String),
}

/// All cases that a guest has reported.
#[derive(Debug, Default)]
pub(crate) struct Cases {
    line: Vec<u8>,
    /// Name and end of each case, in order.
    pub(crate) seen: Vec<(String, Case)>,
    /// The count of `@done`, once it was printed.
    pub(crate) done: Option<usize>,
}

/// Enough of a line to hold a case and its reason.
const LONGEST: usize = 1024;

impl Cases {
    /// Takes more console text.
    pub(crate) fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                self.take_line(line.trim_end());
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("@test ") {
            self.seen.extend(parse_case(rest));
        } else if let Some((_, count)) = line.split_once("@done ") {
            self.done = count.trim().parse().ok();
        }
    }

    /// Whether the guest reported anything in this form.
    pub(crate) fn any(&self) -> bool {
        !self.seen.is_empty() || self.done.is_some()
    }

    /// What is wrong with a guest that has ended; nothing for a success.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .seen
            .iter()
            .filter_map(|(name, case)| match case {
                Case::Failed(why) => Some(format!("{name}: {why}")),
                Case::Ok | Case::Skipped(_) => None,
            })
            .collect();
        match self.done {
            None => problems.push("the guest ended without @done".to_owned()),
            Some(count) if count != self.seen.len() => {
                problems.push(format!("the guest says that it reported {count} cases, but {} arrived", self.seen.len()))
            }
            Some(0) => problems.push("the guest reported no case".to_owned()),
            Some(_) => {}
        }
        problems
    }
}

fn parse_case(rest: &str) -> Option<(String, Case)> {
    let (name, end) = rest.split_once(' ')?;
    let case = if end == "ok" {
        Case::Ok
    } else if let Some(why) = end.strip_prefix("failed: ") {
        Case::Failed(why.to_owned())
    } else {
        Case::Skipped(end.strip_prefix("skipped: ")?.to_owned())
    };
    Some((name.to_owned(), case))
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
    fn all_well() {
        let cases = cases("(XEN) x\r\n@test a ok\r\nhalf a line @test b skipped: no x2APIC\r\n@done 2\r\n");
        assert!(cases.any());
        assert_eq!(cases.problems(), Vec::<String>::new());
        assert_eq!(cases.seen[1].1, Case::Skipped("no x2APIC".into()));
    }

    #[test]
    fn failures_lost_lines_and_silence_are_problems() {
        assert_eq!(cases("@test a failed: got 3\n@done 1\n").problems(), ["a: got 3"]);
        assert_eq!(cases("@test a ok\n@done 2\n").problems().len(), 1);
        assert_eq!(cases("@test a ok\n").problems(), ["the guest ended without @done"]);
        assert_eq!(cases("@done 0\n").problems(), ["the guest reported no case"]);
        assert!(!cases("hello\n@tes").any());
    }
}

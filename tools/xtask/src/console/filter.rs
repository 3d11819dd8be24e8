//! Separates messages of our init from everything else on a console.
//!
//! A message is a line, or the end of a line, that begins with a marker: `@oxen:NONCE `, with a number that is different
//! in every run, so that nothing printed by a guest is taken for one. The console is shared: the hypervisor and dom0's
//! kernel may print in the middle of a line. Therefore a message ends in ` ;`, and what is cut off is dropped here;
//! senders repeat what matters. Bytes that are no message are passed on at once, as an interactive shell needs it.

/// What the filter makes of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Console output for people.
    Text(Vec<u8>),
    /// A message without marker and terminator.
    Message(String),
}

/// State between two reads of the console.
#[derive(Debug)]
pub(crate) struct Filter {
    marker: Vec<u8>,
    /// A beginning of the marker, or a marker and a message's beginning.
    held: Vec<u8>,
}

/// Longer lines are not ours; a lost line end must not swallow the console.
const LONGEST: usize = 4096;

impl Filter {
    /// A filter for one run's marker.
    pub(crate) fn new(marker: &str) -> Self {
        Self { marker: marker.as_bytes().to_vec(), held: Vec::new() }
    }

    /// Takes the next bytes of the console.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        for &byte in bytes {
            if self.held.len() < self.marker.len() {
                self.match_marker(byte, &mut text);
            } else if byte == b'\n' {
                let line = std::mem::take(&mut self.held);
                if let Some(message) = complete(&line[self.marker.len()..]) {
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(Piece::Message(message));
                }
            } else {
                self.held.push(byte);
                if self.held.len() > LONGEST {
                    text.append(&mut self.held);
                }
            }
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        pieces
    }

    /// One byte while the marker is not complete. The marker's first byte occurs only at its start, so a mismatch can
    /// begin a new marker but never continue the old one.
    fn match_marker(&mut self, byte: u8, text: &mut Vec<u8>) {
        if self.marker[self.held.len()] == byte {
            self.held.push(byte);
            return;
        }
        text.append(&mut self.held);
        if self.marker[0] == byte {
            self.held.push(byte);
        } else {
            text.push(byte);
        }
    }
}

/// The message of a line after its marker, if it is whole.
fn complete(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    text.trim_end_matches('\r').strip_suffix(" ;").map(|message| message.trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&str]) -> (String, Vec<String>) {
        let mut filter = Filter::new("@oxen:7");
        let (mut text, mut messages) = (String::new(), Vec::new());
        for chunk in chunks {
            for piece in filter.feed(chunk.as_bytes()) {
                match piece {
                    Piece::Text(bytes) => text.push_str(&String::from_utf8(bytes).unwrap()),
                    Piece::Message(message) => messages.push(message),
                }
            }
        }
        (text, messages)
    }

    #[test]
    fn messages_are_taken_out_wherever_the_reads_cut_them() {
        let whole = "boot\r\n@oxen:7 status 3 ;\r\nlast @oxen:7 end ;\r\nmore";
        for cut in 0..whole.len() {
            let (text, messages) = run(&[&whole[..cut], &whole[cut..]]);
            assert_eq!(messages, ["status 3", "end"], "cut at {cut}");
            assert_eq!(text, "boot\r\nlast more");
        }
    }

    #[test]
    fn text_like_a_marker_stays_text_and_is_not_delayed() {
        assert_eq!(run(&["a @oxen:8 x ;\n@@ox", "en:7 y ;\n$ "]), ("a @oxen:8 x ;\n@$ ".into(), vec!["y".into()]));
        assert_eq!(run(&["prompt# "]).0, "prompt# ");
    }

    #[test]
    fn a_message_cut_by_other_output_is_dropped() {
        let (_, messages) = run(&["@oxen:7 stat(XEN) hello\n", "@oxen:7 status 4 ;\n"]);
        assert_eq!(messages, ["status 4"]);
    }

    #[test]
    fn a_line_without_end_becomes_text_again() {
        let long = format!("@oxen:7 {}", "x".repeat(LONGEST));
        let (text, messages) = run(&[&long]);
        assert!(text.starts_with("@oxen:7 xxx") && messages.is_empty());
    }
}

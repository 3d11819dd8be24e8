//! Puts together the files that dom0 sends over the console (`--get`).
//!
//! Each arrives as numbered base64 lines of its gzip compression; gzip's own length and check sum tell whether all of it
//! came through. What did not is asked for again. Comes after [`super::protocol`]; the harness writes the results out.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::protocol::FilePiece;

/// What became of one wanted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not yet, or damaged on its way.
    Incomplete,
    /// dom0 has no such regular file.
    Missing,
    /// All of it.
    Complete(Vec<u8>),
}

/// The files of one run, by their index in the list that the image holds.
#[derive(Debug)]
pub(crate) struct Incoming {
    lines: Vec<Vec<String>>,
    states: Vec<State>,
}

impl Incoming {
    /// Expects `count` files.
    pub(crate) fn new(count: usize) -> Self {
        Self { lines: vec![Vec::new(); count], states: vec![State::Incomplete; count] }
    }

    /// Takes one piece. Pieces with an index that nobody asked for are damage and are ignored.
    pub(crate) fn take(&mut self, index: usize, piece: FilePiece) {
        let (Some(lines), Some(state)) = (self.lines.get_mut(index), self.states.get_mut(index)) else {
            return;
        };
        if matches!(state, State::Complete(_)) {
            return;
        }
        match piece {
            FilePiece::Begin => lines.clear(),
            FilePiece::Missing => *state = State::Missing,
            FilePiece::Line(number, data) => {
                // A gap stays visible: the number of lines will be wrong at the end.
                if number == lines.len() + 1 {
                    lines.push(data);
                }
            }
            FilePiece::End(count) => {
                if count == lines.len()
                    && let Some(contents) = decode(lines)
                {
                    *state = State::Complete(contents);
                }
                lines.clear();
            }
        }
    }

    /// Indices of files that have to be sent again.
    pub(crate) fn incomplete(&self) -> Vec<usize> {
        self.states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state == State::Incomplete)
            .map(|(index, _)| index)
            .collect()
    }

    /// The results, in the order of the request.
    pub(crate) fn into_states(self) -> Vec<State> {
        self.states
    }
}

fn decode(lines: &[String]) -> Option<Vec<u8>> {
    let packed = STANDARD.decode(lines.concat()).ok()?;
    let mut contents = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut contents).ok()?;
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(contents: &[u8]) -> Vec<String> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(contents).unwrap();
        STANDARD
            .encode(packer.finish().unwrap())
            .as_bytes()
            .chunks(24)
            .map(|chunk| String::from_utf8(chunk.to_vec()).unwrap())
            .collect()
    }

    fn send(incoming: &mut Incoming, index: usize, lines: &[String], lose: Option<usize>) {
        incoming.take(index, FilePiece::Begin);
        for (at, line) in lines.iter().enumerate() {
            if Some(at) != lose {
                incoming.take(index, FilePiece::Line(at + 1, line.clone()));
            }
        }
        incoming.take(index, FilePiece::End(lines.len()));
    }

    #[test]
    fn a_lost_line_is_noticed_and_the_second_try_counts() {
        let contents: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let lines = lines(&contents);
        let mut incoming = Incoming::new(2);
        send(&mut incoming, 0, &lines, Some(1));
        incoming.take(1, FilePiece::Missing);
        assert_eq!(incoming.incomplete(), [0]);
        send(&mut incoming, 0, &lines, None);
        assert_eq!(incoming.into_states(), [State::Complete(contents), State::Missing]);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut lines = lines(b"some contents that matter");
        let flipped = if lines[0].as_bytes()[20] == b'A' { "B" } else { "A" };
        lines[0].replace_range(20..21, flipped);
        let mut incoming = Incoming::new(1);
        send(&mut incoming, 0, &lines, None);
        assert_eq!(incoming.incomplete(), [0]);
    }

    #[test]
    fn the_empty_file_and_a_foreign_index() {
        let mut incoming = Incoming::new(1);
        incoming.take(9, FilePiece::Begin);
        send(&mut incoming, 0, &lines(b""), None);
        assert_eq!(incoming.into_states(), [State::Complete(Vec::new())]);
    }
}

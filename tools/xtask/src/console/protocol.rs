//! The messages that dom0's init sends to the harness, one per line.
//!
//! The senders are `initramfs/dom0-report.sh` and `testing/shared.sh`; [`super::filter`] finds the lines. Words are separated
//! by one space: `milestone NAME SECONDS`, `begin NAME`, `case NAME TEXT`, `notice TEXT`, `failed TEXT`, `status N`, `file INDEX begin`, `file INDEX line NUMBER
//! BASE64`, `file INDEX end LINES`, `file INDEX missing`, `await`, `end`. The harness answers `await` on the console's
//! input with `bye` or `again INDEX…`, and may send `stop` while the script runs.

/// One message, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// dom0 got this far; the second field is its uptime in seconds, as text.
    Milestone(String, String),
    /// Something worth telling the person.
    Notice(String),
    /// The named one of several cases begins.
    CaseBegins(String),
    /// The named one of several cases has ended; the second field says how, in words of its kind.
    CaseEnded(String, String),
    /// dom0 could not be brought up.
    Failed(String),
    /// The script's or shell's exit status, 0..=255.
    Status(u8),
    /// A piece of a file that dom0 sends.
    File(usize, FilePiece),
    /// dom0 has sent all files and waits for the answer.
    Await,
    /// dom0 powers off now.
    End,
}

/// A piece of a file, in base64 of its gzip compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FilePiece {
    /// First piece; drops what came before.
    Begin,
    /// Numbered from 1.
    Line(usize, String),
    /// Number of lines sent.
    End(usize),
    /// There is no such regular file.
    Missing,
}

/// Decodes one message; none when it is damaged, which the console may do to any line.
pub(crate) fn decode(message: &str) -> Option<Message> {
    let (verb, rest) = message.split_once(' ').unwrap_or((message, ""));
    match verb {
        "milestone" => {
            let (name, seconds) = rest.split_once(' ')?;
            seconds.parse::<f64>().ok()?;
            Some(Message::Milestone(name.to_owned(), seconds.to_owned()))
        }
        "notice" => Some(Message::Notice(rest.to_owned())),
        "begin" if !rest.is_empty() => Some(Message::CaseBegins(rest.to_owned())),
        "case" => {
            let (name, text) = rest.split_once(' ')?;
            Some(Message::CaseEnded(name.to_owned(), text.to_owned()))
        }
        "failed" => Some(Message::Failed(rest.to_owned())),
        "status" => Some(Message::Status(rest.parse().ok()?)),
        "file" => {
            let (index, piece) = rest.split_once(' ')?;
            Some(Message::File(index.parse().ok()?, decode_piece(piece)?))
        }
        "await" if rest.is_empty() => Some(Message::Await),
        "end" if rest.is_empty() => Some(Message::End),
        _ => None,
    }
}

fn decode_piece(piece: &str) -> Option<FilePiece> {
    let words: Vec<&str> = piece.split(' ').collect();
    match words.as_slice() {
        ["begin"] => Some(FilePiece::Begin),
        ["line", number, data] => Some(FilePiece::Line(number.parse().ok()?, (*data).to_owned())),
        ["end", lines] => Some(FilePiece::End(lines.parse().ok()?)),
        ["missing"] => Some(FilePiece::Missing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_decodes() {
        let milestone = Message::Milestone("script".into(), "3.25".into());
        let cases = [
            ("milestone script 3.25", milestone),
            ("notice no module tun", Message::Notice("no module tun".into())),
            ("begin two-guests", Message::CaseBegins("two-guests".into())),
            (
                "case hello 0 GUEST-TEST hello PASS",
                Message::CaseEnded("hello".into(), "0 GUEST-TEST hello PASS".into()),
            ),
            ("failed xenstored: no socket", Message::Failed("xenstored: no socket".into())),
            ("status 255", Message::Status(255)),
            ("file 2 begin", Message::File(2, FilePiece::Begin)),
            ("file 2 line 14 aGVsbG8=", Message::File(2, FilePiece::Line(14, "aGVsbG8=".into()))),
            ("file 0 end 14", Message::File(0, FilePiece::End(14))),
            ("file 1 missing", Message::File(1, FilePiece::Missing)),
            ("await", Message::Await),
            ("end", Message::End),
        ];
        for (text, message) in cases {
            assert_eq!(decode(text), Some(message), "{text}");
        }
    }

    #[test]
    fn damaged_messages_are_none() {
        for text in [
            "",
            "begin",
            "case hello",
            "status",
            "status 256",
            "status 1 2",
            "milestone x",
            "milestone x y",
            "file 1",
            "file x begin",
            "file 1 line 2",
            "file 1 line 2 a b",
            "end now",
            "unknown",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}

//! The bytes of the xenstore protocol: messages out, messages in (public/io/xs_wire.h).
//!
//! Pure: whoever uses it moves the bytes. The client (`super`) and the daemon (tools/xenstored) share it.

use public_abi::Errno;
use public_abi::io::xs_wire::{PAYLOAD_MAX, XsMessage, XsdSockmsg};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a header.
pub const HEADER: usize = size_of::<XsdSockmsg>();

/// A whole message. Its kind may be one that nobody knows.
#[derive(Clone, Debug)]
pub struct Message {
    /// What stood in front of the payload.
    pub header: XsdSockmsg,
    /// What followed.
    pub payload: Vec<u8>,
}

impl Message {
    /// What it is; `None` if the protocol has no such message.
    pub fn kind(&self) -> Option<XsMessage> {
        XsMessage::try_from(self.header.kind).ok()
    }
}

/// A length above [`PAYLOAD_MAX`]. Where the next message starts is not known: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(
    /// The length, in bytes.
    pub u32,
);

/// A message as bytes; `None` if it is longer than the protocol allows.
pub fn encode(kind: XsMessage, request: u32, tx: u32, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let payload = parts.concat();
    let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX)?;
    let header = XsdSockmsg { kind: kind.number(), req_id: request, tx_id: tx, len };
    Some([header.as_bytes(), &payload].concat())
}

/// Bytes on their way in, until they are whole messages.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
}

impl Reader {
    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that have not been taken.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a whole message is there.
    pub fn has_message(&self) -> bool {
        self.header().is_some_and(|header| self.bytes.len() - HEADER >= header.len as usize)
    }

    fn header(&self) -> Option<XsdSockmsg> {
        XsdSockmsg::read_from_prefix(&self.bytes).ok().map(|(header, _)| header)
    }

    /// Takes the next message, if it is whole.
    ///
    /// # Errors
    /// The header names a length that is not allowed; that is final.
    pub fn take(&mut self) -> Result<Option<Message>, TooLong> {
        let Some(header) = self.header() else {
            return Ok(None);
        };
        let length = header.len as usize;
        if length > PAYLOAD_MAX {
            return Err(TooLong(header.len));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        Ok(Some(Message { header, payload }))
    }
}

/// The strings of a payload, each ended by a zero.
pub(super) fn strings(payload: &[u8]) -> Vec<String> {
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    if payload.is_empty() {
        return Vec::new();
    }
    payload.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The error that an ERROR message names; one that Xen does not define is an I/O error.
pub(super) fn errno(payload: &[u8]) -> Errno {
    let name = strings(payload).concat();
    Errno::ALL.iter().copied().find(|errno| errno.name() == name).unwrap_or(Errno::EIO)
}

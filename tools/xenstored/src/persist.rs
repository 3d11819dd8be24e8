//! What outlives the daemon: records of what changed, and how they are written (docs/design/0007).
//!
//! A file of state is frames, one after the other: a length, a checksum, then records in postcard's encoding. The first frame
//! is a whole state, each further one what one turn of the daemon changed. A frame counts whole or not at all: a kill may cut
//! the last one. `crate::engine::restore` makes records and takes them; `crate::daemon::state` keeps the file.

use serde::{Deserialize, Serialize};

use crate::perms::Permission;
use crate::store::Node;

/// The first bytes of a file; the number is that of the format.
pub(crate) const MAGIC: &[u8; 16] = b"oxen-xenstored 1";
/// Bytes in front of a frame's records: length and checksum.
const FRAME_HEADER: usize = 8;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The boot of the control domain that all of this is about.
    Boot { id: String },
    /// A node is there with this value and these permissions; its children stay.
    Node { path: String, value: Vec<u8>, permissions: Vec<Permission> },
    /// A node is gone, with all below it.
    Removed { path: String },
    /// Permissions of an event's name.
    Special { path: String, permissions: Vec<Permission> },
    /// A domain's ring is in use; the indices up to which requests are taken and answers are given.
    Introduced { domain: u16, gfn: u64, port: u32, taken: u32, given: u32 },
    /// A domain is connected to another event channel, and its ring is as if new.
    Rebound { domain: u16, port: u32, taken: u32, given: u32 },
    /// A domain's ring is not in use any more.
    Released { domain: u16 },
    /// A domain is the device model of another.
    Target { domain: u16, target: u16 },
    /// A domain and all that it had is gone.
    Gone { domain: u16 },
    /// A domain was seen to have stopped, or may stop anew.
    Shutdown { domain: u16, is_shut_down: bool },
    /// A domain watches; `cut` bytes are taken off the front of paths that it is told.
    Watch { domain: u16, path: String, cut: u16, token: Vec<u8> },
    /// A domain watches no more.
    Unwatch { domain: u16, path: String, token: Vec<u8> },
    /// A domain has no watches and transactions any more.
    Reset { domain: u16 },
    /// A domain has a transaction.
    Begun { domain: u16, transaction: u32 },
    /// A domain's transaction has ended.
    Ended { domain: u16, transaction: u32 },
    /// Requests are taken up to this index, and these bytes are what has not been answered.
    Input { domain: u16, taken: u32, rest: Vec<u8> },
    /// Bytes that a domain is to be given.
    Output { domain: u16, bytes: Vec<u8> },
    /// A domain broke the protocol, by this number, and is not listened to.
    Failed { domain: u16, error: u32 },
}

impl Record {
    /// A node as it is.
    pub(crate) fn node(path: &str, node: &Node) -> Record {
        Record::Node { path: path.to_owned(), value: node.value.to_vec(), permissions: node.permissions.to_vec() }
    }
}

/// Records as a frame.
///
/// # Errors
/// postcard's, which does not happen for values that fit into memory.
pub(crate) fn frame(records: &[Record]) -> postcard::Result<Vec<u8>> {
    let body = postcard::to_stdvec(records)?;
    let length = u32::try_from(body.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    Ok([&length.to_le_bytes()[..], &checksum(&body).to_le_bytes(), &body].concat())
}

/// The records of all frames that are whole, and how many bytes of the file they are; what follows was cut.
pub(crate) fn read(file: &[u8]) -> Option<(Vec<Record>, usize)> {
    let mut at = file.strip_prefix(MAGIC).map(|_| MAGIC.len())?;
    let mut records = Vec::new();
    while let Some((body, end)) = next(file, at) {
        match postcard::from_bytes::<Vec<Record>>(body) {
            Ok(more) => records.extend(more),
            Err(_) => break,
        }
        at = end;
    }
    (at > MAGIC.len()).then_some((records, at))
}

/// The body of the frame at a place, and where it ends.
fn next(file: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let header = file.get(at..at.checked_add(FRAME_HEADER)?)?;
    let word = |from: usize| header.get(from..from + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let start = at + FRAME_HEADER;
    let end = start.checked_add(usize::try_from(word(0)?).ok()?)?;
    let body = file.get(start..end)?;
    (word(4)? == checksum(body)).then_some((body, end))
}

/// FNV-1a with 32 bits: it tells a cut frame from a whole one, which is all that is asked of it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u16) -> Record {
        Record::Output { domain: number, bytes: vec![7; usize::from(number)] }
    }

    proptest! {
        /// However a file is cut, the frames before the cut are read, and nothing of the one that it cuts.
        #[test]
        fn a_cut_loses_the_last_frame_only(counts in proptest::collection::vec(0_u16..5, 1..6), cut in 0_usize..200) {
            let mut file = MAGIC.to_vec();
            let mut ends = Vec::new();
            for count in &counts {
                let records: Vec<Record> = (0..*count).map(record).collect();
                file.extend(frame(&records).expect("is small"));
                ends.push(file.len());
            }
            let length = file.len().saturating_sub(cut);
            let whole = ends.iter().filter(|end| **end <= length).count();
            let expected: Vec<Record> = counts.iter().take(whole).flat_map(|count| (0..*count).map(record)).collect();
            match read(&file[..length]) {
                None => prop_assert_eq!(whole, 0),
                Some((records, end)) => {
                    prop_assert_eq!(records, expected);
                    prop_assert_eq!(end, ends[whole - 1]);
                }
            }
        }

        /// Any bytes are read without harm.
        #[test]
        fn noise_is_harmless(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some((_, end)) = read(&[&MAGIC[..], &noise].concat()) {
                prop_assert!(end <= MAGIC.len() + noise.len());
            }
            prop_assert!(read(&noise).is_none());
        }
    }

    #[test]
    fn a_changed_byte_ends_the_file() {
        let good = frame(&[record(3)]).expect("is small");
        let mut file = [&MAGIC[..], &good, &good].concat();
        let last = file.len() - 1;
        file[last] ^= 1;
        assert_eq!(read(&file), Some((vec![record(3)], MAGIC.len() + good.len())));
    }
}

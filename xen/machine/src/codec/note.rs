//! ELF notes as they lie in memory: size of the name, size of the description, kind, name, description, each of the last two
//! padded to four bytes. (System V ABI, chapter 5, note section.)

/// The kind of the note in which a linker identifies what it has linked (`NT_GNU_BUILD_ID`).
const BUILD_ID: u32 = 3;

/// The build identifier among some notes; empty if there is none.
pub fn build_id(mut notes: &[u8]) -> &[u8] {
    while let Some((note, rest)) = split(notes) {
        if note.kind == BUILD_ID && note.name == b"GNU\0" {
            return note.description;
        }
        notes = rest;
    }
    &[]
}

struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    description: &'a [u8],
}

fn split(notes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let (header, rest) = notes.split_first_chunk::<12>()?;
    let word = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let part = |bytes: &'_ [u8], size: u32| -> Option<(usize, usize)> {
        let size = usize::try_from(size).ok()?;
        Some((size, size.checked_next_multiple_of(4)?.min(bytes.len())))
    };
    let (size, step) = part(rest, word(0)?)?;
    let (name, rest) = (rest.get(..size)?, rest.get(step..)?);
    let (size, step) = part(rest, word(4)?)?;
    Some((Note { kind: word(8)?, name, description: rest.get(..size)? }, rest.get(step..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn note(kind: u32, name: &[u8], description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((description.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_right_note_is_found() {
        let notes = [note(18, b"Xen\0", &[1, 2, 3]), note(3, b"Go\0\0", &[9]), note(3, b"GNU\0", &[7; 20])].concat();
        assert_eq!(build_id(&notes), [7; 20]);
        assert_eq!(build_id(&notes[..40]), []);
        assert_eq!(build_id(&[]), []);
    }

    #[test]
    fn lying_sizes_do_no_harm() {
        let good = note(3, b"GNU\0", &[7; 5]);
        for at in 0..8 {
            for value in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = value;
                build_id(&bytes);
            }
        }
        for length in 0..good.len() {
            assert!(build_id(&good[..length]).len() <= 5);
        }
    }
}

//! Tiny programs whose only work is to execute one of the counter's marker NOPs (`tools/hvcount`).
//!
//! For `toolstack.sh`: three for Linux, which a script calls, and a PVH guest whose first instruction is the end of a sample; for
//! `memory.sh` a guest that sleeps. They are a dozen instructions at most, so they are written here as bytes and not compiled.

/// What a program marks, as the marker's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A sample begins.
    Begin = 1,
    /// It ends.
    End = 2,
    /// The next row begins.
    Row = 3,
}

/// Sizes of an ELF64 header, a program header and Xen's note (System V ABI; Xen public/elfnote.h).
const HEADER: usize = 64;
const SEGMENT: usize = 56;
const NOTE: usize = 20;
const LOAD_SEGMENT: u32 = 1;
const NOTE_SEGMENT: u32 = 4;
const READ_EXECUTE: u32 = 5;
/// Where the programs are linked. Guests have RAM there, and Linux nothing else.
const LINUX_BASE: u64 = 0x40_0000;
const GUEST_BASE: u64 = 0x10_0000;
/// XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;

/// `nopl 0x4b4d00NN(%rax)`; in 32-bit code it is `nopl 0x4b4d00NN(%eax)`.
fn marker(mark: Mark) -> [u8; 7] {
    [0x0f, 0x1f, 0x80, mark as u8, 0x00, 0x4d, 0x4b]
}

/// A static program for Linux that marks and ends with status 0.
pub(crate) fn linux_program(mark: Mark) -> Vec<u8> {
    let mut code = marker(mark).to_vec();
    // mov $60, %eax (exit); xor %edi, %edi; syscall
    code.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    elf(LINUX_BASE, &code, false)
}

/// A PVH guest that marks the end of a sample with its first instruction, and then waits for nothing.
pub(crate) fn first_instruction() -> Vec<u8> {
    let mut code = marker(Mark::End).to_vec();
    // A domain whose CPUs all halt without interrupts is powered off, so it spins: pause; jmp back.
    code.extend([0xf3, 0x90, 0xeb, 0xfc]);
    elf(GUEST_BASE, &code, true)
}

/// A PVH guest that sleeps for ever, with interrupts on and none to come: sti; hlt; jmp back.
pub(crate) fn sleeper() -> Vec<u8> {
    elf(GUEST_BASE, &[0xfb, 0xf4, 0xeb, 0xfc], true)
}

/// An ELF64 program with one segment, in which all of it lies, and its code behind the headers.
fn elf(base: u64, code: &[u8], is_guest: bool) -> Vec<u8> {
    let segments = if is_guest { 2 } else { 1 };
    let note_at = HEADER + segments * SEGMENT;
    let code_at = if is_guest { note_at + NOTE } else { note_at };
    let entry = base + code_at as u64;
    let total = code_at + code.len();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    for half in [2_u16, 62] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes());
    for word in [entry, HEADER as u64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u32.to_le_bytes());
    for half in [HEADER, SEGMENT, segments, 0, 0, 0] {
        bytes.extend((half as u16).to_le_bytes());
    }
    segment(&mut bytes, LOAD_SEGMENT, 0, base, total);
    if is_guest {
        segment(&mut bytes, NOTE_SEGMENT, note_at, base + note_at as u64, NOTE);
        for word in [4, 4, PHYS32_ENTRY] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"Xen\0");
        bytes.extend((entry as u32).to_le_bytes());
    }
    bytes.extend(code);
    bytes
}

fn segment(bytes: &mut Vec<u8>, kind: u32, offset: usize, address: u64, size: usize) {
    bytes.extend(kind.to_le_bytes());
    bytes.extend(READ_EXECUTE.to_le_bytes());
    let size = size as u64;
    let align = if kind == LOAD_SEGMENT { 0x1000 } else { 4 };
    for word in [offset as u64, address, address, size, size, align] {
        bytes.extend(word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn a_linux_program_runs_and_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        for mark in [Mark::Begin, Mark::End, Mark::Row] {
            let path = dir.path().join(format!("{mark:?}"));
            std::fs::write(&path, linux_program(mark)).unwrap();
            std::os::unix::fs::chown(&path, None, None).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            assert!(std::process::Command::new(&path).status().unwrap().success(), "{mark:?}");
        }
    }

    #[test]
    fn the_guest_enters_at_its_marker() {
        let bytes = first_instruction();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let segment = file.segments().next().unwrap();
        assert_eq!((segment.address(), segment.size()), (GUEST_BASE, bytes.len() as u64));
        let at = (file.entry() - GUEST_BASE) as usize;
        assert_eq!(bytes[at..at + 7], marker(Mark::End));
        let note = &bytes[HEADER + 2 * SEGMENT..][..NOTE];
        assert_eq!(note[16..], (file.entry() as u32).to_le_bytes());
    }
}

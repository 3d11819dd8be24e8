//! Two faults of QEMU 10, and the bytes that correct them in a copy of the program.
//!
//! [`Correction::Lock`]: at each FXRSTOR and XRSTOR of any processor, `cpu_clear_ignne` clears a bit in a word of flags that
//! belongs to the first processor's thread, by an instruction without LOCK. Now and then an update of that thread gets lost, among them
//! the one that ends nested paging at #VMEXIT; the hypervisor's next instruction is then fetched through the guest's nested
//! page table, and the control block receives the hypervisor's own state. Any hypervisor on more than one processor meets it.
//! The tiny guest `restore_storm` shows it in seconds. BTR with LOCK does the same as the AND, and is shorter.
//!
//! [`Correction::Branch`]: QEMU tests the wrong condition when it decides which SVM intercept a `mov %crN, reg` belongs to, so
//! that reads of CR2, CR3, CR4 and CR8 count as reads of CR0. Debian's Xen 4.17 intercepts those and then crashes every PVH
//! and HVM guest. One conditional branch too many is the whole fault. Oxen never sets that intercept.

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSegment, ObjectSymbol};

/// What can be corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    /// The flag that is cleared without a lock.
    Lock,
    /// The branch that takes reads of control registers for reads of CR0.
    Branch,
}

impl Correction {
    /// For the name of a copy.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Branch => "branch",
        }
    }

    /// Corrects a program in place.
    ///
    /// # Errors
    /// What is to be corrected is not there, or more than once: this is another build of QEMU, which must not be touched.
    pub(super) fn apply(self, program: &mut [u8]) -> Result<()> {
        match self {
            Self::Lock => {
                let (start, len) = function(program, FLAG_FUNCTION)?;
                let code = program.get_mut(start..start + len).context("the function lies outside of the file")?;
                lock(code).with_context(|| format!("in {FLAG_FUNCTION}"))
            }
            Self::Branch => branch(program),
        }
    }
}

/// The function that clears the flag; QEMU exports it, as all of its functions, for its modules.
const FLAG_FUNCTION: &str = "cpu_clear_ignne";

/// Where a function's code lies in the file, and its size.
fn function(program: &[u8], name: &str) -> Result<(usize, usize)> {
    let file = object::File::parse(program).context("not an ELF file")?;
    let symbol = file
        .dynamic_symbols()
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
        .with_context(|| format!("no function {name} in this build"))?;
    let segment = file
        .segments()
        .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&symbol.address()))
        .with_context(|| format!("{name} lies in no segment"))?;
    let offset = segment.file_range().0 + (symbol.address() - segment.address());
    Ok((usize::try_from(offset)?, usize::try_from(symbol.size())?))
}

/// `andl $~0x80, disp32(%register)`: opcode 81 /4 with a 32-bit displacement, and what follows the displacement.
const AND: u8 = 0x81;
const AND_LEN: usize = 10;
const MODRM_AND: u8 = 0b10_100_000;
const MODRM_BTR: u8 = 0b10_110_000;
const MODRM_REGISTER: u8 = 0b111;
/// This register number stands for another form of address.
const SIB: u8 = 4;
const ALL_BUT_BIT_7: [u8; 4] = (!0x80_u32).to_le_bytes();
const REX: std::ops::RangeInclusive<u8> = 0x40..=0x4f;

/// Makes the one AND with memory in a function a BTR with LOCK.
fn lock(code: &mut [u8]) -> Result<()> {
    let is_and = |window: &[u8]| {
        window[0] == AND
            && window[1] & !MODRM_REGISTER == MODRM_AND
            && window[1] & MODRM_REGISTER != SIB
            && window[6..] == ALL_BUT_BIT_7
    };
    let at = only(code, AND_LEN, is_and).context("the instruction")?;
    ensure!(at == 0 || !REX.contains(&code[at - 1]), "the instruction may use one of the registers R8 to R15");
    let and = &mut code[at..at + AND_LEN];
    let register = and[1] & MODRM_REGISTER;
    let [d0, d1, d2, d3] = [and[2], and[3], and[4], and[5]];
    // lock btrl $7, disp32(%register); nop
    and.copy_from_slice(&[0xf0, 0x0f, 0xba, MODRM_BTR | register, d0, d1, d2, d3, 7, 0x90]);
    Ok(())
}

/// One place of the pattern: a byte that must be there, or any byte (displacements that the linker chose).
const ANY: Option<u8> = None;

const fn is(byte: u8) -> Option<u8> {
    Some(byte)
}

/// The code around the branch, as compilers write it for this source line: sub $2, cmp $2, jbe, test, jne, load of the
/// intercept number, test of it, the branch `je`, and the addition of the register number that the branch skips.
const PATTERN: [Option<u8>; 37] = [
    is(0x83),
    is(0xe8),
    is(0x02),
    is(0x3c),
    is(0x02),
    is(0x76),
    ANY,
    is(0xf6),
    is(0xc2),
    is(0xf7),
    is(0x0f),
    is(0x85),
    ANY,
    ANY,
    ANY,
    ANY,
    is(0x41),
    is(0x0f),
    is(0xb6),
    is(0x44),
    is(0x24),
    is(0x18),
    is(0x84),
    is(0xc0),
    is(0x0f),
    is(0x84),
    ANY,
    ANY,
    ANY,
    ANY,
    is(0x01),
    is(0xd0),
    is(0x41),
    is(0x88),
    is(0x44),
    is(0x24),
    is(0x18),
];
/// Where the branch lies in the pattern, and the six-byte no-operation that takes its place.
const BRANCH: usize = 24;
const NOP6: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Replaces the branch.
fn branch(program: &mut [u8]) -> Result<()> {
    let matches =
        |window: &[u8]| window.iter().zip(PATTERN).all(|(byte, wanted)| wanted.is_none_or(|wanted| wanted == *byte));
    let at = only(program, PATTERN.len(), matches).context("the branch")?;
    program[at + BRANCH..at + BRANCH + NOP6.len()].copy_from_slice(&NOP6);
    Ok(())
}

/// The only place of `code` where `len` bytes match.
fn only(code: &[u8], len: usize, matches: impl Fn(&[u8]) -> bool) -> Result<usize> {
    let mut found = code.windows(len).enumerate().filter(|(_, window)| matches(window)).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (None, _) => bail!("was not found in this build"),
        (Some(_), Some(_)) => bail!("was found more than once in this build"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Vec<u8> {
        PATTERN.iter().map(|byte| byte.unwrap_or(0xaa)).collect()
    }

    #[test]
    fn the_one_branch_becomes_a_nop_and_nothing_else_changes() {
        let mut program = [vec![0x90; 100], code(), vec![0x90; 100]].concat();
        let before = program.clone();
        branch(&mut program).unwrap();
        let changed: Vec<usize> = (0..program.len()).filter(|at| program[*at] != before[*at]).collect();
        assert_eq!(changed, (124..130).collect::<Vec<_>>());
        assert!(branch(&mut program).is_err(), "a corrected program has no branch left");
    }

    #[test]
    fn two_matches_are_refused() {
        let mut program = [code(), code()].concat();
        let error = branch(&mut program).unwrap_err();
        assert!(format!("{error:#}").contains("more than once"));
    }

    /// call; andl $~0x80, 0x2c74(%rbx); ret
    const CLEARS: [u8; 16] = [0xe8, 0x06, 0x5f, 0x14, 0, 0x81, 0xa3, 0x74, 0x2c, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xc3];

    #[test]
    fn the_and_becomes_a_btr_of_the_same_word_with_lock() {
        let mut code = CLEARS;
        lock(&mut code).unwrap();
        let mut decoder = iced_x86::Decoder::new(64, &code[5..], iced_x86::DecoderOptions::NONE);
        let btr = decoder.decode();
        assert_eq!(btr.code(), iced_x86::Code::Btr_rm32_imm8);
        assert!(btr.has_lock_prefix());
        assert_eq!((btr.memory_base(), btr.memory_displacement64()), (iced_x86::Register::RBX, 0x2c74));
        assert_eq!(btr.immediate8(), 7);
        assert_eq!(decoder.decode().mnemonic(), iced_x86::Mnemonic::Nop);
        assert_eq!(decoder.decode().mnemonic(), iced_x86::Mnemonic::Ret);
        assert_eq!(code[..5], CLEARS[..5]);
        assert!(lock(&mut code).is_err(), "a corrected program has no such AND left");
    }

    #[test]
    fn other_registers_and_other_programs_are_refused() {
        let mut code = CLEARS;
        code[4] = 0x41;
        assert!(lock(&mut code).is_err());
        assert_eq!(code[5..], CLEARS[5..]);
        assert!(Correction::Lock.apply(&mut [0; 64]).is_err(), "not an ELF file");
        // This very test has no such function.
        let mut own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = Correction::Lock.apply(&mut own).unwrap_err();
        assert!(format!("{error:#}").contains(FLAG_FUNCTION), "{error:#}");
    }
}

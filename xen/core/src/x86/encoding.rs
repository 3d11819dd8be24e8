//! Lengths of the few instructions that the hypervisor intercepts: all of them have a fixed opcode, and only prefixes vary.
//! (AMD APM volume 3, 1.2 and the instructions' pages.)
//!
//! `instruction` brings the bytes; here they are only looked at.

/// The most bytes that an instruction has.
pub const MAX_LENGTH: usize = 15;

/// Instructions that exit and must be passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "mnemonics")]
pub enum Instruction {
    Cpuid,
    Rdmsr,
    Wrmsr,
    Vmmcall,
    Hlt,
    Xsetbv,
    Wbinvd,
    Invd,
    Pause,
    /// MOV to a control register, CLTS or LMSW: what writes CR0 can be any of them.
    ControlWrite,
}

/// What writes a control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlForm {
    /// MOV from a general register.
    Move {
        /// Control register, 0 to 15.
        control: u8,
        /// General register, by encoding.
        general: u8,
    },
    /// CLTS.
    Clts,
    /// LMSW from a general register.
    LmswRegister {
        /// General register, by encoding.
        general: u8,
    },
    /// LMSW from memory.
    LmswMemory,
}

/// An instruction that was recognised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Match {
    /// Bytes, 1 to 15. For [`ControlForm::LmswMemory`] only those before the address.
    pub length: u8,
    /// For [`Instruction::ControlWrite`]: which of its forms.
    pub control: Option<ControlForm>,
}

/// What bytes turn out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The instruction in question.
    Is(Match),
    /// Something else.
    IsNot,
    /// The bytes end too early to tell.
    Incomplete,
}

/// Segment registers, by encoding.
pub const SEGMENT_ES: u8 = 0;
/// Data segment.
pub const SEGMENT_DS: u8 = 3;

/// The prefixes of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prefixes {
    /// Bytes.
    pub count: usize,
    /// REX, if it stands where it counts: right before the opcode.
    pub rex: u8,
    /// F3, and no F2 behind it.
    pub repeat: bool,
    /// F3 or F2: to string instructions without a condition both mean to repeat.
    pub any_repeat: bool,
    /// F0.
    pub lock: bool,
    /// 67: the other address size.
    pub address_size: bool,
    /// 66: the other operand size.
    pub operand_size: bool,
    /// A segment override, by encoding (ES CS SS DS FS GS); in 64-bit code only FS and GS count.
    pub segment: Option<u8>,
}

/// Reads the prefixes that `bytes` begin with.
#[inline]
pub fn prefixes(bytes: &[u8], is_64_bit: bool) -> Prefixes {
    let mut found = Prefixes::default();
    for byte in bytes.iter().copied() {
        let is_rex = is_64_bit && byte & 0xf0 == 0x40;
        match byte {
            0x26 | 0x2e | 0x36 | 0x3e if is_64_bit => {}
            0x26 | 0x2e | 0x36 | 0x3e => found.segment = Some(byte >> 3 & 3),
            0x64 | 0x65 => found.segment = Some(byte & 7),
            0x66 => found.operand_size = true,
            0x67 => found.address_size = true,
            0xf0 => found.lock = true,
            0xf2 | 0xf3 => (found.repeat, found.any_repeat) = (byte == 0xf3, true),
            _ if is_rex => {}
            _ => break,
        }
        found.rex = if is_rex { byte } else { 0 };
        found.count = found.count.saturating_add(1);
    }
    found
}

/// Whether `bytes` begin with the instruction `wanted`.
#[inline]
pub fn recognise(bytes: &[u8], is_64_bit: bool, wanted: Instruction) -> Verdict {
    // Nearly always there is no prefix, and the first byte tells.
    let prefixes = match bytes.first() {
        Some(0x0f | 0xf4) => Prefixes::default(),
        _ => prefixes(bytes, is_64_bit),
    };
    let opcode = bytes.get(prefixes.count..).unwrap_or_default();
    let (length, control) = match (wanted, opcode) {
        (Instruction::Cpuid, [0x0f, 0xa2, ..])
        | (Instruction::Rdmsr, [0x0f, 0x32, ..])
        | (Instruction::Wrmsr, [0x0f, 0x30, ..])
        | (Instruction::Wbinvd, [0x0f, 0x09, ..])
        | (Instruction::Invd, [0x0f, 0x08, ..]) => (2, None),
        (Instruction::Vmmcall, [0x0f, 0x01, 0xd9, ..]) | (Instruction::Xsetbv, [0x0f, 0x01, 0xd1, ..]) => (3, None),
        (Instruction::Hlt, [0xf4, ..]) => (1, None),
        (Instruction::Pause, [0x90, ..]) if prefixes.repeat => (1, None),
        (Instruction::ControlWrite, [0x0f, rest @ ..]) => match control_write(rest, prefixes) {
            Some((length, form)) => (length, Some(form)),
            None if rest.len() < 2 => return Verdict::Incomplete,
            None => return Verdict::IsNot,
        },
        (_, [] | [0x0f] | [0x0f, 0x01]) if bytes.len() < MAX_LENGTH => return Verdict::Incomplete,
        _ => return Verdict::IsNot,
    };
    match prefixes.count.checked_add(length) {
        Some(total) if total <= MAX_LENGTH => {
            Verdict::Is(Match { length: u8::try_from(total).unwrap_or(u8::MAX), control })
        }
        _ => Verdict::IsNot,
    }
}

/// Takes a control-register write apart, `rest` being what follows 0F. Gives its length without prefixes.
fn control_write(rest: &[u8], prefixes: Prefixes) -> Option<(usize, ControlForm)> {
    let general = |modrm: u8| modrm & 7 | (prefixes.rex & 1) << 3;
    match rest {
        [0x06, ..] => Some((2, ControlForm::Clts)),
        // The mod bits are ignored. LOCK names CR8 to 15 where there is no REX.
        [0x22, modrm, ..] => {
            let high = if prefixes.lock { 8 } else { (prefixes.rex & 4) << 1 };
            let control = modrm >> 3 & 7 | high;
            Some((3, ControlForm::Move { control, general: general(*modrm) }))
        }
        [0x01, modrm, ..] if modrm >> 3 & 7 == 6 => Some(match modrm >> 6 {
            3 => (3, ControlForm::LmswRegister { general: general(*modrm) }),
            _ => (3, ControlForm::LmswMemory),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(bytes: &[u8], is_64_bit: bool, wanted: Instruction) -> Option<u8> {
        match recognise(bytes, is_64_bit, wanted) {
            Verdict::Is(found) => Some(found.length),
            Verdict::IsNot | Verdict::Incomplete => None,
        }
    }

    #[test]
    fn plain_forms() {
        use Instruction as I;
        let plain: [(&[u8], I); 9] = [
            (&[0x0f, 0xa2], I::Cpuid),
            (&[0x0f, 0x32], I::Rdmsr),
            (&[0x0f, 0x30], I::Wrmsr),
            (&[0x0f, 0x01, 0xd9], I::Vmmcall),
            (&[0xf4], I::Hlt),
            (&[0x0f, 0x01, 0xd1], I::Xsetbv),
            (&[0x0f, 0x09], I::Wbinvd),
            (&[0x0f, 0x08], I::Invd),
            (&[0xf3, 0x90], I::Pause),
        ];
        for (bytes, wanted) in plain {
            for is_64_bit in [false, true] {
                assert_eq!(length(bytes, is_64_bit, wanted), u8::try_from(bytes.len()).ok(), "{wanted:?}");
                let mut longer = bytes.to_vec();
                longer.extend([0x90; 12]);
                assert_eq!(length(&longer, is_64_bit, wanted), u8::try_from(bytes.len()).ok());
                for other in plain.iter().filter(|(_, other)| *other != wanted) {
                    assert_eq!(recognise(bytes, is_64_bit, other.1), Verdict::IsNot, "{bytes:x?} {:?}", other.1);
                }
            }
            for cut in 0..bytes.len() {
                assert_eq!(recognise(&bytes[..cut], true, wanted), Verdict::Incomplete, "{wanted:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn prefixes_count() {
        assert_eq!(length(&[0x66, 0x0f, 0xa2], true, Instruction::Cpuid), Some(3));
        assert_eq!(length(&[0xf2, 0x0f, 0x01, 0xd9], false, Instruction::Vmmcall), Some(4));
        assert_eq!(length(&[0x2e, 0x3e, 0x48, 0x0f, 0xa2], true, Instruction::Cpuid), Some(5));
        // Outside of 64-bit code 48 is DEC.
        assert_eq!(length(&[0x48, 0x0f, 0xa2], false, Instruction::Cpuid), None);
        assert_eq!(length(&[0xf3, 0x0f, 0x09], true, Instruction::Wbinvd), Some(3), "WBNOINVD");
        // NOP is not PAUSE, and the last of F2 and F3 holds.
        assert_eq!(length(&[0x90], true, Instruction::Pause), None);
        assert_eq!(length(&[0xf3, 0xf2, 0x90], true, Instruction::Pause), None);
        let mut longest = [0x66; 15];
        longest[13..].copy_from_slice(&[0x0f, 0xa2]);
        assert_eq!(length(&longest, true, Instruction::Cpuid), Some(15));
        let mut too_long = [0x66; 16];
        too_long[14..].copy_from_slice(&[0x0f, 0xa2]);
        assert_eq!(recognise(&too_long, true, Instruction::Cpuid), Verdict::IsNot);
        assert_eq!(recognise(&[0x66; 15], true, Instruction::Cpuid), Verdict::IsNot);
    }

    #[test]
    fn control_registers_are_named() {
        let form = |bytes: &[u8], is_64_bit| match recognise(bytes, is_64_bit, Instruction::ControlWrite) {
            Verdict::Is(found) => found.control.map(|form| (found.length, form)),
            _ => None,
        };
        let to = |control, general| ControlForm::Move { control, general };
        assert_eq!(form(&[0x0f, 0x22, 0xc0], true), Some((3, to(0, 0))));
        assert_eq!(form(&[0x0f, 0x22, 0xe7], true), Some((3, to(4, 7))));
        assert_eq!(form(&[0x41, 0x0f, 0x22, 0xe4], true), Some((4, to(4, 12))));
        assert_eq!(form(&[0x44, 0x0f, 0x22, 0xc3], true), Some((4, to(8, 3))));
        assert_eq!(form(&[0xf0, 0x0f, 0x22, 0xc3], false), Some((4, to(8, 3))));
        assert_eq!(form(&[0x0f, 0x22, 0x20], true), Some((3, to(4, 0))), "mod is ignored");
        assert_eq!(form(&[0x0f, 0x06], true), Some((2, ControlForm::Clts)));
        assert_eq!(form(&[0x0f, 0x01, 0xf1], false), Some((3, ControlForm::LmswRegister { general: 1 })));
        assert_eq!(form(&[0x0f, 0x01, 0x36], false), Some((3, ControlForm::LmswMemory)));
        assert_eq!(form(&[0x0f, 0x20, 0xc0], true), None, "reads are not writes");
    }

    #[test]
    fn segment_overrides() {
        assert_eq!(prefixes(&[0x26, 0x6e], false).segment, Some(SEGMENT_ES));
        assert_eq!(prefixes(&[0x3e, 0x6e], false).segment, Some(SEGMENT_DS));
        assert_eq!(prefixes(&[0x3e, 0x6e], true).segment, None);
        assert_eq!(prefixes(&[0x65, 0x6e], true).segment, Some(5));
        assert_eq!(
            prefixes(&[0x64, 0x67, 0x6e], true),
            Prefixes { count: 2, segment: Some(4), address_size: true, ..Prefixes::default() }
        );
    }
}

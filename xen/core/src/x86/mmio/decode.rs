//! Which instruction accesses device memory, and what it wants there. (AMD APM volume 3, chapters 1 and 3, appendix A.)
//!
//! Only the instructions that drivers use on device memory are known; the guest physical address comes from the exit, so an
//! effective address is never computed, only passed over. Why not a whole decoder: this one takes no memory, fits a screen
//! or three, and is compared with a whole one in the tests. `execute` carries out what is found here.

use crate::x86::encoding::{self, MAX_LENGTH, Prefixes, SEGMENT_DS};

/// Size of the code that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "bits")]
pub enum CodeSize {
    Bits16,
    Bits32,
    Bits64,
}

/// What bytes turn out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<T> {
    /// Something known, with its length in bytes.
    Is(u8, T),
    /// Something else.
    IsNot,
    /// The bytes end too early to tell.
    Incomplete,
}

/// Arithmetic, in the order of the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "mnemonics")]
pub enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

/// What becomes of a tested bit, in the order of the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "mnemonics")]
pub enum BitChange {
    Keep,
    Set,
    Reset,
    Complement,
}

/// How a value that is shorter than its register fills it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// It has the register's size.
    No,
    /// With zeroes, to this many bytes.
    Zero(u8),
    /// With its sign, to this many bytes.
    Sign(u8),
}

/// What the instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Register ← memory.
    Load(Extend),
    /// Memory ← operand.
    Store,
    /// Memory ← memory op operand; CMP and TEST only set flags.
    Modify(Arithmetic),
    /// Register ← register op memory.
    Accumulate(Arithmetic),
    /// XCHG.
    Exchange,
    /// CMPXCHG.
    CompareExchange,
    /// XADD.
    ExchangeAdd,
    /// INC, or DEC with true.
    Increment {
        /// By minus one.
        down: bool,
    },
    /// NOT.
    Not,
    /// NEG.
    Negate,
    /// BT and its kin.
    BitTest(BitChange),
    /// STOS.
    StringStore,
    /// LODS.
    StringLoad,
    /// MOVS.
    StringMove,
}

/// The operand that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// None.
    None,
    /// A general register by encoding.
    Register(u8),
    /// AH, CH, DH or BH: the second byte of the register with this encoding.
    HighByte(u8),
    /// A number, sign-extended.
    Immediate(u64),
}

/// An instruction that accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Bytes that it accesses: 1, 2, 4 or 8.
    pub size: u8,
    /// Its other operand.
    pub operand: Operand,
    /// For string instructions: the segment of the source.
    pub segment: u8,
    /// For string instructions: bytes of an address, 2, 4 or 8.
    pub address_size: u8,
    /// For string instructions: a repeat prefix.
    pub repeat: bool,
}

/// The bytes after the prefixes, read one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The bytes have ended.
struct Ended;

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Ended> {
        let byte = self.bytes.get(self.at).copied().ok_or(Ended)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: usize) -> Result<(), Ended> {
        (0..count).try_for_each(|_| self.byte().map(drop))
    }

    /// A signed number of this many bytes.
    fn immediate(&mut self, size: u8) -> Result<u64, Ended> {
        let mut bytes = [0; 8];
        for place in bytes.iter_mut().take(usize::from(size)) {
            *place = self.byte()?;
        }
        let unused = 64 - u32::from(size) * 8;
        Ok(((u64::from_le_bytes(bytes) << unused).cast_signed() >> unused).cast_unsigned())
    }
}

/// What the prefixes and the code size make of sizes and registers.
struct Context {
    prefixes: Prefixes,
    operand_size: u8,
    address_size: u8,
}

impl Context {
    fn of(prefixes: Prefixes, code: CodeSize) -> Self {
        let is_wide = prefixes.rex & 8 != 0;
        let operand_size = match (code, prefixes.operand_size) {
            (CodeSize::Bits64, _) if is_wide => 8,
            (CodeSize::Bits16, false) | (CodeSize::Bits32 | CodeSize::Bits64, true) => 2,
            _ => 4,
        };
        let address_size = match (code, prefixes.address_size) {
            (CodeSize::Bits64, false) => 8,
            (CodeSize::Bits16, false) | (CodeSize::Bits32, true) => 2,
            _ => 4,
        };
        Self { prefixes, operand_size, address_size }
    }

    /// Size by the opcode's lowest bit: clear means bytes.
    const fn size(&self, opcode: u8) -> u8 {
        if opcode & 1 == 0 { 1 } else { self.operand_size }
    }

    /// The register in the middle bits of a ModRM byte.
    const fn register(&self, modrm: u8, size: u8) -> Operand {
        let number = modrm >> 3 & 7 | (self.prefixes.rex & 4) << 1;
        if size == 1 && self.prefixes.rex == 0 && number >= 4 {
            Operand::HighByte(number & 3)
        } else {
            Operand::Register(number)
        }
    }

    /// Passes over the address that a ModRM byte begins. Gives the byte, or `None` if it names a register.
    fn modrm(&self, reader: &mut Reader<'_>) -> Result<Option<u8>, Ended> {
        let modrm = reader.byte()?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return Ok(None);
        }
        let displacement = if self.address_size == 2 {
            match (mode, rm) {
                (0, 6) | (2, _) => 2,
                (0, _) => 0,
                _ => 1,
            }
        } else {
            let base = if rm == 4 { reader.byte()? & 7 } else { rm };
            match (mode, base) {
                (0, 5) | (2, _) => 4,
                (0, _) => 0,
                _ => 1,
            }
        };
        reader.skip(displacement)?;
        Ok(Some(modrm))
    }
}

/// Finds out what an instruction does to memory.
pub fn decode(bytes: &[u8], code: CodeSize) -> Seen<Operation> {
    let bytes = bytes.get(..bytes.len().min(MAX_LENGTH)).unwrap_or_default();
    let prefixes = encoding::prefixes(bytes, code == CodeSize::Bits64);
    let context = Context::of(prefixes, code);
    let mut reader = Reader { bytes, at: prefixes.count };
    match parse(&context, &mut reader) {
        Ok(Some((kind, size, operand))) => {
            let operation = Operation {
                kind,
                size,
                operand,
                segment: prefixes.segment.unwrap_or(SEGMENT_DS),
                address_size: context.address_size,
                repeat: prefixes.any_repeat,
            };
            Seen::Is(u8::try_from(reader.at).unwrap_or(u8::MAX), operation)
        }
        Ok(None) => Seen::IsNot,
        Err(Ended) if bytes.len() < MAX_LENGTH => Seen::Incomplete,
        Err(Ended) => Seen::IsNot,
    }
}

type Parsed = Result<Option<(Kind, u8, Operand)>, Ended>;

/// The one-byte opcodes.
fn parse(context: &Context, reader: &mut Reader<'_>) -> Parsed {
    let opcode = reader.byte()?;
    let size = context.size(opcode);
    match opcode {
        0x0f => return parse_two_byte(context, reader),
        // MOV between the accumulator and a plain address.
        0xa0..=0xa3 => {
            reader.skip(usize::from(context.address_size))?;
            let kind = if opcode & 2 == 0 { Kind::Load(Extend::No) } else { Kind::Store };
            return Ok(Some((kind, size, Operand::Register(0))));
        }
        0xa4 | 0xa5 => return Ok(Some((Kind::StringMove, size, Operand::None))),
        0xaa | 0xab => return Ok(Some((Kind::StringStore, size, Operand::Register(0)))),
        0xac | 0xad => return Ok(Some((Kind::StringLoad, size, Operand::Register(0)))),
        _ => {}
    }
    let has_modrm = matches!(opcode, 0x00..=0x3b if opcode & 4 == 0)
        || matches!(opcode, 0x63 | 0x80 | 0x81 | 0x83..=0x8b | 0xc6 | 0xc7 | 0xf6 | 0xf7 | 0xfe | 0xff);
    if !has_modrm {
        return Ok(None);
    }
    let Some(modrm) = context.modrm(reader)? else { return Ok(None) };
    let register = context.register(modrm, size);
    let group = modrm >> 3 & 7;
    let (kind, operand) = match opcode {
        0x00..=0x3b => {
            let operation = arithmetic(opcode >> 3);
            let kind = if opcode & 2 == 0 { Kind::Modify(operation) } else { Kind::Accumulate(operation) };
            (kind, register)
        }
        0x63 if context.prefixes.rex & 8 != 0 => return Ok(Some((Kind::Load(Extend::Sign(8)), 4, register))),
        0x80 | 0x81 => {
            let number = reader.immediate(size.min(4))?;
            (Kind::Modify(arithmetic(group)), Operand::Immediate(number))
        }
        0x83 => (Kind::Modify(arithmetic(group)), Operand::Immediate(reader.immediate(1)?)),
        0x84 | 0x85 => (Kind::Modify(Arithmetic::Test), register),
        0x86 | 0x87 => (Kind::Exchange, register),
        0x88 | 0x89 => (Kind::Store, register),
        0x8a | 0x8b => (Kind::Load(Extend::No), register),
        0xc6 | 0xc7 if group == 0 => (Kind::Store, Operand::Immediate(reader.immediate(size.min(4))?)),
        0xf6 | 0xf7 => match group {
            0 | 1 => (Kind::Modify(Arithmetic::Test), Operand::Immediate(reader.immediate(size.min(4))?)),
            2 => (Kind::Not, Operand::None),
            3 => (Kind::Negate, Operand::None),
            _ => return Ok(None),
        },
        0xfe | 0xff if group < 2 => (Kind::Increment { down: group == 1 }, Operand::None),
        _ => return Ok(None),
    };
    Ok(Some((kind, size, operand)))
}

/// The opcodes behind 0F.
fn parse_two_byte(context: &Context, reader: &mut Reader<'_>) -> Parsed {
    let opcode = reader.byte()?;
    let size = context.size(opcode);
    let wide = context.operand_size;
    let known = matches!(
        opcode,
        0xa3 | 0xab | 0xb0 | 0xb1 | 0xb3 | 0xb6 | 0xb7 | 0xba | 0xbb | 0xbe | 0xbf | 0xc0 | 0xc1 | 0xc3
    );
    // Behind 66, F2 and F3 some of these are other instructions, or none.
    let is_other = context.prefixes.any_repeat || opcode == 0xc3 && context.prefixes.operand_size;
    if !known || is_other {
        return Ok(None);
    }
    let Some(modrm) = context.modrm(reader)? else { return Ok(None) };
    Ok(Some(match opcode {
        0xa3 | 0xab | 0xb3 | 0xbb => (Kind::BitTest(bit_change(opcode >> 3)), wide, context.register(modrm, wide)),
        0xb0 | 0xb1 => (Kind::CompareExchange, size, context.register(modrm, size)),
        // The operand's size is the register's; memory has one or two bytes.
        0xb6 | 0xb7 => (Kind::Load(Extend::Zero(wide)), 1 + (opcode & 1), context.register(modrm, wide)),
        0xbe | 0xbf => (Kind::Load(Extend::Sign(wide)), 1 + (opcode & 1), context.register(modrm, wide)),
        0xba if modrm >> 3 & 7 >= 4 => {
            let number = Operand::Immediate(reader.immediate(1)?);
            (Kind::BitTest(bit_change(modrm >> 3)), wide, number)
        }
        0xc0 | 0xc1 => (Kind::ExchangeAdd, size, context.register(modrm, size)),
        // MOVNTI has no 16-bit form.
        0xc3 => (Kind::Store, wide.max(4), context.register(modrm, wide.max(4))),
        _ => return Ok(None),
    }))
}

/// By the three bits that encode it.
const fn arithmetic(bits: u8) -> Arithmetic {
    match bits & 7 {
        0 => Arithmetic::Add,
        1 => Arithmetic::Or,
        2 => Arithmetic::Adc,
        3 => Arithmetic::Sbb,
        4 => Arithmetic::And,
        5 => Arithmetic::Sub,
        6 => Arithmetic::Xor,
        _ => Arithmetic::Cmp,
    }
}

/// By the two bits that encode it.
const fn bit_change(bits: u8) -> BitChange {
    match bits & 3 {
        0 => BitChange::Keep,
        1 => BitChange::Set,
        2 => BitChange::Reset,
        _ => BitChange::Complement,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

//! The decoder against a whole one (iced-x86) on random bytes and on recorded code.

use super::*;
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use proptest::prelude::*;

#[test]
fn code_of_real_drivers() {
    use CodeSize::{Bits16, Bits32, Bits64};
    let is = |bytes: &[u8], code| match decode(bytes, code) {
        Seen::Is(length, operation) => {
            assert_eq!(usize::from(length), bytes.len(), "{bytes:x?}");
            (operation.kind, operation.size, operation.operand)
        }
        other => panic!("{bytes:x?}: {other:?}"),
    };
    let load = Kind::Load(Extend::No);
    // Linux: native_apic_mem_read, native_apic_mem_write, end of interrupt.
    assert_eq!(is(&[0x8b, 0x87, 0x00, 0xc0, 0x5f, 0xff], Bits64), (load, 4, Operand::Register(0)));
    assert_eq!(is(&[0x89, 0xb7, 0x00, 0xc0, 0x5f, 0xff], Bits64), (Kind::Store, 4, Operand::Register(6)));
    let end = [0xc7, 0x04, 0x25, 0xb0, 0xc0, 0x5f, 0xff, 0, 0, 0, 0];
    assert_eq!(is(&end, Bits64), (Kind::Store, 4, Operand::Immediate(0)));
    // SeaBIOS: 0xfee000f0 as a plain address.
    assert_eq!(is(&[0xa1, 0xf0, 0x00, 0xe0, 0xfe], Bits32), (load, 4, Operand::Register(0)));
    assert_eq!(is(&[0x67, 0x66, 0xa1, 0xf0, 0x00, 0xe0, 0xfe], Bits16), (load, 4, Operand::Register(0)));
    assert_eq!(is(&[0x44, 0x8a, 0x60, 0x10], Bits64), (load, 1, Operand::Register(12)));
    assert_eq!(is(&[0x8a, 0x60, 0x10], Bits64), (load, 1, Operand::HighByte(0)));
    assert_eq!(is(&[0x40, 0x8a, 0x60, 0x10], Bits64), (load, 1, Operand::Register(4)), "SPL");
    assert_eq!(is(&[0x0f, 0xb6, 0x40, 0x03], Bits64), (Kind::Load(Extend::Zero(4)), 1, Operand::Register(0)));
    assert_eq!(is(&[0x48, 0x63, 0x07], Bits64), (Kind::Load(Extend::Sign(8)), 4, Operand::Register(0)));
    assert_eq!(is(&[0x83, 0x08, 0xf0], Bits64), (Kind::Modify(Arithmetic::Or), 4, Operand::Immediate(-16i64 as u64)));
    assert_eq!(is(&[0xf3, 0xab], Bits64), (Kind::StringStore, 4, Operand::Register(0)));
    assert_eq!(is(&[0x0f, 0xba, 0x28, 0x05], Bits64), (Kind::BitTest(BitChange::Set), 4, Operand::Immediate(5)));
    // MOVAPS, PUSH from memory, and a register form are not for device memory.
    for bytes in [&[0x0f, 0x28, 0x00][..], &[0xff, 0x30], &[0x8b, 0xc0], &[0x90]] {
        assert_eq!(decode(bytes, Bits64), Seen::IsNot, "{bytes:x?}");
    }
    assert_eq!(decode(&[0x8b, 0x87, 0x00], Bits64), Seen::Incomplete);
    assert_eq!(decode(&[], Bits64), Seen::Incomplete);
}

/// What a whole decoder makes of our kinds.
fn mnemonic_fits(kind: Kind, mnemonic: Mnemonic) -> bool {
    let arithmetic = |operation| match operation {
        Arithmetic::Add => Mnemonic::Add,
        Arithmetic::Or => Mnemonic::Or,
        Arithmetic::Adc => Mnemonic::Adc,
        Arithmetic::Sbb => Mnemonic::Sbb,
        Arithmetic::And => Mnemonic::And,
        Arithmetic::Sub => Mnemonic::Sub,
        Arithmetic::Xor => Mnemonic::Xor,
        Arithmetic::Cmp => Mnemonic::Cmp,
        Arithmetic::Test => Mnemonic::Test,
    };
    match kind {
        Kind::Load(Extend::No) => mnemonic == Mnemonic::Mov,
        Kind::Load(Extend::Zero(_)) => mnemonic == Mnemonic::Movzx,
        Kind::Load(Extend::Sign(_)) => matches!(mnemonic, Mnemonic::Movsx | Mnemonic::Movsxd),
        Kind::Store => matches!(mnemonic, Mnemonic::Mov | Mnemonic::Movnti),
        Kind::Modify(operation) | Kind::Accumulate(operation) => mnemonic == arithmetic(operation),
        Kind::Exchange => mnemonic == Mnemonic::Xchg,
        Kind::CompareExchange => mnemonic == Mnemonic::Cmpxchg,
        Kind::ExchangeAdd => mnemonic == Mnemonic::Xadd,
        Kind::Increment { down } => mnemonic == if down { Mnemonic::Dec } else { Mnemonic::Inc },
        Kind::Not => mnemonic == Mnemonic::Not,
        Kind::Negate => mnemonic == Mnemonic::Neg,
        Kind::BitTest(BitChange::Keep) => mnemonic == Mnemonic::Bt,
        Kind::BitTest(BitChange::Set) => mnemonic == Mnemonic::Bts,
        Kind::BitTest(BitChange::Reset) => mnemonic == Mnemonic::Btr,
        Kind::BitTest(BitChange::Complement) => mnemonic == Mnemonic::Btc,
        Kind::StringStore => matches!(mnemonic, Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq),
        Kind::StringLoad => matches!(mnemonic, Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq),
        Kind::StringMove => matches!(mnemonic, Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq),
    }
}

/// Compares with the whole decoder. Gives whether both know the instruction.
fn compare(bytes: &[u8], code: CodeSize) -> bool {
    let bits = match code {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    let mut decoder = Decoder::new(bits, bytes, DecoderOptions::NO_INVALID_CHECK);
    let whole = decoder.decode();
    let Seen::Is(length, operation) = decode(bytes, code) else { return false };
    if whole.is_invalid() {
        // A combination that the processor refuses: it cannot have caused an exit.
        return false;
    }
    assert_eq!(usize::from(length), whole.len(), "{bytes:02x?} {code:?} {operation:?} {whole:?}");
    assert!(mnemonic_fits(operation.kind, whole.mnemonic()), "{bytes:02x?} {operation:?} {:?}", whole.mnemonic());
    let is_string = matches!(operation.kind, Kind::StringLoad | Kind::StringMove | Kind::StringStore);
    if !is_string {
        assert_eq!(usize::from(operation.size), whole.memory_size().size(), "{bytes:02x?} {code:?} {operation:?}");
        let memory = (0..whole.op_count()).position(|index| whole.op_kind(index) == OpKind::Memory).unwrap() as u32;
        if whole.op_count() == 2 {
            check_operand(&operation, &whole, 1 - memory);
        }
    }
    true
}

fn check_operand(operation: &Operation, whole: &iced_x86::Instruction, index: u32) {
    match operation.operand {
        Operand::Immediate(number) => {
            let bits = execute_mask(operation);
            assert_eq!(number & bits, whole.immediate(index) & bits);
        }
        Operand::Register(number) => {
            let register = whole.op_register(index);
            assert_eq!(usize::from(number), register.full_register().number(), "{register:?}");
            assert!(!matches!(format!("{register:?}").as_str(), "AH" | "CH" | "DH" | "BH"));
        }
        Operand::HighByte(number) => {
            let names = ["AH", "CH", "DH", "BH"];
            assert_eq!(names[usize::from(number)], format!("{:?}", whole.op_register(index)));
        }
        Operand::None => panic!("{whole:?}"),
    }
}

fn execute_mask(operation: &Operation) -> u64 {
    if matches!(operation.kind, Kind::BitTest(_)) { 0xff } else { super::super::execute::mask(operation.size) }
}

use std::format;

#[test]
fn every_opcode_and_addressing_form() {
    let mut known = 0;
    for code in [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64] {
        let prefixes: &[&[u8]] =
            &[&[], &[0x66], &[0x67], &[0x66, 0x67], &[0x48], &[0x45], &[0x66, 0x4d], &[0xf3], &[0xf2], &[0x65]];
        for prefix in prefixes {
            for page in [&[][..], &[0x0f]] {
                for opcode in 0..=255u8 {
                    for modrm in 0..=255u8 {
                        let mut bytes = [prefix, page, &[opcode, modrm, 0x25]].concat();
                        bytes.extend([0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a]);
                        bytes.truncate(15);
                        known += u32::from(compare(&bytes, code));
                    }
                }
            }
        }
    }
    assert!(known > 100_000, "only {known}");
}

proptest! {
    #[test]
    fn random_bytes(bytes: [u8; 15], which in 0usize..3) {
        compare(&bytes, [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64][which]);
    }

    #[test]
    fn a_prefix_of_an_instruction_is_incomplete(bytes: [u8; 15], which in 0usize..3) {
        let code = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64][which];
        if let Seen::Is(length, _) = decode(&bytes, code) {
            for cut in 0..usize::from(length) {
                prop_assert_eq!(decode(&bytes[..cut], code), Seen::Incomplete);
            }
        }
    }
}

//! Base address registers: how large what they place is, and where it is now. Pure over ways to read and write registers.
//! (PCI Local Bus Specification 3.0, 6.2.5; PCI-to-PCI Bridge Architecture 1.2, 3.2.5.)

use super::capabilities::Reader;
use core::ops::Range;

/// The first register, and how many a function and a bridge have.
pub const FIRST: u16 = 0x10;
const OF_FUNCTION: usize = 6;
const OF_BRIDGE: usize = 2;
/// Where the ROM is placed, by type of header.
const ROM_OF_FUNCTION: u16 = 0x30;
const ROM_OF_BRIDGE: u16 = 0x38;
const IS_PORTS: u32 = 1;
const TYPE: u32 = 0b110;
const TYPE_64: u32 = 0b100;
const MEMORY_BITS: u32 = 0xffff_fff0;
const ROM_BITS: u32 = 0xffff_f800;
const ROM_ENABLED: u32 = 1;

/// What one register, or a pair of them, places in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// The register, or the lower one.
    pub register: u16,
    /// Its number, 0 to 5; 6 for the ROM.
    pub number: u8,
    /// Bytes, a power of two.
    pub length: u64,
    is_64: bool,
    is_rom: bool,
}

/// All memory that a function may have.
pub type Bars = heapless::Vec<Bar, 7>;

impl Bar {
    /// Where it is, by what the registers hold: nowhere, if it is at 0 or a ROM that is turned off.
    pub fn range(&self, read: Reader<'_>) -> Option<Range<u64>> {
        let low = read(self.register);
        let (bits, is_on) = if self.is_rom { (ROM_BITS, low & ROM_ENABLED != 0) } else { (MEMORY_BITS, true) };
        let high = if self.is_64 { read(self.register.saturating_add(4)) } else { 0 };
        let start = u64::from(high) << 32 | u64::from(low & bits);
        (is_on && start != 0).then(|| start..start.saturating_add(self.length))
    }
}

/// Measures a function's registers by writing ones and putting back what was there. Its decoding must be off.
pub fn measure(header_type: u8, read: Reader<'_>, write: &dyn Fn(u16, u32)) -> Bars {
    let (count, rom) = match header_type & 0x7f {
        0 => (OF_FUNCTION, ROM_OF_FUNCTION),
        1 => (OF_BRIDGE, ROM_OF_BRIDGE),
        _ => return Bars::new(),
    };
    let ask = |register: u16| {
        let old = read(register);
        write(register, u32::MAX);
        let answer = read(register);
        write(register, old);
        answer
    };
    let mut bars = Bars::new();
    let mut registers = (0u8..).zip((FIRST..).step_by(4)).take(count);
    while let Some((number, register)) = registers.next() {
        let answer = ask(register);
        if answer & IS_PORTS != 0 {
            continue;
        }
        let is_64 = answer & TYPE == TYPE_64;
        let high = if is_64 { registers.next().map_or(0, |(_, upper)| ask(upper)) } else { 0 };
        let length = size(u64::from(high) << 32 | u64::from(answer & MEMORY_BITS));
        add(&mut bars, Bar { register, number, length, is_64, is_rom: false });
    }
    let answer = ask(rom);
    let length = size(u64::from(answer & ROM_BITS));
    add(&mut bars, Bar { register: rom, number: 6, length, is_64: false, is_rom: true });
    bars
}

/// The lowest bit that can be set; 0 for a register that does not exist.
const fn size(bits: u64) -> u64 {
    bits & bits.wrapping_neg()
}

fn add(bars: &mut Bars, bar: Bar) {
    if bar.length != 0 {
        // There is room for all that can exist.
        let _is_added = bars.push(bar).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// Registers with the bits of them that can be written.
    struct Space(RefCell<HashMap<u16, (u32, u32)>>);

    impl Space {
        fn new(registers: &[(u16, u32, u32)]) -> Self {
            Self(RefCell::new(registers.iter().map(|(at, value, bits)| (*at, (*value, *bits))).collect()))
        }
        fn read(&self, register: u16) -> u32 {
            self.0.borrow().get(&register).map_or(0, |(value, _)| *value)
        }
        fn write(&self, register: u16, new: u32) {
            if let Some((value, bits)) = self.0.borrow_mut().get_mut(&register) {
                *value = *value & !*bits | new & *bits;
            }
        }
        fn measure(&self, header_type: u8) -> Bars {
            measure(header_type, &|at| self.read(at), &|at, value| self.write(at, value))
        }
    }

    #[test]
    fn all_kinds_are_measured_and_left_as_they_were() {
        let registers = [
            (0x10, 0xfeb0_0000, 0xfffe_0000),
            (0x14, 0xc001, 0xffe0),
            (0x18, 0xc00c, 0xffff_c000),
            (0x1c, 0x8, 0xffff_ffff),
            (0x20, 0x4, 0),
            (0x24, 0, 0xffff_fff8),
            (0x30, 0xfea0_0001, 0xfffc_0001),
        ];
        let space = Space::new(&registers);
        let bars = space.measure(0x80);
        let found: std::vec::Vec<_> = bars.iter().map(|bar| (bar.number, bar.length)).collect();
        assert_eq!(found, [(0, 0x2_0000), (2, 0x4000), (4, 1 << 35), (6, 0x4_0000)]);
        for (register, value, _) in registers {
            assert_eq!(space.read(register), value, "{register:#x}");
        }
        let range = |number: usize| bars[number].range(&|at| space.read(at));
        assert_eq!(range(0), Some(0xfeb0_0000..0xfeb2_0000));
        assert_eq!(range(1), Some(0x8_0000_c000..0x8_0001_0000));
        assert_eq!(range(3), Some(0xfea0_0000..0xfea4_0000));
        space.write(0x30, 0xfea0_0000);
        assert_eq!(range(3), None, "turned off");
        space.write(0x10, 0);
        assert_eq!(range(0), None, "not placed");
    }

    #[test]
    fn bridges_have_two_and_a_rom_elsewhere() {
        let space = Space::new(&[(0x10, 0, 0xffff_f000), (0x18, 0, 0xffff_ffff), (0x38, 0, 0xffff_f801)]);
        let found: std::vec::Vec<_> = space.measure(1).iter().map(|bar| (bar.register, bar.length)).collect();
        assert_eq!(found, [(0x10, 0x1000), (0x38, 0x800)]);
        assert!(space.measure(2).is_empty());
    }
}

//! The start-of-day block, read back as a kernel reads it.

use image::pvh::{MAGIC, MemoryMapEntry, Module, StartInfo, Version};
use image::{GpaRange, ImageError};
use proptest::prelude::*;

fn range(start: u64, len: u64) -> GpaRange {
    GpaRange::new(start, len).unwrap()
}

/// Reads the block with nothing but addresses, as the guest does.
struct Guest<'a> {
    base: u64,
    block: &'a [u8],
}

impl Guest<'_> {
    fn bytes<const N: usize>(&self, address: u64) -> [u8; N] {
        self.block[(address - self.base) as usize..][..N].try_into().unwrap()
    }

    fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.bytes(address))
    }

    fn u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.bytes(address))
    }

    fn string(&self, address: u64) -> &[u8] {
        if address == 0 {
            return b"";
        }
        let bytes = &self.block[(address - self.base) as usize..];
        &bytes[..bytes.iter().position(|&byte| byte == 0).unwrap()]
    }
}

fn check(info: &StartInfo<'_>, base: u64) {
    let block = info.build(base).unwrap();
    assert_eq!(block.len() as u64, info.size().unwrap());
    let guest = Guest { base, block: &block };
    assert_eq!(guest.u32(base), 0x336e_c578);
    assert_eq!(guest.u32(base + 4), u32::from(info.version == Version::V1));
    assert_eq!(guest.u32(base + 8), info.flags);
    assert_eq!(guest.u32(base + 12) as usize, info.modules.len());
    assert_eq!(guest.string(guest.u64(base + 24)), info.command_line);
    assert_eq!(guest.u64(base + 32), info.rsdp);
    let list = guest.u64(base + 16);
    assert_eq!(list == 0, info.modules.is_empty());
    for (at, module) in (list..).step_by(32).zip(info.modules) {
        assert_eq!(at % 8, 0);
        assert_eq!((guest.u64(at), guest.u64(at + 8)), (module.range.start(), module.range.len()));
        assert_eq!(guest.string(guest.u64(at + 16)), module.command_line);
        assert_eq!(guest.u64(at + 24), 0);
    }
    if info.version == Version::V1 {
        let map = guest.u64(base + 40);
        assert_eq!(map == 0, info.memory_map.is_empty());
        assert_eq!(guest.u32(base + 48) as usize, info.memory_map.len());
        assert_eq!(guest.u32(base + 52), 0);
        for (at, entry) in (map..).step_by(24).zip(info.memory_map) {
            assert_eq!(at % 8, 0);
            assert_eq!((guest.u64(at), guest.u64(at + 8)), (entry.range.start(), entry.range.len()));
            assert_eq!((guest.u32(at + 16), guest.u32(at + 20)), (entry.kind, 0));
        }
    }
}

const EMPTY: StartInfo<'_> =
    StartInfo { version: Version::V1, flags: 0, command_line: b"", modules: &[], memory_map: &[], rsdp: 0 };

#[test]
fn the_smallest_blocks() {
    assert_eq!(EMPTY.size(), Ok(56));
    check(&EMPTY, 0x10_0000);
    let old = StartInfo { version: Version::V0, ..EMPTY };
    assert_eq!(old.size(), Ok(40));
    check(&old, 0x10_0000);
    assert_eq!(EMPTY.build(0x1000).unwrap()[..4], MAGIC.to_le_bytes());
}

#[test]
fn a_full_block() {
    let modules = [
        Module { range: range(0x500_0000, 0x12345), command_line: b"" },
        Module { range: range(0x600_0000, 1), command_line: b"second module" },
        Module { range: range(0x700_0000, 0), command_line: b"x" },
    ];
    let memory_map = [
        MemoryMapEntry { range: range(0, 0xa_0000), kind: 1 },
        MemoryMapEntry { range: range(0xfc00_0000, 0x1_0000), kind: 3 },
    ];
    let info = StartInfo {
        flags: 3,
        command_line: b"console=hvc0 root=/dev/vda",
        modules: &modules,
        memory_map: &memory_map,
        rsdp: 0xfc00_8000,
        ..EMPTY
    };
    let layout = info.layout().unwrap();
    assert_eq!((layout.modules, layout.memory_map, layout.command_line), (56, 152, 200));
    assert_eq!((layout.module_strings, layout.size), (227, 227 + 14 + 2));
    check(&info, 0x1234_5000);
    check(&StartInfo { version: Version::V0, memory_map: &[], ..info }, 0x1234_5008);
}

#[test]
fn impossible_blocks() {
    let memory_map = [MemoryMapEntry { range: range(0, 1), kind: 1 }];
    let old = StartInfo { version: Version::V0, memory_map: &memory_map, ..EMPTY };
    assert!(matches!(old.size(), Err(ImageError::Argument { what: "memory map", .. })));
    let with_zero = StartInfo { command_line: b"a\0b", ..EMPTY };
    assert!(matches!(with_zero.size(), Err(ImageError::Argument { what: "command line", value: 1, .. })));
    let modules = [Module { range: range(0x1000, 1), command_line: b"\0" }];
    let with_zero = StartInfo { modules: &modules, ..EMPTY };
    assert!(matches!(with_zero.build(0x1000), Err(ImageError::Argument { what: "module command line", value: 0, .. })));
    let modules = [Module { range: range(0, 1), command_line: b"" }];
    let at_zero = StartInfo { modules: &modules, ..EMPTY };
    assert!(matches!(at_zero.build(0x1000), Err(ImageError::Argument { what: "module address", .. })));
    for address in [0, 4, 0x1001, (1 << 32) - 48, 1 << 32, u64::MAX - 7] {
        assert!(
            matches!(EMPTY.build(address), Err(ImageError::Argument { what: "start info address", .. })),
            "{address:#x}"
        );
    }
    check(&EMPTY, (1 << 32) - 56);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_block(
        base in 1u64..0x1000_0000,
        flags in any::<u32>(),
        rsdp in any::<u64>(),
        command_line in prop::collection::vec(1u8.., 0..300),
        modules in prop::collection::vec((1u64.., any::<u64>(), prop::collection::vec(1u8.., 0..40)), 0..9),
        map in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..40),
        old in any::<bool>(),
    ) {
        let clip = |start: u64, len: u64| range(start, len.min(u64::MAX - start));
        let modules: Vec<Module<'_>> = modules
            .iter()
            .map(|(start, len, line)| Module { range: clip(*start, *len), command_line: line })
            .collect();
        let map: Vec<MemoryMapEntry> =
            map.iter().map(|&(start, len, kind)| MemoryMapEntry { range: clip(start, len), kind }).collect();
        let info = StartInfo {
            version: if old { Version::V0 } else { Version::V1 },
            flags,
            command_line: &command_line,
            modules: &modules,
            memory_map: if old { &[] } else { &map },
            rsdp,
        };
        check(&info, base * 8);
    }
}

//! The start info of a PVH guest: the structure whose address the kernel finds in RBX, with the tables it points to.
//!
//! Version 1 of `hvm_start_info` (public/arch-x86/hvm/start_info.h): 56 bytes, then the command line, the list of modules
//! and the memory map, all in one block. The plan places the block and loads it like any other bytes.

use super::layout::{MapEntry, Range};

/// `XEN_HVM_START_MAGIC_VALUE`, "xEn3" with the top bit of the E set.
const MAGIC: u32 = 0x336e_c578;
const HEADER: u64 = 56;
const MODULE: u64 = 32;
const MAP_ENTRY: u64 = 24;

/// What goes into the block.
pub(super) struct Content<'a> {
    /// The kernel's command line.
    pub(super) command_line: Option<&'a str>,
    /// Modules: the initial RAM disk, if there is one.
    pub(super) modules: &'a [Range],
    /// The memory map.
    pub(super) map: &'a [MapEntry],
    /// Address of the RSDP; 0 for none.
    pub(super) rsdp: u64,
}

impl Content<'_> {
    fn module_list(&self) -> u64 {
        HEADER
    }

    fn map_table(&self) -> u64 {
        self.module_list() + MODULE * self.modules.len() as u64
    }

    fn text(&self) -> u64 {
        self.map_table() + MAP_ENTRY * self.map.len() as u64
    }

    /// Length of the block in bytes.
    pub(super) fn size(&self) -> u64 {
        self.text() + self.command_line.map_or(0, |line| line.len() as u64 + 1)
    }

    /// The block, for the address `base`.
    pub(super) fn bytes(&self, base: u64) -> Vec<u8> {
        let at = |offset: u64, present: bool| if present { base + offset } else { 0 };
        let mut block = Block(Vec::new());
        block
            .u32(MAGIC)
            .u32(1)
            .u32(0)
            .u32(self.modules.len() as u32);
        block.u64(at(self.module_list(), !self.modules.is_empty()));
        block.u64(at(self.text(), self.command_line.is_some()));
        block
            .u64(self.rsdp)
            .u64(base + self.map_table())
            .u32(self.map.len() as u32)
            .u32(0);
        for module in self.modules {
            block.u64(module.start).u64(module.bytes()).u64(0).u64(0);
        }
        for entry in self.map {
            block
                .u64(entry.range.start)
                .u64(entry.range.bytes())
                .u32(entry.kind.number())
                .u32(0);
        }
        if let Some(line) = self.command_line {
            block.0.extend_from_slice(line.as_bytes());
            block.0.push(0);
        }
        block.0
    }
}

struct Block(Vec<u8>);

impl Block {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use public_abi::memory::E820Type;

    #[test]
    fn the_block_has_the_size_it_says_and_points_into_itself() {
        let map = [MapEntry {
            range: Range {
                start: 0,
                end: 64 << 20,
            },
            kind: E820Type::Ram,
        }];
        let modules = [Range {
            start: 0x500_0000,
            end: 0x500_1234,
        }];
        let content = Content {
            command_line: Some("console=hvc0"),
            modules: &modules,
            map: &map,
            rsdp: 0xfc00_0000,
        };
        let bytes = content.bytes(0x7000);
        assert_eq!(bytes.len() as u64, content.size());
        let u64_at =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(&bytes[..4], [0x78, 0xc5, 0x6e, 0x33]);
        assert_eq!(
            (u64_at(16), u64_at(24), u64_at(32), u64_at(40)),
            (0x7000 + 56, 0x7000 + 112, 0xfc00_0000, 0x7000 + 88)
        );
        assert_eq!((u64_at(56), u64_at(64)), (0x500_0000, 0x1234));
        assert_eq!((u64_at(88), u64_at(96)), (0, 64 << 20));
        assert_eq!(&bytes[112..], b"console=hvc0\0");
    }
}

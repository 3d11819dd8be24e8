//! Arm's stage 2 with a 4 KiB granule (Arm ARM DDI 0487, D8.3: VMSAv8-64 descriptors). Compiled and tested; used when an
//! Arm machine is.
//!
//! Bits 58:55 are free for software; 62:59 are ignored while VTCR_EL2.HWU59..62 are 0, and 63 is ignored. The low four bits
//! of the kind stand in 58:55, its fifth in 63, the access code in 62:59. An invalid descriptor is software's altogether.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use machine::Mfn;

const VALID: u64 = 1 << 0;
/// A table at the upper levels, a page at the lowest; clear for a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Normal memory, write-back inside and outside (MemAttr, bits 5:2).
const NORMAL: u64 = 0b1111 << 2;
/// Device-nGnRE.
const DEVICE: u64 = 0b0001 << 2;
const READABLE: u64 = 1 << 6;
const WRITABLE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// XN[1]: no execution at EL1 and EL0 (bits 54:53 are XN[1:0]).
const NO_EXECUTE: u64 = 1 << 54;

const KIND_LOW_SHIFT: u32 = 55;
const KIND_HIGH_SHIFT: u32 = 63;
const ACCESS_SHIFT: u32 = 59;

/// The format.
#[derive(Debug)]
pub struct Stage2;

impl Format for Stage2 {
    const HARDWARE: machine::table::Format = machine::table::Format::STAGE_2;
    const TABLE: u64 = VALID | TABLE_OR_PAGE;
    const TRACKED: u64 = 0;

    fn encode(entry: &Entry) -> u64 {
        let kind = entry.kind.number();
        let mut bits =
            (kind & 15) << KIND_LOW_SHIFT | (kind >> 4) << KIND_HIGH_SHIFT | entry.access.code() << ACCESS_SHIFT;
        if entry.kind.has_frame() {
            bits |= entry.mfn.address().number() & ADDRESS;
        }
        let rights = entry.rights();
        if rights.is_empty() {
            return bits;
        }
        bits |= VALID | ACCESSED | INNER_SHAREABLE | READABLE;
        bits |= if matches!(entry.kind, Kind::MmioDirect) { DEVICE } else { NORMAL };
        if rights.contains(Rights::WRITE) {
            bits |= WRITABLE;
        }
        if !rights.contains(Rights::EXECUTE) {
            bits |= NO_EXECUTE;
        }
        if entry.order == 0 {
            bits |= TABLE_OR_PAGE;
        }
        bits
    }

    fn decode(bits: u64, order: u32) -> Entry {
        let kind = Kind::from_number(bits >> KIND_LOW_SHIFT & 15 | (bits >> KIND_HIGH_SHIFT & 1) << 4);
        let mfn = if kind.has_frame() { (bits & ADDRESS) >> machine::PAGE_SHIFT } else { 0 };
        let access = MemoryAccess::from_code(bits >> ACCESS_SHIFT & 15);
        Entry { kind, access, order, mfn: Mfn::new(mfn) }
    }
}

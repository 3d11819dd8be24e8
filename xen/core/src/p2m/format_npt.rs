//! AMD's nested page tables: the long-mode format (AMD APM volume 2, 5.3.3, 5.4 and 15.25).
//!
//! Software bits of a leaf: 11:9 and 58:52 are free for the hypervisor whatever is enabled. The kind stands in 56:52, the
//! access code in 11:9 and, its highest bit, in 57. All nested accesses count as user accesses, so U is always set. PCD
//! alone selects UC- in the reset PAT, with which a guest can still choose write-combining for a frame buffer.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use machine::Mfn;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;

const KIND_SHIFT: u32 = 52;
const ACCESS_LOW_SHIFT: u32 = 9;
const ACCESS_HIGH_SHIFT: u32 = 57;

/// The format.
#[derive(Debug)]
pub struct Npt;

impl Format for Npt {
    const HARDWARE: machine::table::Format = machine::table::Format::NPT;
    const TABLE: u64 = PRESENT | WRITABLE | USER;
    const TRACKED: u64 = ACCESSED | DIRTY;

    #[inline]
    fn encode(entry: &Entry) -> u64 {
        let code = entry.access.code();
        let mut bits =
            entry.kind.number() << KIND_SHIFT | (code & 7) << ACCESS_LOW_SHIFT | (code >> 3) << ACCESS_HIGH_SHIFT;
        if entry.kind.has_frame() {
            bits |= entry.mfn.address().number() & ADDRESS;
        }
        let rights = entry.rights();
        if rights.is_empty() {
            return bits;
        }
        bits |= PRESENT | USER;
        if rights.contains(Rights::WRITE) {
            bits |= WRITABLE;
        }
        if !rights.contains(Rights::EXECUTE) {
            bits |= NO_EXECUTE;
        }
        if entry.order > 0 {
            bits |= LARGE;
        }
        if matches!(entry.kind, Kind::MmioDirect) {
            bits |= CACHE_DISABLE;
        }
        bits
    }

    #[inline]
    fn decode(bits: u64, order: u32) -> Entry {
        let kind = Kind::from_number(bits >> KIND_SHIFT & 31);
        let code = bits >> ACCESS_LOW_SHIFT & 7 | (bits >> ACCESS_HIGH_SHIFT & 1) << 3;
        let mfn = if kind.has_frame() { (bits & ADDRESS) >> machine::PAGE_SHIFT } else { 0 };
        Entry { kind, access: MemoryAccess::from_code(code), order, mfn: Mfn::new(mfn) }
    }
}

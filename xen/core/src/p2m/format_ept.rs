//! Intel's extended page tables (Intel SDM volume 3C, 29.3.2 and tables 29-1 to 29-7). Compiled and tested; used when a VMX
//! machine is.
//!
//! Bits that hardware ignores in every entry: 11, 56:52, 59 and 62; and 57 as long as the VM-execution control "guest-paging
//! verification" is off, which it always is here. The kind stands in 56:52, the access code in 11, 57, 59 and 62.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use machine::Mfn;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
/// Memory types stand in bits 5:3: 6 is write-back, 0 uncacheable.
const WRITE_BACK: u64 = 6 << 3;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const KIND_SHIFT: u32 = 52;
const ACCESS_SHIFTS: [u32; 4] = [11, 57, 59, 62];

/// The format.
#[derive(Debug)]
pub struct Ept;

impl Format for Ept {
    const HARDWARE: machine::table::Format = machine::table::Format::EPT;
    const TABLE: u64 = READ | WRITE | EXECUTE;
    const TRACKED: u64 = ACCESSED | DIRTY;

    fn encode(entry: &Entry) -> u64 {
        let code = entry.access.code();
        let mut bits = entry.kind.number() << KIND_SHIFT;
        for (bit, shift) in ACCESS_SHIFTS.into_iter().enumerate() {
            bits |= (code >> bit & 1) << shift;
        }
        if entry.kind.has_frame() {
            bits |= entry.mfn.address().number() & ADDRESS;
        }
        let rights = entry.rights();
        if rights.is_empty() {
            return bits;
        }
        for (right, bit) in [(Rights::READ, READ), (Rights::WRITE, WRITE), (Rights::EXECUTE, EXECUTE)] {
            if rights.contains(right) {
                bits |= bit;
            }
        }
        if entry.order > 0 {
            bits |= LARGE;
        }
        if !matches!(entry.kind, Kind::MmioDirect) {
            bits |= WRITE_BACK;
        }
        bits
    }

    fn decode(bits: u64, order: u32) -> Entry {
        let kind = Kind::from_number(bits >> KIND_SHIFT & 31);
        let code = (0..).zip(ACCESS_SHIFTS).fold(0, |code, (bit, shift)| code | (bits >> shift & 1) << bit);
        let mfn = if kind.has_frame() { (bits & ADDRESS) >> machine::PAGE_SHIFT } else { 0 };
        Entry { kind, access: MemoryAccess::from_code(code), order, mfn: Mfn::new(mfn) }
    }
}

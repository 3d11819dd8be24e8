//! Tables of AMD's IOMMU (AMD I/O Virtualization Technology Specification 48882, 2.2.3 and tables 21 to 23).
//!
//! They hold no truth: `view` keeps them to what the p2m says. So an entry needs no more than a device may do, and one bit of
//! its own, by which a block that is split knows whether it is RAM: bit 1, one of those that hardware ignores. Which level a
//! pointed-to table has, bits 11:9, is `machine::table`'s business.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use machine::Mfn;

const PRESENT: u64 = 1 << 0;
const IS_DEVICE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Accesses that the device has marked as coherent stay so; this bit would make all others coherent, which they are on PCs.
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The format.
#[derive(Debug)]
pub struct AmdIo;

impl Format for AmdIo {
    const HARDWARE: machine::table::Format = machine::table::Format::AMD_IO;
    const TABLE: u64 = PRESENT | READ | WRITE;
    const TRACKED: u64 = ACCESSED | DIRTY;

    #[inline]
    fn encode(entry: &Entry) -> u64 {
        let rights = entry.rights();
        if !rights.contains(Rights::READ) {
            return 0;
        }
        let mut bits = PRESENT | READ | entry.mfn.address().number() & ADDRESS;
        if rights.contains(Rights::WRITE) {
            bits |= WRITE;
        }
        if !entry.kind.holds_reference() {
            bits |= IS_DEVICE;
        }
        bits
    }

    #[inline]
    fn decode(bits: u64, order: u32) -> Entry {
        if bits & PRESENT == 0 {
            return Entry::hole(order);
        }
        let kind = if bits & IS_DEVICE != 0 { Kind::MmioDirect } else { Kind::RamRw };
        let access = if bits & WRITE != 0 { MemoryAccess::Rw } else { MemoryAccess::R };
        Entry { access, ..Entry::with_frame(kind, order, Mfn::new((bits & ADDRESS) >> machine::PAGE_SHIFT)) }
    }
}

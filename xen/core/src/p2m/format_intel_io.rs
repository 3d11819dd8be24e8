//! Second-level tables of Intel's IOMMU (VT-d revision 4.1, 9.8).
//!
//! They hold no truth, as those of AMD's (`format_amd_io`). Bit 53, of those that hardware ignores, says whether a block that is split
//! is RAM. Bit 7 makes an entry above the lowest level a block; where it is ignored it is 0. Snooping (bit 11) needs a capability of
//! its own, and PCs' memory is coherent without.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use machine::Mfn;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const IS_DEVICE: u64 = 1 << 53;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The format.
#[derive(Debug)]
pub struct IntelIo;

impl Format for IntelIo {
    const HARDWARE: machine::table::Format = machine::table::Format::INTEL_IO;
    const TABLE: u64 = READ | WRITE;
    /// Accessed and dirty bits are an extension that stays off.
    const TRACKED: u64 = 0;

    #[inline]
    fn encode(entry: &Entry) -> u64 {
        let rights = entry.rights();
        if !rights.contains(Rights::READ) {
            return 0;
        }
        let mut bits = READ | entry.mfn.address().number() & ADDRESS;
        if rights.contains(Rights::WRITE) {
            bits |= WRITE;
        }
        if entry.order > 0 {
            bits |= LARGE;
        }
        if !entry.kind.holds_reference() {
            bits |= IS_DEVICE;
        }
        bits
    }

    #[inline]
    fn decode(bits: u64, order: u32) -> Entry {
        if bits & READ == 0 {
            return Entry::hole(order);
        }
        let kind = if bits & IS_DEVICE != 0 { Kind::MmioDirect } else { Kind::RamRw };
        let access = if bits & WRITE != 0 { MemoryAccess::Rw } else { MemoryAccess::R };
        Entry { access, ..Entry::with_frame(kind, order, Mfn::new((bits & ADDRESS) >> machine::PAGE_SHIFT)) }
    }
}

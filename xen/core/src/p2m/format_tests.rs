//! All three formats: every entry survives, hardware sees what the manuals say, and nothing else is set.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use super::format_ept::Ept;
use super::format_npt::Npt;
use super::format_stage2::Stage2;
use machine::Mfn;

/// Every kind, access and order, with an address that has bits everywhere.
fn all_entries() -> impl Iterator<Item = Entry> {
    Kind::ALL.into_iter().flat_map(|kind| {
        (0..10).map(MemoryAccess::from_code).flat_map(move |access| {
            [0, 9, 18].map(|order| {
                let mfn = if kind.has_frame() { Mfn::new(0x000f_5a5a_5a5a).align_down(order) } else { Mfn::new(0) };
                Entry { kind, access, order, mfn }
            })
        })
    })
}

/// Every entry comes back as it was, and hardware never takes a leaf for a table: `is_table` says what it does at a level.
fn survives<F: Format>(is_table: fn(bits: u64, level: u32) -> bool) {
    for entry in all_entries() {
        let bits = F::encode(&entry);
        let level = entry.order / 9;
        assert_eq!(F::decode(bits, entry.order), entry, "{bits:#x}");
        assert_eq!(F::HARDWARE.is_present(bits), !entry.rights().is_empty(), "{entry:?}");
        assert!(!is_table(bits, level), "{entry:?} looks like a table");
        assert!(!F::HARDWARE.is_table(bits), "{entry:?} is marked as a table");
    }
    assert_eq!(F::encode(&Entry::hole(0)), 0);
    assert_eq!(F::decode(0, 27), Entry::hole(27));
    for level in 1..4 {
        assert!(is_table(F::TABLE, level));
    }
    assert!(!is_table(0, 3));
}

#[test]
fn every_entry_survives_every_format() {
    survives::<Npt>(|bits, level| level > 0 && bits & 0x81 == 1);
    survives::<Ept>(|bits, level| level > 0 && bits & 7 != 0 && bits & 0x80 == 0);
    survives::<Stage2>(|bits, level| level > 0 && bits & 3 == 3);
}

#[test]
fn nested_page_tables_as_amd_defines_them() {
    for entry in all_entries() {
        let bits = Npt::encode(&entry);
        let rights = entry.rights();
        assert_eq!(bits & 1 != 0, rights.contains(Rights::READ));
        if bits & 1 == 0 {
            continue;
        }
        assert_eq!(bits >> 1 & 1 != 0, rights.contains(Rights::WRITE));
        assert_eq!(bits >> 2 & 1, 1, "a nested walk is a user access");
        assert_eq!(bits >> 63 == 0, rights.contains(Rights::EXECUTE));
        assert_eq!(bits >> 7 & 1 != 0, entry.order > 0, "page size bit, or PAT in a page entry: clear");
        assert_eq!(bits & 0x000f_ffff_ffff_f000, entry.mfn.address().number());
        assert_eq!(bits >> 3 & 1, 0, "write-through is not used");
        assert_eq!(bits >> 4 & 1 != 0, entry.kind == Kind::MmioDirect);
        // Protection keys (62:59) and the global bit stay clear.
        assert_eq!(bits & (0b1111 << 59 | 1 << 8), 0);
    }
    let ram = Npt::encode(&Entry::with_frame(Kind::RamRw, 0, Mfn::new(0x1234)));
    assert_eq!(ram & 0x800f_ffff_ffff_f1ff, 0x123_4007);
}

#[test]
fn extended_page_tables_as_intel_defines_them() {
    for entry in all_entries() {
        let bits = Ept::encode(&entry);
        let rights = entry.rights();
        assert_eq!(bits & 7, u64::from(rights.bits()), "R, W, X in that order");
        if bits & 7 == 0 {
            continue;
        }
        assert_ne!(bits & 3, 2, "write without read is a misconfiguration");
        assert_eq!(bits >> 3 & 7, if entry.kind == Kind::MmioDirect { 0 } else { 6 }, "memory type");
        assert_eq!(bits >> 6 & 1, 0, "the guest's PAT counts");
        assert_eq!(bits >> 7 & 1 != 0, entry.order > 0);
        assert_eq!(bits & 0x000f_ffff_ffff_f000, entry.mfn.address().number());
        // Bits that mean something when features are on: user execute, paging write, shadow stack, sub-page, no #VE.
        assert_eq!(bits & (1 << 10 | 1 << 58 | 1 << 60 | 1 << 61 | 1 << 63), 0);
    }
}

#[test]
fn stage_2_as_arm_defines_it() {
    for entry in all_entries() {
        let bits = Stage2::encode(&entry);
        let rights = entry.rights();
        assert_eq!(bits & 1 != 0, rights.contains(Rights::READ));
        if bits & 1 == 0 {
            continue;
        }
        assert_eq!(bits >> 1 & 1 != 0, entry.order == 0, "blocks clear it, pages set it");
        assert_eq!(bits >> 2 & 15, if entry.kind == Kind::MmioDirect { 1 } else { 15 });
        assert_eq!(bits >> 6 & 1, 1);
        assert_eq!(bits >> 7 & 1 != 0, rights.contains(Rights::WRITE));
        assert_eq!(bits >> 8 & 3, 3);
        assert_eq!(bits >> 10 & 1, 1, "accessed, or the first use faults");
        assert_eq!(bits >> 53 & 3, if rights.contains(Rights::EXECUTE) { 0 } else { 2 });
        assert_eq!(bits & 0x0000_ffff_ffff_f000, entry.mfn.address().number());
        assert_eq!(bits >> 48 & 0b1_1111, 0, "bits 52:48 are not used");
    }
}

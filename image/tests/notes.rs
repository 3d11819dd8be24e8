//! Xen's ELF notes: all of them, wrong ones, and what a loader concludes (entry and relocation).

mod common;

use common::{Elf, named_note, note};
use image::{GpaRange, ImageError, Kernel};

#[test]
fn all_notes() {
    let numbers = [1, 2, 3, 4, 12, 14, 15, 16, 17u32];
    let mut notes = named_note(b"GNU\0", 18, &[9; 20]);
    for kind in numbers {
        notes.extend(note(kind, &(u64::from(kind) << 32 | 7).to_le_bytes()));
    }
    for (kind, text) in [(5, "xen-3.0"), (6, "os"), (7, "2.6"), (8, "generic"), (9, "yes"), (11, "no")] {
        notes.extend(note(kind, format!("{text}\0").as_bytes()));
    }
    notes.extend(note(10, b"!writable_page_tables|pae_pgdir_above_4gb||auto\0junk"));
    notes.extend(note(13, &[1; 16]));
    notes.extend(note(18, &0x100_0004u32.to_le_bytes()));
    notes.extend(note(19, &[0x20_0000u32, 0x100_0000, 0x3fff_ffff].map(u32::to_le_bytes).concat()));
    notes.extend(note(0x4000, b"unknown"));
    for notes_in_section in [false, true] {
        let file = Elf { notes: notes.clone(), notes_in_section, ..Elf::linux_like() }.build();
        let kernel = Kernel::parse(&file).unwrap();
        let found = kernel.notes;
        assert_eq!(found.count, 20);
        let values = [
            found.entry,
            found.hypercall_page,
            found.virt_base,
            found.paddr_offset,
            found.hv_start_low,
            found.suspend_cancel,
            found.init_p2m,
            found.mod_start_pfn,
            found.supported_features,
        ];
        assert_eq!(values, numbers.map(|kind| Some(u64::from(kind) << 32 | 7)));
        let strings =
            [found.xen_version, found.guest_os, found.guest_version, found.loader, found.pae_mode, found.bsd_symtab];
        assert_eq!(strings, ["xen-3.0", "os", "2.6", "generic", "yes", "no"].map(|text| Some(text.as_bytes())));
        let features: Vec<_> = found.features().collect();
        assert_eq!(features, [(&b"writable_page_tables"[..], true), (b"pae_pgdir_above_4gb", false), (b"auto", false)]);
        assert_eq!(found.l1_mfn_valid, Some(&[1; 16][..]));
        assert_eq!(kernel.pvh_entry(), Ok(0x100_0004));
        let relocation = kernel.relocation().unwrap();
        assert_eq!(relocation.align, 0x20_0000);
        assert_eq!(relocation.within, GpaRange::between(0x100_0000, 0x4000_0000).unwrap());
    }
}

#[test]
fn defaults_of_a_relocation_note() {
    let mut elf = Elf { notes: note(19, &[]), ..Elf::linux_like() };
    let relocation = |elf: &Elf| Kernel::parse(&elf.build()).unwrap().relocation().unwrap();
    assert_eq!(relocation(&elf).align, 0x20_0000);
    assert_eq!(relocation(&elf).within, GpaRange::between(0, 1 << 32).unwrap());
    elf.loads[0].align = 0x40_0000;
    assert_eq!(relocation(&elf).align, 0x40_0000, "the largest p_align");
    elf.loads[0].align = 8;
    elf.loads[1].align = 0;
    assert_eq!(relocation(&elf).align, 0x20_0000, "less than a page does not count");
    elf.notes = note(19, &[0x1_0000u32, 0x80_0000].map(u32::to_le_bytes).concat());
    assert_eq!(relocation(&elf).align, 0x1_0000);
    assert_eq!(relocation(&elf).within, GpaRange::between(0x80_0000, 1 << 32).unwrap());
}

#[test]
fn wrong_notes() {
    let parse = |notes: Vec<u8>| Kernel::parse(&Elf { notes, ..Elf::linux_like() }.build()).map(|_| ());
    assert!(matches!(parse(note(18, &[0; 6])), Err(ImageError::Field { what: "PHYS32_ENTRY", value: 6, .. })));
    assert!(matches!(
        parse(note(18, &(1u64 << 32).to_le_bytes())),
        Err(ImageError::Field { what: "PHYS32_ENTRY", value: 0x1_0000_0000, .. })
    ));
    assert!(matches!(parse(note(19, &[0; 16])), Err(ImageError::Field { what: "PHYS32_RELOC", value: 16, .. })));
    assert!(matches!(parse(note(19, &[3, 0, 0, 0])), Err(ImageError::Field { what: "PHYS32_RELOC", value: 3, .. })));
    let mut long = note(6, b"linux\0");
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(parse(long.clone()), Err(ImageError::Truncated { what: "note descriptor", .. })));
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(parse(long), Err(ImageError::Truncated { what: "note name", .. })));
    assert!(matches!(parse(vec![4, 0, 0, 0, 4]), Err(ImageError::Truncated { what: "note descsz", .. })));
}

#[test]
fn a_pvh_entry_must_be_in_the_bytes_of_the_kernel() {
    let entry = |address: u32| {
        let file = Elf { notes: note(18, &address.to_le_bytes()), ..Elf::linux_like() }.build();
        Kernel::parse(&file).unwrap().pvh_entry()
    };
    assert_eq!(entry(0x100_0000), Ok(0x100_0000));
    assert_eq!(entry(0x100_0000 + 4999), Ok(0x100_0000 + 4999));
    for outside in [0, 0xff_ffff, 0x100_0000 + 5000, 0x120_0000 + 777, u32::MAX] {
        assert!(matches!(entry(outside), Err(ImageError::Argument { what: "PHYS32_ENTRY", .. })), "{outside:#x}");
    }
    let file = Elf { notes: vec![], ..Elf::linux_like() }.build();
    assert_eq!(Kernel::parse(&file).unwrap().pvh_entry(), Err(ImageError::NoNote { what: "PHYS32_ENTRY" }));
}

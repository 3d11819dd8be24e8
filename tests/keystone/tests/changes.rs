//! Changing a domain that is there, with the real hypervisor on the fake machine: its name, its memory, its vCPUs.

mod common;

use common::{CONFIG, with_toolstack};
use keystone::toolstack::Toolstack;
use libxc::core_dump::dump;
use libxc::plan::layout;
use libxc::plan::nodes::format_uuid;
use std::io::Cursor;
use xl::domain::change::{self, Pin};
use xl::domain::devices;

fn with_domain(test: impl FnOnce(&Toolstack, u16)) {
    with_toolstack(|toolstack| {
        let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}"));
        test(toolstack, built.domid);
        toolstack.destroy(built.domid).expect("is destroyed");
    });
}

fn text(toolstack: &Toolstack, path: &str) -> String {
    toolstack.store.tree().text(path).unwrap_or_default()
}

#[test]
fn a_name_changes_in_both_places_and_is_nobody_elses() {
    with_domain(|toolstack, domid| {
        let session = &toolstack.session;
        change::rename(session, domid, "h").expect("is renamed");
        assert_eq!(session.by_name("h").expect("can be asked"), Some(domid));
        assert_eq!(text(toolstack, &format!("/vm/{}/name", format_uuid(&[0x11; 16]))), "h");
        change::rename(session, domid, "h").expect("has this name already");
        let taken = change::rename(session, domid, "Domain-0").expect_err("is taken");
        assert!(taken.to_string().contains("domain 0"), "{taken}");
        assert!(change::rename(session, 4321, "x").is_err());
    });
}

#[test]
fn memory_is_asked_for_within_its_bounds() {
    with_domain(|toolstack, domid| {
        let session = &toolstack.session;
        let memory = format!("/local/domain/{domid}/memory");
        change::memory_target(session, domid, 2 << 10).expect("is less");
        assert_eq!(text(toolstack, &format!("{memory}/target")), "2048");
        assert_eq!(text(toolstack, &format!("/vm/{}/memory", format_uuid(&[0x11; 16]))), "2");
        let pages = |domid| session.handle.domain_info(domid).expect("can be asked").expect("is there").max_pages;
        assert_eq!(pages(domid), (2 << 10) / 4 + 256, "the domain may not grow beyond what it was asked to have");
        let more = change::memory_target(session, domid, 8 << 10).expect_err("is more than it may have");
        assert!(more.to_string().contains("4 MiB"), "{more}");
        assert!(change::memory_maximum(session, domid, 1 << 10).is_err(), "is less than it has");
        change::memory_maximum(session, domid, 16 << 10).expect("is more");
        assert_eq!((text(toolstack, &format!("{memory}/static-max")).as_str(), pages(domid)), ("16384", 4096 + 256));
        change::memory_target(session, domid, 8 << 10).expect("is allowed now");
        assert_eq!(text(toolstack, &format!("{memory}/target")), "8192");
        assert!(change::memory_target(session, 0, 64 << 10).is_err(), "is too little for the control domain");
        assert!(!text(toolstack, "/local/domain/0/memory/target").is_empty());
    });
}

#[test]
fn vcpus_are_asked_to_come_and_go() {
    with_domain(|toolstack, domid| {
        let session = &toolstack.session;
        let states = || {
            let state = |vcpu: u32| text(toolstack, &format!("/local/domain/{domid}/cpu/{vcpu}/availability"));
            (state(0), state(1))
        };
        change::online_vcpus(session, domid, 1).expect("is possible");
        assert_eq!(states(), ("online".into(), "offline".into()));
        change::online_vcpus(session, domid, 2).expect("is possible");
        assert_eq!(states(), ("online".into(), "online".into()));
        for count in [0, 3] {
            let refused = change::online_vcpus(session, domid, count).expect_err("is not possible");
            assert!(refused.to_string().contains("1 to 2"), "{refused}");
        }
    });
}

#[test]
fn pins_reach_the_hypervisor() {
    with_domain(|toolstack, domid| {
        let session = &toolstack.session;
        let cpus = u32::try_from(session.handle.cpu_count().expect("can be asked")).expect("is small");
        let affinity = |vcpu| {
            let (hard, soft) = session.handle.vcpu_affinity(domid, vcpu, cpus).expect("can be asked");
            (hard.members(), soft.members())
        };
        let free = affinity(0);
        let pin = Pin { vcpu: None, hard: Some(vec![0]), soft: None, force: false };
        change::pin(session, domid, &pin).expect("is pinned");
        assert_eq!((affinity(0).0, affinity(1).0), (vec![0], vec![0]));
        assert_eq!(affinity(0).1, free.1, "what a vCPU prefers is left alone");
        change::pin(session, domid, &Pin { vcpu: Some(1), soft: Some(vec![0]), hard: None, force: true })
            .expect("is pinned");
        assert_eq!(affinity(1).1, [0]);
        let unknown = change::pin(session, domid, &Pin { vcpu: Some(2), ..pin }).expect_err("there is no such vCPU");
        assert!(unknown.to_string().contains("vCPU 2"), "{unknown}");
    });
}

/// A core dump is an ELF file whose sections tell what each page is of.
#[test]
fn a_core_dump_has_the_memory_and_the_registers() {
    with_domain(|toolstack, domid| {
        let handle = toolstack.handle();
        let mut ranges = layout::ram(4 << 10);
        let pages: u64 = ranges.iter().map(|&range| layout::pages(range)).sum();
        // There is no memory here; it is left out.
        ranges.push(image::GpaRange::new(1 << 40, 3 << 12).expect("does not wrap"));
        let mut file = Cursor::new(Vec::new());
        let dumped = dump(handle, domid, &ranges, &mut file).expect("is dumped");
        assert_eq!((dumped.pages, dumped.vcpus), (pages, 1), "the second vCPU was never up");
        let file = file.into_inner();
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
        let name_at =
            |header: usize| u32::from_le_bytes(file[header..header + 4].try_into().expect("four bytes")) as usize;
        assert_eq!(&file[..4], b"\x7fELF");
        let names = word(64 + 64 + 24) as usize;
        let section = |name: &str| {
            let header = (0..6)
                .map(|index| 64 + index * 64)
                .find(|&header| file[names + name_at(header)..].starts_with(format!("{name}\0").as_bytes()));
            let header = header.unwrap_or_else(|| panic!("there is no {name}"));
            &file[word(header + 24) as usize..][..word(header + 32) as usize]
        };
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let frames: Vec<u64> = section(".xen_pfn").chunks(8).map(number).collect();
        assert_eq!(frames, (0..pages).collect::<Vec<_>>());
        let memory = section(".xen_pages");
        assert_eq!(memory.len() as u64, pages << 12);
        let kernel = keystone::kernel::elf();
        let entry = section(".xen_prstatus");
        assert_eq!(entry.len(), 5168);
        // RIP in the general registers; the kernel's first instructions are there.
        let rip = number(&entry[520 + 16 * 8..][..8]) as usize;
        let code = &memory[rip..rip + 8];
        assert!(kernel.windows(8).any(|bytes| bytes == code), "rip {rip:#x}");
        let notes = section(".note.Xen");
        assert_eq!(number(&notes[16 + 16..][..8]), 0xf00f_ebee);
        assert_eq!(number(&notes[16 + 16 + 8..][..8]), 1);
        assert_eq!(number(&notes[16 + 16 + 16..][..8]), pages);
        assert_eq!(number(&notes[notes.len() - 8..]), 1);
        assert!(dump(handle, 4321, &[], &mut Cursor::new(Vec::new())).is_err());
    });
}

/// The control domain's frames are the machine's, and nothing translates what devices do.
#[test]
fn the_control_domain_is_known_to_be_one_to_one() {
    with_toolstack(|toolstack| {
        let facts = devices::facts(&toolstack.session, false).expect("can be asked");
        assert!(facts.one_to_one && !facts.iommu);
    });
}

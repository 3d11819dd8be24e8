//! The view of a domain's devices: what an entry gives them, that it follows in blocks and pieces, that nothing is given up which
//! a unit may still reach, and that memory that runs out leaves nothing half done. (What random changes do: `memory::tests_model`.)

extern crate std;

use super::entry::{MemoryAccess, ORDER_1G, ORDER_2M};
use super::format::Format;
use super::format_amd_io::AmdIo;
use super::format_intel_io::IntelIo;
use super::view::for_devices;
use super::{DomainP2m, Entry, Kind, Rights};
use crate::memory::testing::{control_settings, domain, host, iommu, settings};
use crate::memory::{adopt, decrease, foreign_page, map_foreign, populate};
use core::sync::atomic::{AtomicBool, Ordering};
use machine::fake::{FakeMachine, Refused, with_failing_allocation};
use machine::frame::{self, Fill};
use machine::iommu::Maker;
use machine::{DomId, Gfn, Mfn};

const DEVICE: u16 = 0x18;
const MAKERS: [Maker; 2] = [Maker::Amd, Maker::Intel];

/// INV-1, and the column "DMA" of memory-engine.md, 6.2.
#[test]
fn a_device_may_no_more_than_the_domain_and_nothing_with_what_is_not_the_domains() {
    for kind in Kind::ALL {
        for code in 0..10 {
            let access = MemoryAccess::from_code(code);
            let entry = Entry { access, ..Entry::with_frame(kind, ORDER_2M, Mfn::new(0x1200)) };
            let seen = for_devices(&entry);
            assert!(entry.rights().contains(seen.rights()), "{entry:?}");
            let expected = match kind {
                Kind::RamRw | Kind::Foreign | Kind::GrantRw | Kind::MmioDirect | Kind::IdentityRdm => {
                    Rights::READ | Rights::WRITE
                }
                Kind::RamLogDirty | Kind::RamRo | Kind::GrantRo | Kind::ForeignRo => Rights::READ,
                _ => Rights::empty(),
            };
            let may_read = access.rights().contains(Rights::READ);
            let expected = if may_read { expected & access.rights() } else { Rights::empty() };
            assert_eq!(seen.rights(), expected, "{entry:?}");
        }
    }
}

/// What a unit reads in an entry (48882, tables 21 to 23), written down apart from the encoder.
#[test]
fn entries_as_amd_defines_them() {
    for kind in Kind::ALL {
        for order in [0, ORDER_2M, ORDER_1G] {
            for access in (0..10).map(MemoryAccess::from_code) {
                let mfn = if kind.has_frame() { Mfn::new(0x000f_5a5a_5a5a).align_down(order) } else { Mfn::new(0) };
                let seen = for_devices(&Entry { kind, access, order, mfn });
                let bits = AmdIo::encode(&seen);
                let rights = seen.rights();
                assert_eq!(bits & 1 != 0, !rights.is_empty());
                assert_eq!(bits >> 61 & 1 != 0, rights.contains(Rights::READ));
                assert_eq!(bits >> 62 & 1 != 0, rights.contains(Rights::WRITE));
                assert_eq!(bits & 7 << 9, 0, "a page, as large as its place makes it");
                assert_eq!(bits & 0x07f0_0000_0000_0000, 0, "reserved");
                assert_eq!(AmdIo::encode(&AmdIo::decode(bits, order)), bits);
                assert!(!AmdIo::HARDWARE.is_table(bits));
                if bits != 0 {
                    assert_eq!(bits & 0x000f_ffff_ffff_f000, mfn.address().number());
                } else {
                    assert_eq!(AmdIo::decode(bits, order), Entry::hole(order));
                }
            }
        }
    }
    assert_eq!(AmdIo::TABLE >> 61 & 3, 3, "the leaves decide");
}

/// What a unit reads in an entry (VT-d revision 4.1, 9.8), written down apart from the encoder.
#[test]
fn entries_as_intel_defines_them() {
    for kind in Kind::ALL {
        for order in [0, ORDER_2M, ORDER_1G] {
            for access in (0..10).map(MemoryAccess::from_code) {
                let mfn = if kind.has_frame() { Mfn::new(0x000f_5a5a_5a5a).align_down(order) } else { Mfn::new(0) };
                let seen = for_devices(&Entry { kind, access, order, mfn });
                let bits = IntelIo::encode(&seen);
                let rights = seen.rights();
                assert_eq!(bits & 1 != 0, rights.contains(Rights::READ));
                assert_eq!(bits & 2 != 0, rights.contains(Rights::WRITE));
                assert_eq!(bits >> 7 & 1 != 0, order > 0 && bits != 0, "a block");
                assert_eq!(bits & 0xf7c | bits >> 62 & 1, 0, "reserved, or of other modes");
                assert_eq!(IntelIo::encode(&IntelIo::decode(bits, order)), bits);
                assert!(!IntelIo::HARDWARE.is_table(bits));
                if bits != 0 {
                    assert_eq!(bits & 0x000f_ffff_ffff_f000, mfn.address().number());
                } else {
                    assert_eq!(IntelIo::decode(bits, order), Entry::hole(order));
                }
            }
        }
    }
    assert_eq!(IntelIo::TABLE, 3, "the leaves decide");
}

#[test]
fn blocks_are_split_and_emptied_with_the_truth() {
    MAKERS.into_iter().for_each(blocks_are_split_and_emptied_with_the_truth_for);
}

fn blocks_are_split_and_emptied_with_the_truth_for(maker: Maker) {
    let machine = FakeMachine::builder().pages(4096).reserve(512, 2048).build();
    machine.on_cpu(0, || {
        let iommu = iommu(&machine, maker);
        let host = host();
        let before = frame::free_pages();
        let mut control = domain(0, control_settings(), 2048);
        control.p2m.attach(iommu).unwrap();
        adopt(&control, Mfn::new(512), 2048).unwrap();
        iommu.enable().unwrap();
        let reaches = |page: u64| machine.dma_read(DEVICE, page << 12, &mut [0; 8]).is_ok();
        control.p2m.check().unwrap();
        assert!(reaches(512) && reaches(2559) && !reaches(511) && !reaches(2560));
        // A page out of a block, and all others after it: the table goes with the last.
        for page in 1024..1536 {
            decrease(&control, Gfn::new(page), 0).unwrap();
            assert!(!reaches(page), "{page:#x}");
            assert!(page == 1535 || reaches(page + 1));
        }
        control.p2m.check().unwrap();
        for page in (1024..1536).rev() {
            populate(&host, &control, Gfn::new(page), 0).unwrap();
            assert!(reaches(page));
        }
        control.p2m.check().unwrap();
        assert_eq!(control.p2m.lost_flushes(), 0);
        drop(control);
        // Its frames are free now, all tables with them.
        assert_eq!(frame::free_pages(), before + 2048);
        assert!(!reaches(512), "devices reach nothing any more");
    });
}

/// INV-2: what a unit may still reach is never used again.
#[test]
fn a_unit_that_does_not_answer_costs_pages_and_never_shows_them_to_others() {
    MAKERS.into_iter().for_each(a_unit_that_does_not_answer_costs_pages_and_never_shows_them_to_others_for);
}

fn a_unit_that_does_not_answer_costs_pages_and_never_shows_them_to_others_for(maker: Maker) {
    let machine = FakeMachine::builder().pages(4096).reserve(64, 512).build();
    machine.on_cpu(0, || {
        let iommu = iommu(&machine, maker);
        let host = host();
        let mut control = domain(0, control_settings(), 512);
        control.p2m.attach(iommu).unwrap();
        adopt(&control, Mfn::new(64), 512).unwrap();
        iommu.enable().unwrap();
        let guest = domain(1, settings(), 100);
        for gfn in 1..4 {
            populate(&host, &guest, Gfn::new(gfn), 0).unwrap();
        }
        let mfn = guest.p2m.lookup(Gfn::new(1)).mfn;
        map_foreign(&control, Gfn::new(3000), foreign_page(&guest, Gfn::new(1)).unwrap()).unwrap();
        machine.dma_write(DEVICE, 3000 << 12, &[1]).unwrap();
        decrease(&guest, Gfn::new(1), 0).unwrap();
        machine.set_iommu_stuck(true);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    machine.advance(100_000_000);
                    std::thread::yield_now();
                }
            });
            let removed = crate::memory::remove_from_physmap(&control, Gfn::new(3000));
            is_over.store(true, Ordering::Release);
            assert_eq!(removed, Ok(()));
        });
        // The unit has not forgotten; a page that was freed would end the test here.
        machine.dma_write(DEVICE, 3000 << 12, &[2]).unwrap();
        assert_eq!(frame::state(mfn).map(|state| (state.kind, state.count)), Some((frame::Kind::Guest, 1)));
        assert!(machine.console().contains("an IOMMU does not answer"));
        // The machine goes on: others give pages up as before.
        let free = frame::free_pages();
        decrease(&guest, Gfn::new(2), 0).unwrap();
        assert_eq!(frame::free_pages(), free + 1);
    });
}

/// Whatever allocation fails: the truth and the view agree, and nothing is lost.
#[test]
fn memory_that_runs_out_leaves_the_view_as_the_truth_is() {
    MAKERS.into_iter().for_each(memory_that_runs_out_leaves_the_view_as_the_truth_is_for);
}

fn memory_that_runs_out_leaves_the_view_as_the_truth_is_for(maker: Maker) {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let iommu = iommu(&machine, maker);
        iommu.enable().unwrap();
        let before = frame::free_pages();
        for fail in 0..12 {
            let mut p2m = DomainP2m::try_new(DomId(1), &settings()).unwrap();
            let (attached, _) = with_failing_allocation(fail, || p2m.attach(iommu).is_ok());
            assert_eq!(attached, fail > 0);
            if attached {
                for gfn in [5, 700, 1 << 18, 1 << 27] {
                    let page = frame::allocate(0, frame::Kind::Guest, DomId(1), Fill::Zero).unwrap();
                    let (done, _) = with_failing_allocation(fail, || {
                        p2m.begin().is_ok_and(|mut txn| {
                            let entry = Entry::with_frame(Kind::RamRw, 0, page);
                            let is_set = txn.set(Gfn::new(gfn), entry).is_ok();
                            txn.finish();
                            is_set
                        })
                    });
                    if !done {
                        drop(frame::Pin::from_entry(page));
                    }
                    p2m.check().unwrap();
                    let reaches = machine.dma_read(DEVICE, gfn << 12, &mut [0; 8]);
                    assert_eq!(reaches, if done { Ok(()) } else { Err(Refused) });
                }
            }
            drop(p2m);
            assert_eq!(frame::free_pages(), before, "allocation {fail}");
        }
    });
}

//! The guest's frame map: shared_info, grant frames and own frames moved about; removing, three times; batches.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::shared::map_space;
    use guests::{Test, call, check, environment, println};
    use public_abi::domid::DOMID_SELF;
    use public_abi::memory::{
        AddToPhysmap, AddToPhysmapBatch, MapSpace, MemoryDomain, MemoryOp, MemoryReservation, RemoveFromPhysmap,
    };
    use public_abi::{Errno, GuestPtr};
    use rt::memory::{self, Word};

    guests::guest!("physmap", run);

    fn run(test: &mut Test) {
        shared_info(test);
        removal(test);
        moving(test);
        spaces(test);
        batch(test);
    }

    fn current() -> i64 {
        call::memory(MemoryOp::CurrentReservation, &mut MemoryDomain { domid: DOMID_SELF })
    }

    fn remove(gpfn: u64) -> i64 {
        call::memory(
            MemoryOp::RemoveFromPhysmap,
            &mut RemoveFromPhysmap { domid: DOMID_SELF, gpfn, ..Default::default() },
        )
    }

    fn populate(frame: u64) -> i64 {
        let mut frames = [frame];
        let extent_start = GuestPtr::from_address(call::address(&mut frames));
        call::memory(
            MemoryOp::PopulatePhysmap,
            &mut MemoryReservation { extent_start, nr_extents: 1, domid: DOMID_SELF, ..Default::default() },
        )
    }

    fn shared_info(test: &mut Test) {
        let pages = memory::take_pages(2);
        memory::write(pages, 0x1111_u64);
        test.succeeds("shared_info", map_space(MapSpace::SharedInfo, 0, pages >> 12));
        let shared = guests::shared::Shared { page: pages };
        test.holds("its clock", shared.vcpu(0).time().is_some_and(|time| time.tsc_to_system_mul != 0));
        // Moved: the old place is empty then.
        test.succeeds("moved", map_space(MapSpace::SharedInfo, 0, (pages >> 12) + 1));
        let shared = guests::shared::Shared { page: pages + 4096 };
        test.holds("its clock", shared.vcpu(0).time().is_some_and(|time| time.tsc_to_system_mul != 0));
        test.equal("nothing in the old place", u64::try_read(pages), Ok(u64::MAX));
        test.succeeds("moved again", map_space(MapSpace::SharedInfo, 0, pages >> 12));
        test.succeeds("removed", remove(pages >> 12));
        test.equal("nothing there", u64::try_read(pages), Ok(u64::MAX));
        test.succeeds("mapped again", map_space(MapSpace::SharedInfo, 0, pages >> 12));
        test.fails("index 1", map_space(MapSpace::SharedInfo, 1, pages >> 12), Errno::EINVAL);
    }

    fn removal(test: &mut Test) {
        let page = memory::take_pages(1);
        let before = current();
        let results = [remove(page >> 12), remove(page >> 12), remove(page >> 12)];
        println!("GUEST-INFO removed three times: {results:?}, pages {} of {before}", current());
        test.equal("the first time", results[0], 0);
        test.check("then there is nothing", results[1] < 0 && results[1] == results[2], format_args!("{results:?}"));
        test.equal("nothing there", u64::try_read(page), Ok(u64::MAX));
        println!("GUEST-INFO populate afterwards: {}", populate(page >> 12));
        for frame in [0xf_ffff_ffff, u64::MAX, 0xfee00, 0xfd000] {
            let result = remove(frame);
            test.check(
                "frames that are not memory",
                result < 0 || frame == 0xfee00 || frame == 0xfd000,
                format_args!("{frame:#x}: {result}"),
            );
            println!("GUEST-INFO remove {frame:#x}: {result}");
        }
        let mut request = RemoveFromPhysmap { domid: 0x7e00, gpfn: 1, ..Default::default() };
        test.fails("no such domain", call::memory(MemoryOp::RemoveFromPhysmap, &mut request), Errno::ESRCH);
    }

    /// XENMAPSPACE_gmfn moves a page of our own.
    fn moving(test: &mut Test) {
        let pages = memory::take_pages(2);
        memory::write(pages, 0x600d_u64);
        memory::write(pages + 4096, 0xbad_u64);
        let result = map_space(MapSpace::Gmfn, pages >> 12, (pages >> 12) + 1);
        println!("GUEST-INFO moving a frame: {result}");
        if environment::has_own_frames_only() {
            test.fails("frames stay where devices find them", result, Errno::EINVAL);
            test.equal("both as before", (memory::read(pages), memory::read(pages + 4096)), (0x600d_u64, 0xbad_u64));
            return;
        }
        test.succeeds("move", result);
        test.equal("the page in its new place", memory::read::<u64>(pages + 4096), 0x600d);
        test.equal("nothing in the old one", u64::try_read(pages), Ok(u64::MAX));
        test.fails_any(
            "from nothing",
            map_space(MapSpace::Gmfn, pages >> 12, (pages >> 12) + 1),
            &[Errno::EINVAL, Errno::ENOENT],
        );
        test.equal("still there", memory::read::<u64>(pages + 4096), 0x600d);
    }

    fn spaces(test: &mut Test) {
        let page = memory::take_pages(1) >> 12;
        for space in [6, 77, u32::MAX] {
            let mut request = AddToPhysmap { domid: DOMID_SELF, size: 1, space, idx: 0, gpfn: page };
            test.fails_any(
                "no such space",
                call::memory(MemoryOp::AddToPhysmap, &mut request),
                &[Errno::EINVAL, Errno::ENOSYS],
            );
        }
        let mut foreign =
            AddToPhysmap { domid: DOMID_SELF, space: MapSpace::GmfnForeign.number(), gpfn: page, ..Default::default() };
        test.fails("foreign frames in batches only", call::memory(MemoryOp::AddToPhysmap, &mut foreign), Errno::ENOSYS);
        test.fails("grant frame beyond the table", map_space(MapSpace::GrantTable, 0x7fff_ffff, page), Errno::EINVAL);
        // With an IOMMU, Xen ends a control domain that names a frame beyond the IOMMU's tables.
        // For a guest it takes such a number, too: upper bits are lost.
        let frames: &[u64] = if guests::environment::is_oxen() { &[u64::MAX, 1 << 60, 1 << 40] } else { &[u64::MAX] };
        for frame in frames.iter().copied() {
            let result = map_space(MapSpace::SharedInfo, 0, frame);
            test.check("at no frame", result < 0, format_args!("{frame:#x}: {result}"));
        }
        test.equal("our page", memory::all_bytes(page << 12, 4096, 0), Ok(()));
    }

    fn batch(test: &mut Test) {
        let pages = memory::take_pages(4);
        memory::write(pages, 0xaaaa_u64);
        memory::write(pages + 4096, 0xbbbb_u64);
        let mut sources = [pages >> 12, (pages >> 12) + 1];
        let mut targets = [(pages >> 12) + 2, (pages >> 12) + 3];
        let mut errors = [99_i32; 2];
        let mut request = AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: MapSpace::Gmfn.number() as u16,
            size: 2,
            foreign_domid: 0,
            idxs: GuestPtr::from_address(call::address(&mut sources)),
            gpfns: GuestPtr::from_address(call::address(&mut targets)),
            errs: GuestPtr::from_address(call::address(&mut errors)),
        };
        let result = call::memory(MemoryOp::AddToPhysmapBatch, &mut request);
        println!("GUEST-INFO batch: {result} {errors:?}");
        test.succeeds("batch", result);
        let moved = (memory::read::<u64>(pages + 8192), memory::read::<u64>(pages + 12288));
        if environment::has_own_frames_only() {
            test.equal("each is refused", errors, [-Errno::EINVAL.number(); 2]);
            test.equal("nothing is moved", moved, (0, 0));
        } else {
            test.equal("each", errors, [0, 0]);
            test.equal("moved", moved, (0xaaaa, 0xbbbb));
        }
        errors = [99; 2];
        let result = call::memory(MemoryOp::AddToPhysmapBatch, &mut request);
        println!("GUEST-INFO batch of nothing: {result} {errors:?}");
        test.check(
            "each has its error",
            result <= 0 && (result < 0 || errors.iter().all(|error| *error < 0)),
            format_args!("{result} {errors:?}"),
        );
        let mut wild = AddToPhysmapBatch { errs: GuestPtr::from_address(0x0000_6000_0000_0000), ..request };
        test.equal(
            "errors to nowhere",
            call::memory(MemoryOp::AddToPhysmapBatch, &mut wild),
            check::error(Errno::EFAULT),
        );
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

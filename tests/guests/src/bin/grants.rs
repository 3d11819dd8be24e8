//! Grant tables: sizes, versions, set-up, mapping of frames, bad domains and counts.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::grant::Table;
    use guests::shared::map_space;
    use guests::{Role, Test, call, check, println, role};
    use public_abi::domid::DOMID_SELF;
    use public_abi::grant_table::{
        GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR, GNTST_OKAY, GNTST_PERMISSION_DENIED, GetVersion,
        GrantTableOp, QuerySize, SetVersion, SetupTable, SwapGrantRef,
    };
    use public_abi::memory::MapSpace;
    use public_abi::{Errno, GuestPtr, Hypercall};
    use rt::memory;

    guests::guest!("grants", run);

    fn run(test: &mut Test) {
        size(test);
        versions(test);
        setup(test);
        frames(test);
        swap(test);
        numbers(test);
    }

    fn query(dom: u16) -> (i64, QuerySize) {
        let mut query = QuerySize { dom, ..Default::default() };
        (call::grant(GrantTableOp::QuerySize, &mut query), query)
    }

    fn size(test: &mut Test) {
        let (result, size) = query(DOMID_SELF);
        println!("GUEST-INFO {} frames of {}", size.nr_frames, size.max_nr_frames);
        test.equal("query_size", (result, size.status), (0, GNTST_OKAY));
        test.check("frames", size.nr_frames >= 1 && size.max_nr_frames >= size.nr_frames, size.nr_frames);
        let (result, size) = query(0x7e00);
        test.equal("no such domain", (result, size.status), (0, GNTST_BAD_DOMAIN));
        if role() == Role::Guest {
            let (result, size) = query(0);
            test.equal("another domain", (result, size.status), (0, GNTST_PERMISSION_DENIED));
        }
        let mut two = [QuerySize { dom: DOMID_SELF, ..Default::default() }; 2];
        for count in [0, 2] {
            let arguments = [GrantTableOp::QuerySize.number().into(), call::address(&mut two), count, 0, 0];
            test.fails("one at a time", call::raw(Hypercall::GrantTableOp, arguments), Errno::EINVAL);
        }
    }

    fn version() -> u32 {
        let mut get = GetVersion { dom: DOMID_SELF, ..Default::default() };
        call::grant(GrantTableOp::GetVersion, &mut get);
        get.version
    }

    fn versions(test: &mut Test) {
        test.equal("version at the start", version(), 1);
        let mut set = SetVersion { version: 1 };
        test.succeeds("version 1", call::grant(GrantTableOp::SetVersion, &mut set));
        test.equal("now", set.version, 1);
        for bad in [0, 3, u32::MAX] {
            test.fails(
                "no such version",
                call::grant(GrantTableOp::SetVersion, &mut SetVersion { version: bad }),
                Errno::EINVAL,
            );
        }
        let mut set = SetVersion { version: 2 };
        let result = call::grant(GrantTableOp::SetVersion, &mut set);
        println!("GUEST-INFO version 2: {result}");
        test.check(
            "version 2 or not",
            result == 0 || result == check::error(Errno::EOPNOTSUPP) || result == check::error(Errno::ENOSYS),
            result,
        );
        test.equal("as it says", version(), if result == 0 { 2 } else { 1 });
        test.succeeds("back to 1", call::grant(GrantTableOp::SetVersion, &mut SetVersion { version: 1 }));
        test.equal("1 again", version(), 1);
        let mut get = GetVersion { dom: 0x7e00, ..Default::default() };
        test.fails("version of nobody", call::grant(GrantTableOp::GetVersion, &mut get), Errno::ESRCH);
    }

    fn setup(test: &mut Test) {
        let mut list = [0_u64; 4];
        let frame_list = GuestPtr::from_address(call::address(&mut list));
        let ask = |dom: u16, nr_frames: u32| {
            let mut setup = SetupTable { dom, nr_frames, frame_list, ..Default::default() };
            (call::grant(GrantTableOp::SetupTable, &mut setup), setup.status)
        };
        test.equal("set up", ask(DOMID_SELF, 1), (0, GNTST_OKAY));
        println!("GUEST-INFO frames {list:x?}");
        test.equal("too many frames", ask(DOMID_SELF, 100_000), (0, GNTST_GENERAL_ERROR));
        test.equal("no such domain", ask(0x7e00, 1), (0, GNTST_BAD_DOMAIN));
        if role() == Role::Guest {
            test.equal("another domain", ask(0, 1), (0, GNTST_PERMISSION_DENIED));
        }
    }

    fn frames(test: &mut Test) {
        let page = memory::take_pages(1) >> 12;
        let (_, size) = query(DOMID_SELF);
        test.succeeds("frame 0", map_space(MapSpace::GrantTable, 0, page));
        test.succeeds("frame 1 makes the table grow", map_space(MapSpace::GrantTable, 1, page));
        test.holds("grown", query(DOMID_SELF).1.nr_frames >= 2);
        test.fails(
            "a frame beyond the limit",
            map_space(MapSpace::GrantTable, size.max_nr_frames.into(), page),
            Errno::EINVAL,
        );
        test.equal("new frames are zero", memory::all_bytes(page << 12, 4096, 0), Ok(()));
        let table = Table::map();
        test.check("frame 0 again", table.is_ok(), format_args!("{table:?}"));
    }

    fn swap(test: &mut Test) {
        let Ok(table) = Table::map() else { return };
        table.permit(20, 0, 0x5000, 0);
        let before = (table.flags(20), table.flags(21));
        let ask = |a: u32, b: u32| {
            let mut swap = SwapGrantRef { ref_a: a, ref_b: b, ..Default::default() };
            (call::grant(GrantTableOp::SwapGrantRef, &mut swap), swap.status)
        };
        test.equal("swap", ask(20, 21), (0, GNTST_OKAY));
        test.equal("swapped", (table.flags(21), table.flags(20)), before);
        test.equal("beyond the table", ask(20, 1_000_000), (0, GNTST_BAD_GNTREF));
        table.clear(21);
    }

    fn numbers(test: &mut Test) {
        let mut buffer = [0_u64; 16];
        let address = call::address(&mut buffer);
        for number in [3, 4, 7, 9, 12, 13, 100, 0xffff_ffff] {
            test.fails("not for HVM", call::raw(Hypercall::GrantTableOp, [number, address, 1, 0, 0]), Errno::ENOSYS);
        }
        let result =
            call::raw(Hypercall::GrantTableOp, [GrantTableOp::Copy.number().into(), address, 0x8000_0000, 0, 0]);
        test.fails("negative count", result, Errno::EINVAL);
        test.succeeds(
            "no elements",
            call::raw(Hypercall::GrantTableOp, [GrantTableOp::Copy.number().into(), address, 0, 0, 0]),
        );
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! Grants to oneself: mapping, writing through, unmapping, copying; references, handles and domains that are wrong.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::grant::Table;
    use guests::{Test, call, environment, println};
    use public_abi::domid::DOMID_SELF;
    use public_abi::grant_table::{
        CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTST_BAD_COPY_ARG, GNTST_BAD_DOMAIN, GNTST_BAD_GNTREF,
        GNTST_BAD_HANDLE, GNTST_OKAY, GTF_READING, GTF_READONLY, GTF_WRITING, GrantCopy, GrantTableOp, MapFlags,
        MapGrantRef, UnmapGrantRef,
    };
    use public_abi::memory::{MemoryOp, RemoveFromPhysmap};
    use rt::memory::{self, Word};

    guests::guest!("grant_map", run);

    const REFERENCE: u32 = 40;

    fn run(test: &mut Test) {
        let table = match Table::map() {
            Ok(table) => table,
            Err(error) => {
                test.check("table", false, error);
                return;
            }
        };
        let own = environment::domain_id().unwrap_or(0);
        writable(test, table, own);
        read_only(test, table, own);
        bad_maps(test, table, own);
        bad_unmaps(test);
        copies(test, table, own);
    }

    /// A page to grant, and a frame without memory to map it at.
    fn places(test: &mut Test) -> (u64, u64) {
        let pages = memory::take_pages(2);
        let mut remove = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: (pages >> 12) + 1, ..Default::default() };
        test.succeeds("room", call::memory(MemoryOp::RemoveFromPhysmap, &mut remove));
        memory::write(pages, 0xfeed_u64);
        (pages, pages + 4096)
    }

    /// Whether the granted page is still where it was. Xen moves a page that its own domain maps: the frame it was at is
    /// empty then, and after unmapping the page is lost to the domain.
    fn stays(test: &mut Test, granted: u64) -> bool {
        let there = memory::read::<u64>(granted) != u64::MAX;
        if environment::is_oxen() {
            test.holds("the granted page stays where it is", there);
        }
        there
    }

    fn map(gref: u32, dom: u16, host_addr: u64, flags: MapFlags) -> MapGrantRef {
        let mut map = MapGrantRef { host_addr, flags: flags.bits(), gref, dom, ..Default::default() };
        let result = call::grant(GrantTableOp::MapGrantRef, &mut map);
        if result != 0 {
            println!("GUEST-INFO map answers {result}");
        }
        map
    }

    fn unmap(host_addr: u64, handle: u32) -> i16 {
        let mut unmap = UnmapGrantRef { host_addr, handle, ..Default::default() };
        call::grant(GrantTableOp::UnmapGrantRef, &mut unmap);
        unmap.status
    }

    fn writable(test: &mut Test, table: Table, own: u16) {
        let (granted, at) = places(test);
        table.permit(REFERENCE, own, granted, 0);
        let mapped = map(REFERENCE, own, at, MapFlags::HOST_MAP);
        test.equal("map", mapped.status, GNTST_OKAY);
        test.equal("same contents", u64::try_read(at), Ok(0xfeed));
        memory::write(at + 8, 0xbeef_u64);
        test.equal("can be written", memory::read::<u64>(at + 8), 0xbeef);
        let there = stays(test, granted);
        println!(
            "GUEST-INFO handle {} device address {:#x}, granted page stays: {there}",
            mapped.handle, mapped.dev_bus_addr
        );
        if there {
            test.equal("same page", memory::read::<u64>(granted + 8), 0xbeef);
        }
        test.equal("marked as used", table.flags(REFERENCE) & (GTF_READING | GTF_WRITING), GTF_READING | GTF_WRITING);
        test.equal("unmap", unmap(at, mapped.handle), GNTST_OKAY);
        test.equal("marks gone", table.flags(REFERENCE) & (GTF_READING | GTF_WRITING), 0);
        test.equal("nothing there", u64::try_read(at), Ok(u64::MAX));
        if there {
            test.equal("the granted page is untouched", memory::read::<u64>(granted), 0xfeed);
        }
        test.equal("unmap twice", unmap(at, mapped.handle), GNTST_BAD_HANDLE);
        table.clear(REFERENCE);
    }

    fn read_only(test: &mut Test, table: Table, own: u16) {
        let (granted, at) = places(test);
        table.permit(REFERENCE, own, granted, GTF_READONLY);
        let refused = map(REFERENCE, own, at, MapFlags::HOST_MAP);
        test.check("a writable mapping of a read-only grant", refused.status < 0, refused.status);
        let mapped = map(REFERENCE, own, at, MapFlags::HOST_MAP | MapFlags::READONLY);
        test.equal("map", mapped.status, GNTST_OKAY);
        test.equal("same contents", u64::try_read(at), Ok(0xfeed));
        println!("GUEST-INFO writing to a read-only mapping: {:?}", u64::try_write(at, 1));
        test.equal("cannot be written", memory::read::<u64>(at), 0xfeed);
        test.equal("marked as read", table.flags(REFERENCE) & (GTF_READING | GTF_WRITING), GTF_READING);
        test.equal("unmap", unmap(at, mapped.handle), GNTST_OKAY);
        table.clear(REFERENCE);
    }

    fn bad_maps(test: &mut Test, table: Table, own: u16) {
        let (granted, at) = places(test);
        let mut refused = |name: &'static str, reference: u32, domain: u16, flags: MapFlags| {
            let status = map(reference, domain, at, flags).status;
            test.check(name, status < 0, status);
            status
        };
        refused("unused entry", REFERENCE, own, MapFlags::HOST_MAP);
        let beyond = refused("beyond the table", 1 << 24, own, MapFlags::HOST_MAP);
        let nobody = refused("no such domain", REFERENCE, 0x7e00, MapFlags::HOST_MAP);
        table.permit(REFERENCE, 0x7e00, granted, 0);
        refused("granted to another", REFERENCE, own, MapFlags::HOST_MAP);
        table.permit(REFERENCE, own, 0x7fff_ffff_f000, 0);
        refused("no such page", REFERENCE, own, MapFlags::HOST_MAP);
        table.permit(REFERENCE, own, granted, 0);
        refused("mapped for nobody", REFERENCE, own, MapFlags::empty());
        refused("by page-table entry", REFERENCE, own, MapFlags::HOST_MAP | MapFlags::CONTAINS_PTE);
        test.equal("statuses", (beyond, nobody), (GNTST_BAD_GNTREF, GNTST_BAD_DOMAIN));
        test.equal("nothing mapped", u64::try_read(at), Ok(u64::MAX));
        table.clear(REFERENCE);
    }

    fn bad_unmaps(test: &mut Test) {
        for handle in [0, 5, 1 << 20, u32::MAX] {
            test.equal("no such handle", unmap(0x7000, handle), GNTST_BAD_HANDLE);
        }
    }

    fn copies(test: &mut Test, table: Table, own: u16) {
        let pages = memory::take_pages(2);
        (0..512).for_each(|word| memory::write(pages + word * 8, word));
        let frame = |index: u64, offset: u16| CopyPtr {
            u: (pages >> 12) + index,
            domid: DOMID_SELF,
            offset,
            ..Default::default()
        };
        let reference = |offset: u16| CopyPtr { u: REFERENCE.into(), domid: own, offset, ..Default::default() };
        let copy = |source: CopyPtr, dest: CopyPtr, len: u16, flags: u16| {
            let mut copy = GrantCopy { source, dest, len, flags, status: 77, ..Default::default() };
            call::grant(GrantTableOp::Copy, &mut copy);
            copy.status
        };
        test.equal("frame to frame", copy(frame(0, 800), frame(1, 16), 80, 0), GNTST_OKAY);
        test.equal("copied", (memory::read::<u64>(pages + 4112), memory::read::<u64>(pages + 4112 + 72)), (100, 109));
        test.equal("not more", (memory::read::<u64>(pages + 4104), memory::read::<u64>(pages + 4112 + 80)), (0, 0));
        table.permit(REFERENCE, own, pages + 4096, 0);
        test.equal("to a reference", copy(frame(0, 8), reference(2000), 8, GNTCOPY_DEST_GREF), GNTST_OKAY);
        test.equal("copied", memory::read::<u64>(pages + 6096), 1);
        table.permit(REFERENCE, own, pages + 4096, GTF_READONLY);
        let status = copy(frame(0, 8), reference(2000), 8, GNTCOPY_DEST_GREF);
        test.check("to a read-only reference", status < 0, status);
        test.equal(
            "from a read-only reference",
            copy(reference(2000), frame(0, 0), 8, GNTCOPY_SOURCE_GREF),
            GNTST_OKAY,
        );
        test.equal("copied", memory::read::<u64>(pages), 1);
        test.equal("across the page's end", copy(frame(0, 4090), frame(1, 0), 16, 0), GNTST_BAD_COPY_ARG);
        let status = copy(CopyPtr { u: 0xf_ffff_ffff, domid: DOMID_SELF, ..Default::default() }, frame(1, 0), 8, 0);
        test.check("from no frame", status < 0, status);
        let status = copy(CopyPtr { u: 1, domid: 0x7e00, ..Default::default() }, frame(1, 0), 8, GNTCOPY_SOURCE_GREF);
        test.equal("from nobody", status, GNTST_BAD_DOMAIN);
        if guests::role() == guests::Role::Guest {
            let status = copy(CopyPtr { u: 0x100, domid: 0, ..Default::default() }, frame(1, 0), 8, 0);
            test.check("from another's frame without a grant", status < 0, status);
            println!("GUEST-INFO from another's frame: {status}");
        }
        table.clear(REFERENCE);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

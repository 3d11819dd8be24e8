//! Giving memory back and getting it again: pages, lists, orders, limits, the same frame three times, zeroes.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, call, environment, println};
    use public_abi::domid::DOMID_SELF;
    use public_abi::memory::{MEMF_EXACT_NODE_REQUEST, MemoryDomain, MemoryOp, MemoryReservation, memf_from_node};
    use public_abi::{Errno, GuestPtr};
    use rt::memory::{self, Word};

    guests::guest!("balloon", run);

    const PAGES: usize = 64;

    fn run(test: &mut Test) {
        let pages = memory::take_pages(PAGES);
        one(test, pages);
        three_times(test, pages + 0x1000);
        lists(test, pages);
        orders(test);
        bad(test, pages);
    }

    fn current() -> i64 {
        call::memory(MemoryOp::CurrentReservation, &mut MemoryDomain { domid: DOMID_SELF })
    }

    fn reserve(operation: MemoryOp, frames: &mut [u64], order: u32, flags: u32) -> i64 {
        let extent_start = GuestPtr::from_address(call::address(frames));
        let mut request = MemoryReservation {
            extent_start,
            nr_extents: frames.len() as u64,
            extent_order: order,
            mem_flags: flags,
            domid: DOMID_SELF,
            ..Default::default()
        };
        call::memory(operation, &mut request)
    }

    /// Stale contents must never come back: not ours, and not another domain's.
    fn one(test: &mut Test, page: u64) {
        let before = current();
        for round in 0..8_u64 {
            (0..512).for_each(|word| memory::write(page + word * 8, 0x5a5a_0000 + round));
            test.equal("decrease", reserve(MemoryOp::DecreaseReservation, &mut [page >> 12], 0, 0), 1);
            test.equal("one page less", current(), before - 1);
            test.equal("nothing there: all ones", u64::try_read(page), Ok(u64::MAX));
            test.runs("a write goes nowhere", u64::try_write(page, 1));
            test.equal("populate", reserve(MemoryOp::PopulatePhysmap, &mut [page >> 12], 0, 0), 1);
            test.equal("as many as before", current(), before);
            no_stale_bytes(test, page, 0x5a5a_0000 + round);
            memory::write(page, 0x1234_u64);
            test.equal("memory again", memory::read::<u64>(page), 0x1234);
        }
    }

    /// Oxen hands out zeroes. Xen scrubs what a domain leaves behind when it dies, but may return to a living one what it
    /// gave away itself, and in its place anything that was never used.
    fn no_stale_bytes(test: &mut Test, page: u64, own: u64) {
        let zeroes = memory::all_bytes(page, 4096, 0);
        if environment::is_oxen() {
            test.equal("zeroes", zeroes, Ok(()));
        } else if zeroes.is_err() {
            println!("GUEST-INFO not scrubbed: {:#x}, own was {own:#x}", memory::read::<u64>(page));
        }
    }

    fn three_times(test: &mut Test, page: u64) {
        let frame = page >> 12;
        let decrease = |frames: &mut [u64]| reserve(MemoryOp::DecreaseReservation, frames, 0, 0);
        let before = current();
        test.equal("the first time", decrease(&mut [frame]), 1);
        // An extent that is not there ends the work: none done.
        test.equal("the second time", decrease(&mut [frame]), 0);
        test.equal("the third time", decrease(&mut [frame]), 0);
        test.equal("one page less, not three", current(), before - 1);
        test.equal("populate", reserve(MemoryOp::PopulatePhysmap, &mut [frame], 0, 0), 1);
        test.equal("as many as before", current(), before);
        // Populating what is populated: Xen gives another page in its place while the domain may have more, and the first
        // one is out of reach. The contents must be one page's either way.
        let again = reserve(MemoryOp::PopulatePhysmap, &mut [frame], 0, 0);
        let now = current();
        println!("GUEST-INFO populated twice: {again}, pages {now} of {before}");
        // Oxen frees the first one.
        let replaced = environment::is_oxen() && now == before;
        test.check("pages grow with it, or not at all", replaced || now == before + again.max(0), now);
        test.equal("three times in one list", decrease(&mut [frame; 3]), 1);
        test.equal("one page less again", current(), now - 1);
        test.equal("populate again", reserve(MemoryOp::PopulatePhysmap, &mut [frame], 0, 0), 1);
        test.equal("all there", current(), now);
    }

    fn lists(test: &mut Test, pages: u64) {
        let before = current();
        let mut frames: [u64; PAGES] = core::array::from_fn(|index| (pages >> 12) + index as u64);
        test.equal("decrease a list", reserve(MemoryOp::DecreaseReservation, &mut frames, 0, 0), PAGES as i64);
        test.equal("pages", current(), before - PAGES as i64);
        frames.reverse();
        test.equal("populate a list", reserve(MemoryOp::PopulatePhysmap, &mut frames, 0, 0), PAGES as i64);
        test.equal("pages", current(), before);
        for index in 0..PAGES as u64 {
            no_stale_bytes(test, pages + index * 4096, 0);
            memory::write(pages + index * 4096, index);
        }
        let kept = (0..PAGES as u64).all(|index| memory::read::<u64>(pages + index * 4096) == index);
        test.holds("different pages", kept);
        // A bad frame in the middle ends the work there.
        let mut frames = [pages >> 12, (pages >> 12) + 1, u64::MAX >> 8, (pages >> 12) + 3];
        let done = reserve(MemoryOp::DecreaseReservation, &mut frames, 0, 0);
        println!("GUEST-INFO a bad frame third of four: {done}");
        test.equal("as many as it did", current(), before - done);
        let mut frames = [pages >> 12, (pages >> 12) + 1];
        test.equal("back", reserve(MemoryOp::PopulatePhysmap, &mut frames, 0, 0), 2);
        test.equal("pages", current(), before);
    }

    fn orders(test: &mut Test) {
        let before = current();
        let area = memory::take_pages(16);
        let aligned = (area + 0x7fff) & !0x7fff;
        let frame = aligned >> 12;
        test.equal("decrease 8 pages at once", reserve(MemoryOp::DecreaseReservation, &mut [frame], 3, 0), 1);
        test.equal("8 pages less", current(), before - 8);
        let populated = reserve(MemoryOp::PopulatePhysmap, &mut [frame], 3, 0);
        println!("GUEST-INFO populate of order 3: {populated}");
        if populated != 1 {
            let mut frames: [u64; 8] = core::array::from_fn(|index| frame + index as u64);
            test.equal("one by one instead", reserve(MemoryOp::PopulatePhysmap, &mut frames, 0, 0), 8);
        }
        test.equal("all back", current(), before);
        no_stale_bytes(test, aligned, 0);
        for order in [20, 31, 63, u32::MAX] {
            let result = reserve(MemoryOp::PopulatePhysmap, &mut [0x10_0000], order, 0);
            test.check("huge order", result <= 0, format_args!("{order}: {result}"));
            let result = reserve(MemoryOp::DecreaseReservation, &mut [0x10_0000], order, 0);
            test.check("huge order", result <= 0, format_args!("{order}: {result}"));
        }
        test.equal("nothing happened", current(), before);
    }

    fn bad(test: &mut Test, pages: u64) {
        let before = current();
        for frame in [0xf_ffff_ffff, u64::MAX, 1 << 52] {
            let result = reserve(MemoryOp::DecreaseReservation, &mut [frame], 0, 0);
            test.check("frames nobody has", result <= 0, format_args!("{frame:#x}: {result}"));
            let result = reserve(MemoryOp::PopulatePhysmap, &mut [frame], 0, 0);
            // A frame far away may have memory, if the hypervisor's tables reach there; it must be possible to return it.
            let returned = reserve(MemoryOp::DecreaseReservation, &mut [frame], 0, 0);
            test.check("frames far away", returned == result.max(0), format_args!("{frame:#x}: {result}, {returned}"));
            let beyond = frame > 1 << 40;
            test.check("frames nobody can have", result <= 0 || !beyond, format_args!("{frame:#x}: {result}"));
        }
        // Another node: not there, or only preferred.
        for (node, flags) in [(60, MEMF_EXACT_NODE_REQUEST), (200, MEMF_EXACT_NODE_REQUEST), (60, 0)] {
            test.equal("decrease", reserve(MemoryOp::DecreaseReservation, &mut [pages >> 12], 0, 0), 1);
            let result = reserve(MemoryOp::PopulatePhysmap, &mut [pages >> 12], 0, memf_from_node(node) | flags);
            println!("GUEST-INFO populate on node {node} with flags {flags:#x}: {result}");
            test.check("node", (0..=1).contains(&result), result);
            if result == 0 {
                test.equal("without a node", reserve(MemoryOp::PopulatePhysmap, &mut [pages >> 12], 0, 0), 1);
            }
        }
        let mut nothing = MemoryReservation { domid: DOMID_SELF, ..Default::default() };
        test.succeeds("nothing at all", call::memory(MemoryOp::PopulatePhysmap, &mut nothing));
        let mut request = MemoryReservation { nr_extents: 1, domid: 0x7e00, ..Default::default() };
        let result = call::memory(MemoryOp::PopulatePhysmap, &mut request);
        test.check("no such domain", result <= 0 && result != guests::check::error(Errno::ENOSYS), result);
        let mut request = MemoryReservation {
            extent_start: GuestPtr::from_address(0x0000_6000_0000_0000),
            nr_extents: u64::MAX,
            domid: DOMID_SELF,
            ..Default::default()
        };
        let result = call::memory(MemoryOp::PopulatePhysmap, &mut request);
        test.check("too many extents", result <= 0, result);
        // For each frame number that cannot be, Xen leaves a page behind that belongs to the domain and is nowhere.
        let lost = current() - before;
        println!("GUEST-INFO {lost} pages lost");
        test.check("as many pages as before", lost == 0 || (!environment::is_oxen() && lost == 2), lost);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

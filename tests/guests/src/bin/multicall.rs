//! multicall: results in place, bad entries, a nested list, wild lists, long lists.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, call, check};
    use public_abi::multicall::MulticallEntry;
    use public_abi::version::VersionOp;
    use public_abi::{Errno, Hypercall};
    use rt::memory;

    guests::guest!("multicall", run);

    fn entry(op: u64, arguments: [u64; 2]) -> MulticallEntry {
        MulticallEntry { op, result: 0xdead, args: [arguments[0], arguments[1], 0, 0, 0, 0] }
    }

    fn submit(entries: &mut [MulticallEntry]) -> i64 {
        let count = entries.len() as u64;
        call::raw(Hypercall::Multicall, [call::address(entries), count, 0, 0, 0])
    }

    fn run(test: &mut Test) {
        let version = call::raw(Hypercall::XenVersion, [0; 5]).cast_unsigned();
        let ask = entry(Hypercall::XenVersion.number(), [0, 0]);
        let mut one = [ask];
        test.succeeds("one", submit(&mut one));
        test.equal("its result", one[0].result, version);
        let error = |errno: Errno| check::error(errno).cast_unsigned();
        let mut mixed = [
            ask,
            entry(1, [0, 0]),
            entry(9999, [0, 0]),
            entry(u64::MAX, [0, 0]),
            entry(Hypercall::XenVersion.number(), [VersionOp::ExtraVersion.number().into(), 0x0000_6000_0000_0000]),
            entry(Hypercall::Multicall.number(), [0x1000, 1]),
            ask,
        ];
        test.succeeds("mixed", submit(&mut mixed));
        let results = mixed.map(|entry| entry.result);
        let (none, fault, nested) = (error(Errno::ENOSYS), error(Errno::EFAULT), error(Errno::EINVAL));
        test.equal("each has its own result", results, [version, none, none, none, fault, nested, version]);
        test.succeeds("none", submit(&mut []));
        test.succeeds("again after a nested one", submit(&mut one));
        lists(test, ask, version);
    }

    fn lists(test: &mut Test, ask: MulticallEntry, version: u64) {
        // The second entry is on a page that is not there: the first is done, the call fails.
        let window = 0x0000_0500_0000_0000_u64;
        let page = memory::take_pages(1);
        rt::paging::map(window, page, rt::paging::PRESENT | rt::paging::WRITABLE);
        let at = window + 4096 - 64;
        memory::write(at, ask.op);
        memory::write(at + 8, 0_u64);
        memory::write(at + 16, 0_u64);
        test.fails("half a list", call::raw(Hypercall::Multicall, [at, 2, 0, 0, 0]), Errno::EFAULT);
        test.equal("the first was done", memory::read::<u64>(at + 8), version);
        test.fails("entry across the end", call::raw(Hypercall::Multicall, [at + 32, 1, 0, 0, 0]), Errno::EFAULT);
        test.fails("no list", call::raw(Hypercall::Multicall, [0x0000_6000_0000_0000, 1, 0, 0, 0]), Errno::EFAULT);
        test.fails(
            "a huge list",
            call::raw(Hypercall::Multicall, [window + 4096, 0xffff_ffff, 0, 0, 0]),
            Errno::EFAULT,
        );
        // A read-only list: the result cannot be stored.
        rt::paging::map(window, page, rt::paging::PRESENT);
        test.fails("read-only list", call::raw(Hypercall::Multicall, [at, 1, 0, 0, 0]), Errno::EFAULT);
        // Long lists are cut into pieces inside, not outside.
        let pages = memory::take_pages(64);
        let count = 64 * 64;
        for index in 0..count {
            memory::write(pages + index * 64, ask.op);
        }
        test.succeeds("a long list", call::raw(Hypercall::Multicall, [pages, count, 0, 0, 0]));
        let done = (0..count).filter(|index| memory::read::<u64>(pages + index * 64 + 8) == version).count() as u64;
        test.equal("all done", done, count);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

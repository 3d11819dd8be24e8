//! Code that changes around intercepted instructions: a hypervisor that remembers an instruction's bytes must notice.
//!
//! CPUID is replaced by other instructions at the same address, by writing, through an alias, by remapping the page, and by
//! the hypervisor's own writes; the length and meaning of what stands there now count.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::{CPUID, RET};
    use guests::{Test, call, environment};
    use public_abi::Hypercall;
    use public_abi::version::VersionOp;
    use rt::paging::{self, PRESENT, WRITABLE};
    use rt::{Registers, memory};

    guests::guest!("code_changes", run);

    const WINDOW: u64 = 0x0000_0600_0000_0000;
    const ALIAS: u64 = 0x0000_0610_0000_0000;

    fn run(test: &mut Test) {
        let pages = memory::take_pages(2);
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        paging::map(ALIAS, pages, PRESENT | WRITABLE);
        for round in 0..20 {
            rewritten(test, WINDOW + round);
            rewritten(test, ALIAS + round);
            remapped(test, pages, round);
        }
        same_address_other_page(test, pages);
        by_hypervisor(test, pages);
        by_table(test, pages);
    }

    /// Runs at the window; gives EBX and what R15 says about how far it got.
    fn go(at: u64, rax: u64) -> (Result<(), rt::Fault>, Registers) {
        let mut registers = Registers { rax, ..Default::default() };
        let result = rt::execute_at(at, &mut registers);
        (result, registers)
    }

    fn leaf() -> u64 {
        u64::from(environment::xen_leaves().unwrap_or(0))
    }

    /// `code`, then INC R15 and RET.
    fn put(at: u64, code: &[u8]) {
        memory::write_bytes(at, code);
        let end = at + code.len() as u64;
        memory::write_bytes(end, &[0x49, 0xff, 0xc7, RET]);
    }

    fn is_cpuid(test: &mut Test, name: &'static str, at: u64) {
        let (result, registers) = go(WINDOW | (at & 0xfff), leaf());
        let good = result.is_ok() && registers.rbx == 0x566e_6558 && registers.r15 == 1;
        test.check(name, good, format_args!("{result:?} rbx {:#x} r15 {}", registers.rbx, registers.r15));
    }

    fn is_not(test: &mut Test, name: &'static str, at: u64, want_rbx: u64) {
        let (result, registers) = go(WINDOW | (at & 0xfff), leaf());
        let good = result.is_ok() && registers.rbx == want_rbx && registers.r15 == 1;
        test.check(name, good, format_args!("{result:?} rbx {:#x} r15 {}", registers.rbx, registers.r15));
    }

    /// Written at `place`, run through the window.
    fn rewritten(test: &mut Test, place: u64) {
        put(place, CPUID);
        is_cpuid(test, "CPUID", place);
        // mov bl, 7: two bytes as well
        put(place, &[0xb3, 7]);
        is_not(test, "MOV in its place", place, 7);
        put(place, &[0x66, 0x0f, 0xa2]);
        is_cpuid(test, "CPUID with a prefix in its place", place);
        put(place, &[0xf3, 0x66, 0x48, 0x0f, 0xa2]);
        is_cpuid(test, "CPUID with three prefixes in its place", place);
        put(place, CPUID);
        is_cpuid(test, "CPUID again", place);
        // in al, 0x80, one that exits for another reason at the same address
        put(place, &[0xe4, 0x80]);
        is_not(test, "IN in its place", place, 0);
        // rdmsr with ECX = 0: a fault of another kind, or a value
        put(place, &[0x0f, 0x32]);
        let (_, registers) = go(WINDOW | (place & 0xfff), leaf());
        test.check("RDMSR in its place", registers.rbx == 0, format_args!("rbx {:#x}", registers.rbx));
    }

    /// The same virtual address, another physical page.
    fn remapped(test: &mut Test, pages: u64, round: u64) {
        put(pages + round, CPUID);
        put(pages + 4096 + round, &[0x66, 0x0f, 0xa2]);
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        is_cpuid(test, "first page", round);
        paging::map(WINDOW, pages + 4096, PRESENT | WRITABLE);
        is_cpuid(test, "second page", round);
        put(pages + 4096 + round, &[0xb3, 9]);
        is_not(test, "second page rewritten", round, 9);
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        is_cpuid(test, "first page again", round);
    }

    /// Two copies of the tables' last level: the switch is by CR3, not by INVLPG.
    fn by_table(test: &mut Test, pages: u64) {
        put(pages, CPUID);
        put(pages + 4096, &[0x66, 0x66, 0x0f, 0xa2]);
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        let other = memory::take_pages(4);
        // A root with the same entries but for the window's.
        for index in 0..512 {
            memory::write(other + index * 8, memory::read::<u64>(paging::root() + index * 8));
        }
        let index = |level: u64| (WINDOW >> (12 + 9 * level) & 511) * 8;
        for (level, table) in [(3, other), (2, other + 0x1000), (1, other + 0x2000)] {
            memory::write(table + index(level), (table + 0x1000) | 7);
        }
        memory::write(other + 0x3000 + index(0), (pages + 4096) | 3);
        let own = rt::cr3();
        for _ in 0..10 {
            is_cpuid(test, "own tables", 0);
            rt::set_cr3(other);
            let (result, registers) = go(WINDOW, leaf());
            rt::set_cr3(own);
            let good = result.is_ok() && registers.rbx == 0x566e_6558 && registers.r15 == 1;
            test.check("other tables", good, format_args!("{result:?} rbx {:#x} r15 {}", registers.rbx, registers.r15));
        }
    }

    /// The page under the code is given back and populated anew: its bytes are new, too.
    fn same_address_other_page(test: &mut Test, pages: u64) {
        use public_abi::memory::{MemoryOp, MemoryReservation};
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        for _ in 0..5 {
            put(pages, CPUID);
            is_cpuid(test, "before", 0);
            for operation in [MemoryOp::DecreaseReservation, MemoryOp::PopulatePhysmap] {
                let mut frames = [pages >> 12];
                let extent_start = public_abi::GuestPtr::from_address(call::address(&mut frames));
                let mut request = MemoryReservation {
                    extent_start,
                    nr_extents: 1,
                    domid: public_abi::domid::DOMID_SELF,
                    ..Default::default()
                };
                test.equal("page changed", call::memory(operation, &mut request), 1);
            }
            put(pages, &[0xb3, 5]);
            is_not(test, "another page", 0, 5);
        }
    }

    /// The hypervisor writes over the instruction.
    fn by_hypervisor(test: &mut Test, pages: u64) {
        paging::map(WINDOW, pages, PRESENT | WRITABLE);
        put(pages, CPUID);
        is_cpuid(test, "before", 0);
        // The extra version begins with ".7" or the like: whatever it is, it is not CPUID any more.
        let result = call::raw(Hypercall::XenVersion, [VersionOp::ExtraVersion.number().into(), pages, 0, 0, 0]);
        test.succeeds("extraversion", result);
        memory::write(pages + 2, RET);
        memory::write_bytes(pages, &[0xb3, 3]);
        let (result, registers) = go(WINDOW, leaf());
        test.check(
            "overwritten",
            result.is_ok() && registers.rbx == 3,
            format_args!("{result:?} {:#x}", registers.rbx),
        );
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! memory_op that only asks: the memory map, reservations, the largest frames; bad domains and numbers.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, check, environment, println, role};
    use public_abi::domid::DOMID_SELF;
    use public_abi::memory::{E820Entry, MemoryDomain, MemoryMap, MemoryOp};
    use public_abi::{Errno, GuestPtr, Hypercall};

    guests::guest!("memory_map", run);

    fn run(test: &mut Test) {
        map(test);
        reservations(test);
        for number in 29..64 {
            test.fails("unknown", call::raw(Hypercall::MemoryOp, [number, 0x1000, 0, 0, 0]), Errno::ENOSYS);
        }
        for operation in [MemoryOp::MachineMemoryMap, MemoryOp::MachphysMapping] {
            test.fails("PV only", call::memory(operation, &mut [0_u64; 8]), Errno::ENOSYS);
        }
    }

    fn ask(entries: &mut [E820Entry], room: u32) -> (i64, u32) {
        let buffer = GuestPtr::from_address(call::address(entries));
        let mut map = MemoryMap { nr_entries: room, buffer, ..Default::default() };
        let result = call::memory(MemoryOp::MemoryMap, &mut map);
        (result, map.nr_entries)
    }

    fn map(test: &mut Test) {
        let mut entries = [E820Entry::default(); 128];
        let here = guests::call::address(&mut entries);
        let (result, count) = ask(&mut entries, 128);
        test.succeeds("memory_map", result);
        test.check("entries", (1..=128).contains(&count), count);
        let valid = entries.get(..count as usize).unwrap_or_default();
        let mut ram = 0;
        for entry in valid {
            println!("GUEST-INFO {:#x}+{:#x} kind {}", entry.start(), entry.length(), entry.kind);
            // A guest's map is not sorted, but no two entries overlap.
            let end = entry.start() + entry.length();
            let overlaps =
                valid.iter().filter(|other| other.start() < end && entry.start() < other.start() + other.length());
            test.check("overlaps itself only", overlaps.count() == 1, format_args!("{:#x}", entry.start()));
            if entry.kind == 1 {
                ram += entry.length();
            }
        }
        println!("GUEST-INFO {} KiB of memory", ram / 1024);
        let inside = valid
            .iter()
            .any(|entry| entry.kind == 1 && (entry.start()..entry.start() + entry.length()).contains(&here));
        test.holds("our own memory is in it", inside);
        test.check("memory as the start info says", same_as_start_info(valid), "differs");
        // Too little room.
        let (result, room) = ask(&mut entries, 1);
        println!("GUEST-INFO with room for one: {result}, {room} entries");
        if count > 1 {
            test.check(
                "too little room",
                (result == 0 && room == 1) || result == check::error(Errno::ENOBUFS),
                format_args!("{result} {room}"),
            );
        }
    }

    fn same_as_start_info(valid: &[E820Entry]) -> bool {
        let mut same = true;
        environment::memory_map(|start, length, kind| {
            if kind == 1 {
                same &= valid.iter().any(|entry| {
                    entry.kind == 1 && entry.start() <= start && entry.start() + entry.length() >= start + length
                });
            }
        });
        same
    }

    fn reservations(test: &mut Test) {
        let ask = |operation: MemoryOp, domid: u16| call::memory(operation, &mut MemoryDomain { domid });
        let current = ask(MemoryOp::CurrentReservation, DOMID_SELF);
        let maximum = ask(MemoryOp::MaximumReservation, DOMID_SELF);
        let largest = ask(MemoryOp::MaximumGpfn, DOMID_SELF);
        let machine = call::raw(Hypercall::MemoryOp, [MemoryOp::MaximumRamPage.number().into(), 0, 0, 0, 0]);
        println!("GUEST-INFO pages {current} of {maximum}, largest frame {largest:#x}, machine's {machine:#x}");
        test.check("current", current > 1024, current);
        test.check("maximum", maximum >= current || maximum == -1, maximum);
        test.check("largest frame", largest >= current / 2, largest);
        test.check("machine", machine > 0x1000, machine);
        let own = environment::domain_id().unwrap_or(0);
        test.equal("by identifier", ask(MemoryOp::CurrentReservation, own), current);
        for operation in [MemoryOp::CurrentReservation, MemoryOp::MaximumReservation, MemoryOp::MaximumGpfn] {
            test.fails("no such domain", ask(operation, 0x7e00), Errno::ESRCH);
            let of_the_machine = ask(operation, 0x7ff2);
            println!("GUEST-INFO {} of DOMID_XEN {of_the_machine}", operation.name());
            if role() == Role::Guest {
                test.check("of the hypervisor", of_the_machine < 0, of_the_machine);
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

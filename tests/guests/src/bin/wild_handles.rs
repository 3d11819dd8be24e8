//! Pointers to nowhere inside the structures of hypercalls: lists, buffers and bitmaps of every family. An error in the
//! right place, nothing done, and the guest lives on. The pointers to the structures themselves are `wild_pointers`'.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::wild::{self, WINDOW};
    use guests::{Role, Test, call, check, role};
    use public_abi::domctl::DomctlOp;
    use public_abi::domid::DOMID_SELF;
    use public_abi::grant_table::{GrantTableOp, SetupTable};
    use public_abi::memory::{AddToPhysmapBatch, MapSpace, MemoryDomain, MemoryMap, MemoryOp, MemoryReservation};
    use public_abi::platform::PlatformOp;
    use public_abi::sched::{SchedOp, SchedPoll};
    use public_abi::sysctl::SysctlOp;
    use public_abi::{Errno, GuestPtr, Hypercall};
    use rt::memory;

    guests::guest!("wild_handles", run);

    const DOMCTL_VERSION: u32 = 0x15;
    const SYSCTL_VERSION: u32 = 0x15;
    const PLATFORM_VERSION: u32 = 0x0300_0001;

    fn run(test: &mut Test) {
        let page = memory::take_pages(1);
        for pointer in wild::pointers() {
            reservations(test, pointer);
            maps(test, pointer);
            others(test, pointer);
            if role() == Role::Control {
                questions(test, page, pointer);
                changes(test, page, pointer);
                time(test, page, pointer);
            }
        }
        test.check("alive", call::raw(Hypercall::XenVersion, [0; 5]) > 0, "no");
    }

    fn current() -> i64 {
        call::memory(MemoryOp::CurrentReservation, &mut MemoryDomain { domid: DOMID_SELF })
    }

    /// Lists of frames that cannot be read: no extent is done.
    fn reservations(test: &mut Test, pointer: u64) {
        let before = current();
        for operation in [MemoryOp::PopulatePhysmap, MemoryOp::DecreaseReservation, MemoryOp::IncreaseReservation] {
            for count in [1, 5000] {
                let mut request = MemoryReservation {
                    extent_start: GuestPtr::from_address(pointer),
                    nr_extents: count,
                    domid: DOMID_SELF,
                    ..Default::default()
                };
                let result = call::memory(operation, &mut request);
                test.check("no extent", result <= 0, format_args!("{} at {pointer:#x}: {result}", operation.name()));
            }
        }
        test.equal("as many pages as before", current(), before);
    }

    fn maps(test: &mut Test, pointer: u64) {
        let mut map = MemoryMap { nr_entries: 64, buffer: GuestPtr::from_address(pointer), ..Default::default() };
        test.fails("memory_map", call::memory(MemoryOp::MemoryMap, &mut map), Errno::EFAULT);
        let mut frames = [0xf_0000_u64];
        let mut errors = [0_i32];
        let wild = GuestPtr::<u64>::from_address(pointer);
        let good = GuestPtr::from_address(call::address(&mut frames));
        let batch = AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: MapSpace::SharedInfo.number() as u16,
            size: 1,
            foreign_domid: 0,
            idxs: good,
            gpfns: good,
            errs: GuestPtr::from_address(call::address(&mut errors)),
        };
        for (name, mut request) in [
            ("indices", AddToPhysmapBatch { idxs: wild, ..batch }),
            ("frames", AddToPhysmapBatch { gpfns: wild, ..batch }),
            ("errors", AddToPhysmapBatch { errs: wild.cast(), ..batch }),
        ] {
            let result = call::memory(MemoryOp::AddToPhysmapBatch, &mut request);
            test.check(name, result == check::error(Errno::EFAULT), format_args!("at {pointer:#x}: {result}"));
        }
    }

    fn others(test: &mut Test, pointer: u64) {
        let mut setup = SetupTable {
            dom: DOMID_SELF,
            nr_frames: 1,
            status: 77,
            frame_list: GuestPtr::from_address(pointer),
            ..Default::default()
        };
        let result = call::grant(GrantTableOp::SetupTable, &mut setup);
        test.check("setup_table", setup.status < 0, format_args!("at {pointer:#x}: {result}, status {}", setup.status));
        let mut poll =
            SchedPoll { ports: GuestPtr::from_address(pointer), nr_ports: 2, timeout: 1, ..Default::default() };
        test.fails("poll", call::sched(SchedOp::Poll, &mut poll), Errno::EFAULT);
    }

    /// A request with these words behind command, version (and domain).
    fn ask(page: u64, call: Hypercall, command: u32, version: u32, words: &[u64]) -> i64 {
        (0..512).for_each(|word| memory::write(page + word * 8, 0_u64));
        memory::write(page, command);
        memory::write(page + 4, version);
        let begin = page + if call == Hypercall::Domctl { 16 } else { 8 };
        for (place, word) in (begin..).step_by(8).zip(words) {
            memory::write(place, *word);
        }
        call::raw(call, [page, 0, 0, 0, 0])
    }

    /// What the toolstack asks about the host. The hypervisor has something to say to each, so that it must write.
    fn questions(test: &mut Test, page: u64, pointer: u64) {
        let list: [(SysctlOp, &[u64]); 11] = [
            (SysctlOp::ReadConsole, &[0, pointer, 4096]),
            (SysctlOp::GetDomainInfoList, &[1 << 32, pointer]),
            (SysctlOp::DebugKeys, &[pointer, 2]),
            (SysctlOp::GetCpuInfo, &[1, pointer]),
            (SysctlOp::CpuTopoInfo, &[1, pointer]),
            (SysctlOp::NumaInfo, &[1, pointer, 0]),
            (SysctlOp::NumaInfo, &[1, 0, pointer]),
            // INFO of pool 0.
            (SysctlOp::CpupoolOp, &[3, 0, 0, pointer, 64]),
            (SysctlOp::GetCpuFeatureset, &[20 << 32, pointer]),
            (SysctlOp::GetCpuPolicy, &[1000 << 32, 10, pointer, 0]),
            (SysctlOp::GetCpuPolicy, &[1000 << 32, 10, 0, pointer]),
        ];
        for (operation, words) in list {
            let result = ask(page, Hypercall::Sysctl, operation.number(), SYSCTL_VERSION, words);
            // The list of leaves may be asked for alone; its size is then all that is answered.
            let size_only = operation == SysctlOp::GetCpuPolicy && words.get(2) == Some(&0);
            let good = result == check::error(Errno::EFAULT) || size_only && result < 0;
            test.check("sysctl", good, format_args!("{} at {pointer:#x}: {result}", operation.name()));
        }
    }

    /// What the toolstack asks and orders about a domain.
    fn changes(test: &mut Test, page: u64, pointer: u64) {
        let list: [(DomctlOp, &[u64]); 9] = [
            (DomctlOp::GetVcpuAffinity, &[1 << 32, pointer, 64]),
            (DomctlOp::GetVcpuAffinity, &[2 << 32, 0, 0, pointer, 64]),
            (DomctlOp::SetVcpuAffinity, &[1 << 32, pointer, 64]),
            (DomctlOp::SetVcpuAffinity, &[2 << 32, 0, 0, pointer, 64]),
            (DomctlOp::SetNodeAffinity, &[pointer, 64]),
            (DomctlOp::GetNodeAffinity, &[pointer, 64]),
            (DomctlOp::GetCpuPolicy, &[1000 | 10 << 32, pointer, page + 2048]),
            (DomctlOp::GetHvmContext, &[1 << 20, pointer]),
            (DomctlOp::GetPageFrameInfo3, &[4, pointer]),
        ];
        let efault = check::error(Errno::EFAULT);
        for (operation, words) in list {
            let result = ask(page, Hypercall::Domctl, operation.number(), DOMCTL_VERSION, words);
            let good = match operation {
                // A domain's context cannot be asked for by itself.
                DomctlOp::GetHvmContext => result < 0,
                // The first byte, which is there, holds all nodes of a small machine.
                DomctlOp::SetNodeAffinity if pointer == WINDOW + 0xfff => result == 0 || result == efault,
                _ => result == efault,
            };
            test.check("domctl", good, format_args!("{} at {pointer:#x}: {result}", operation.name()));
        }
    }

    fn time(test: &mut Test, page: u64, pointer: u64) {
        for words in [[pointer, 64, page + 2048, 0], [page + 3072, 64, pointer, 0]] {
            if words[0] != pointer {
                // CPU 0, set again below because `ask` clears the page.
                memory::write(WINDOW, 1_u8);
            }
            let words = words.map(|word| if word == page + 3072 { WINDOW } else { word });
            let command = PlatformOp::GetIdleTime.number();
            let result = ask(page, Hypercall::PlatformOp, command, PLATFORM_VERSION, &words);
            test.check("getidletime", result < 0, format_args!("at {pointer:#x}: {result}"));
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! What a device of the machine reaches behind an IOMMU (QEMU's `edu`, which copies between memory and a buffer of its own):
//! the control domain's pages and, at the frames where they are mapped, granted ones, read-only ones only to read; and not
//! what is mapped no longer, was ballooned out, or is the hypervisor's.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::grant::Table;
    use guests::{Test, call, clock, environment, println};
    use public_abi::GuestPtr;
    use public_abi::domid::DOMID_SELF;
    use public_abi::grant_table::{GNTST_OKAY, GTF_READONLY, GrantTableOp, MapFlags, MapGrantRef, UnmapGrantRef};
    use public_abi::memory::{MemoryOp, MemoryReservation, RemoveFromPhysmap};
    use public_abi::sysctl::{PhysCap, PhysInfo, SysctlOp};
    use rt::memory;
    use rt::paging::{self, PRESENT, UNCACHED, WRITABLE};
    use rt::{Registers, apic};

    guests::guest!("dma", run);

    const DEVICE: u64 = 0x0000_0400_0020_0000;
    /// Vendor and device of `edu`; its registers (QEMU docs/specs/edu.rst).
    const EDU: u32 = 0x11e8_1234;
    const SOURCE: u64 = 0x80;
    const DESTINATION: u64 = 0x88;
    const COUNT: u64 = 0x90;
    const COMMAND: u64 = 0x98;
    const RUN: u64 = 1;
    const TO_MEMORY: u64 = 2;
    /// Where the device's buffer begins, as it counts itself.
    const BUFFER: u64 = 0x4_0000;
    /// Bytes of a transfer.
    const BYTES: u64 = 64;
    const MS: u64 = 5000;
    const REFERENCE: u32 = 40;
    /// What the device has when a refused read leaves its buffer as it was, or fills it with nothing.
    const NOTHING: [u64; 2] = [0, u64::MAX];

    fn output_32(port: u64, value: u32) {
        let mut registers = Registers { rax: value.into(), rdx: port, ..Default::default() };
        // out dx, eax
        rt::execute(&[0xef], &mut registers).expect("a control domain has this port");
    }

    fn configuration(place: u32, register: u32) -> u32 {
        output_32(0xcf8, 1 << 31 | place << 8 | register);
        rt::input_32(0xcfc)
    }

    fn run(test: &mut Test) {
        apic::enable();
        let mut info = PhysInfo::default();
        test.succeeds("physinfo", call::sysctl(SysctlOp::PhysInfo, &mut info));
        let is_there = PhysCap::from_bits_truncate(info.capabilities).contains(PhysCap::DIRECTIO);
        test.check("the IOMMU is in use", is_there, "run it with -device amd-iommu,pt=off or -device intel-iommu");
        let found = (0..32).map(|device| device << 3).find(|place| configuration(*place, 0) == EDU);
        let (Some(place), true) = (found, is_there) else {
            test.check("edu is there", found.is_some(), "run it with -device edu");
            return;
        };
        output_32(0xcf8, 1 << 31 | place << 8 | 4);
        output_32(0xcfc, 0x6);
        let registers = u64::from(configuration(place, 0x10) & !0xf);
        paging::map(DEVICE, registers, PRESENT | WRITABLE | UNCACHED);
        own_pages(test);
        granted_pages(test);
        ballooned_pages(test);
        hypervisor_pages(test);
    }

    fn transfer(test: &mut Test, source: u64, destination: u64, direction: u64) {
        memory::write(DEVICE + SOURCE, source);
        memory::write(DEVICE + DESTINATION, destination);
        memory::write(DEVICE + COUNT, BYTES);
        memory::write(DEVICE + COMMAND, RUN | direction);
        let done = || memory::read::<u64>(DEVICE + COMMAND) & RUN == 0;
        test.holds("the device ends its transfer", clock::within(MS, done));
    }

    /// The device reads memory.
    fn fetch(test: &mut Test, from: u64) {
        transfer(test, from, BUFFER, 0);
    }

    /// The device writes memory.
    fn store(test: &mut Test, to: u64) {
        transfer(test, BUFFER, to, TO_MEMORY);
    }

    /// What the device has in its buffer now, by way of a page that it surely reaches.
    fn holds(test: &mut Test, scratch: u64) -> u64 {
        memory::write(scratch, 0x5c5c_u64);
        store(test, scratch);
        memory::read(scratch)
    }

    fn own_pages(test: &mut Test) {
        let pages = memory::take_pages(2);
        memory::write(pages, 0x1234_5678_9abc_u64);
        fetch(test, pages);
        store(test, pages + 4096);
        test.equal("from page to page", memory::read::<u64>(pages + 4096), 0x1234_5678_9abc);
    }

    fn granted_pages(test: &mut Test) {
        let Ok(table) = Table::map() else {
            test.check("table", false, "it cannot be mapped");
            return;
        };
        let own = environment::domain_id().unwrap_or(0);
        let pages = memory::take_pages(3);
        let (granted, at, scratch) = (pages, pages + 4096, pages + 8192);
        let mut remove = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: at >> 12, ..Default::default() };
        test.succeeds("room", call::memory(MemoryOp::RemoveFromPhysmap, &mut remove));
        for (entry, flags) in [(0, MapFlags::empty()), (GTF_READONLY, MapFlags::READONLY)] {
            table.permit(REFERENCE, own, granted, entry);
            let flags = (MapFlags::HOST_MAP | flags).bits();
            let mut map = MapGrantRef { host_addr: at, flags, gref: REFERENCE, dom: own, ..Default::default() };
            test.equal("a call", call::grant(GrantTableOp::MapGrantRef, &mut map), 0);
            test.equal("map", map.status, GNTST_OKAY);
            memory::write(granted, 0x6_0000_u64);
            fetch(test, at);
            let held = holds(test, scratch);
            test.equal("a granted page is read", held, 0x6_0000);
            memory::write(scratch, 0x7_0000_u64);
            fetch(test, scratch);
            store(test, at);
            let expected = if entry == 0 { 0x7_0000 } else { 0x6_0000 };
            test.equal("and written if it may be", memory::read::<u64>(granted), expected);
            let mut unmap = UnmapGrantRef { host_addr: at, handle: map.handle, ..Default::default() };
            test.equal("a call", call::grant(GrantTableOp::UnmapGrantRef, &mut unmap), 0);
            test.equal("unmap", unmap.status, GNTST_OKAY);
            table.clear(REFERENCE);
            // The device aims at where the page was.
            memory::write(granted, 0x8_0000_u64);
            memory::write(scratch, 0x9_0000_u64);
            fetch(test, scratch);
            store(test, at);
            test.equal("it is not written any more", memory::read::<u64>(granted), 0x8_0000);
            fetch(test, at);
            let held = holds(test, scratch);
            test.check("nor read", held != 0x8_0000, held);
        }
    }

    fn ballooned_pages(test: &mut Test) {
        let pages = memory::take_pages(2);
        let scratch = pages + 4096;
        memory::write(pages, 0xa_0000_u64);
        fetch(test, pages);
        let mut frame = pages >> 12;
        let mut reservation = MemoryReservation {
            extent_start: GuestPtr::from_address(call::address(&mut frame)),
            nr_extents: 1,
            domid: DOMID_SELF,
            ..Default::default()
        };
        test.equal("decrease", call::memory(MemoryOp::DecreaseReservation, &mut reservation), 1);
        store(test, pages);
        fetch(test, pages);
        let held = holds(test, scratch);
        test.check("a page that is gone is not read", NOTHING.contains(&held), held);
        test.equal("populate", call::memory(MemoryOp::PopulatePhysmap, &mut reservation), 1);
        memory::write(pages, 0xb_0000_u64);
        fetch(test, pages);
        let held = holds(test, scratch);
        test.equal("but when it is back", held, 0xb_0000);
    }

    /// RAM that the memory map calls unusable is the hypervisor's and other domains'. The device aims at its last MiB below what
    /// its address lines reach, where the hypervisor itself is.
    fn hypervisor_pages(test: &mut Test) {
        const UNUSABLE: u32 = 5;
        let scratch = memory::take_pages(1);
        let (mut probed, mut seen) = (0, 0);
        environment::memory_map(|start, length, kind| {
            if kind != UNUSABLE || length < 4096 {
                return;
            }
            for at in (start..start + length).step_by(1 << 20).chain([start + length - 4096]) {
                if at >> 32 == 0 && probed < 16 {
                    fetch(test, at);
                    probed += 1;
                    seen += u32::from(!NOTHING.contains(&holds(test, scratch)));
                }
            }
        });
        println!("GUEST-INFO the device aimed at {probed} pages of the hypervisor's");
        test.check("there is memory of the hypervisor's", probed > 0, probed);
        test.equal("none of it is read", seen, 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! The keystone test: from the text of a configuration file to a domain that lives, is looked at from all sides, and goes,
//! leaving the host exactly as it was.
//!
//! Every later feature adds its part here: a dirty log between the guest's writes, a save and a restore between two lives.

mod common;

use common::{CONFIG, with_toolstack};
use keystone::guest::{self, Cpu};
use keystone::kernel;
use keystone::snapshot::{Snapshot, entries};
use keystone::toolstack::Toolstack;
use libxc::build::Built;
use libxc::plan::layout::SpecialPage;
use libxc::trap::{Events, Foreign, Trap};
use machine::{DomId, PAGE_SIZE_U64};
use public_abi::Errno;
use public_abi::arch_hvm_save::HvmHwCpu;
use public_abi::domctl_domain::DomainInfoFlags;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{EventChannelOp, Port};
use public_abi::grant_table::{
    GTF_PERMIT_ACCESS, GrantEntryV1, GrantTableOp, MapFlags, MapGrantRef, RESERVED_CONSOLE, RESERVED_XENSTORE,
    UnmapGrantRef,
};
use public_abi::hvm_params::HvmParam;
use public_abi::hvm_save::{Records, SaveRecord};
use public_abi::memory::{
    AddToPhysmap, E820Entry, E820Type, MapSpace, MemoryMap, MemoryOp, MemoryReservation, Resource,
};
use public_abi::sched::{SchedOp, SchedShutdown, ShutdownReason};
use public_abi::virq::Virq;
use public_abi::x86::{HvmMemmapEntry, HvmModlistEntry, HvmStartInfo, SharedInfo};
use public_abi::{GuestPtr, Request};
use xen_core::p2m::Kind;
use zerocopy::{FromBytes, IntoBytes};

/// The guest's RAM in frames.
const RAM_FRAMES: u64 = 4 << 8;
/// A frame that the guest balloons out, in the middle of a large page.
const BALLOON: u64 = 0x2a0;
/// The guest frame of the guest's grant table, and of its shared_info; both above its RAM.
const GRANT_TABLE: u64 = 0x10_0000;
const SHARED_INFO: u64 = 0x10_0001;
/// A page that the guest grants to the control domain, and the entry that says so.
const GRANTED: u64 = 0x180;
const GRANT: u32 = 9;

#[test]
fn a_domain_lives_and_leaves_the_host_as_it_was() {
    with_toolstack(|toolstack| {
        let events = toolstack.trap().events().expect("event channels");
        let exceptions = events.bind_virq(Virq::DomExc).expect("the end of domains can be heard of");
        // The first life fills what only grows: tables of the control domain's p2m, its list of mapped grants.
        a_life(toolstack, &events, exceptions);
        let before = Snapshot::take(toolstack);
        a_life(toolstack, &events, exceptions);
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

/// Creates a domain, looks at it, lets it live, and destroys it.
fn a_life(toolstack: &Toolstack, events: &impl Events, exceptions: u32) {
    let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}"));
    check_memory(toolstack, &built);
    check_registers(toolstack, &built);
    check_grants(toolstack, &built);
    check_nodes(toolstack, &built);
    live(toolstack, &built, events);
    assert_eq!(events.wait().ok(), Some(exceptions), "the domain's end is told");
    let info = toolstack.handle().domain_info(built.domid).expect("can be asked").expect("is there");
    assert_eq!(info.shutdown(), Some(Ok(ShutdownReason::Poweroff)));
    toolstack.destroy(built.domid).expect("is destroyed");
    assert_eq!(events.wait().ok(), Some(exceptions), "and so is its disappearance");
    assert_eq!(toolstack.handle().domain_info(built.domid).expect("can be asked"), None);
}

/// The p2m has what the plan says and nothing else; the memory map that the hypervisor will tell is the plan's.
fn check_memory(toolstack: &Toolstack, built: &Built) {
    let domain = toolstack.control.world().domain(built.domid);
    let entries = entries(&domain);
    let special = SpecialPage::Paging.gfn();
    let expected: Vec<(u64, u32)> =
        [(0, 9), (0x200, 9), (0xf_c000, 0)].into_iter().chain((special..special + 8).map(|gfn| (gfn, 0))).collect();
    let found: Vec<(u64, u32)> = entries.iter().map(|(gfn, order, ..)| (gfn.number(), *order)).collect();
    assert_eq!(found, expected);
    assert!(entries.iter().all(|(.., kind, _)| *kind == Kind::RamRw));
    let info = toolstack.handle().domain_info(built.domid).expect("can be asked").expect("is there");
    assert_eq!((info.pages, info.max_pages), (RAM_FRAMES + 9, RAM_FRAMES + 256));
    assert!(info.flags.contains(DomainInfoFlags::PAUSED | DomainInfoFlags::HVM_GUEST | DomainInfoFlags::HAP));
    assert_eq!((info.max_vcpus, info.online_vcpus), (2, 1), "the first is up, the second waits for the guest");
    // What the toolstack wrote is there, and what it did not write is clear.
    let read = |start: u64, length: usize| {
        let gfns: Vec<u64> = (start / PAGE_SIZE_U64..(start + length as u64).div_ceil(PAGE_SIZE_U64)).collect();
        let pages = toolstack.trap().foreign(built.domid, &gfns).expect("can be mapped");
        let mut bytes = vec![0; length];
        pages.read_at((start % PAGE_SIZE_U64) as usize, &mut bytes);
        bytes
    };
    assert_eq!(read(kernel::DATA, kernel::DATA_BYTES as usize), kernel::data());
    assert_eq!(read(kernel::END, 5000), toolstack.ramdisk());
    assert!(read(0, 0x1000).iter().all(|byte| *byte == 0), "nothing of an earlier owner is left");
    assert!(read(special * PAGE_SIZE_U64, 6 * 4096).iter().all(|byte| *byte == 0), "special pages are clear");
}

/// vCPU 0 enters its kernel as the boot protocol says; the other one is down.
fn check_registers(toolstack: &Toolstack, built: &Built) {
    let records = toolstack.handle().save_records(built.domid).expect("can be read");
    let mut cpus = Vec::new();
    for record in Records::new(&records) {
        let record = record.expect("is whole");
        cpus.extend((record.descriptor.typecode == HvmHwCpu::CODE.number() as u16).then(|| record.get::<HvmHwCpu>()));
    }
    // A vCPU that is down has no record of its registers.
    let [Some(cpu)] = cpus[..] else { panic!("{} records", cpus.len()) };
    assert_eq!((cpu.rip, cpu.rflags & 0x200), (kernel::ENTRY, 0));
    assert_eq!(cpu.cr0 & 0x8000_0001, 1, "protected mode without paging");
    assert_eq!((cpu.cr4, cpu.msr_efer), (0, 0));
    assert_eq!((cpu.cs_base, cpu.cs_limit, cpu.cs_arbytes & 0xf09b), (0, u32::MAX, 0x9b));
    assert_eq!((cpu.ds_base, cpu.ss_base, cpu.es_base), (0, 0, 0));
    let domain = toolstack.control.world().domain(built.domid);
    let hardware = domain.vcpu(0).expect("exists").hardware.try_lock().expect("does not run");
    assert_eq!(hardware.guest().rip, cpu.rip);
    let down = |vcpu: u32| domain.vcpu(vcpu).expect("exists").wait().contains(xen_core::vcpu::Wait::DOWN);
    assert_eq!((down(0), down(1)), (false, true));
}

/// The daemons' grants stand where the guest's grant table will be.
fn check_grants(toolstack: &Toolstack, built: &Built) {
    let table = toolstack.trap().resource(built.domid, Resource::GrantTable, 0, 0, 1).expect("can be mapped");
    let entry = |reference: u32| {
        let mut bytes = [0; size_of::<GrantEntryV1>()];
        table.read_at(reference as usize * bytes.len(), &mut bytes);
        GrantEntryV1::read_from_bytes(&bytes).expect("as long as it is")
    };
    for (reference, page) in [(RESERVED_CONSOLE, SpecialPage::Console), (RESERVED_XENSTORE, SpecialPage::Xenstore)] {
        let GrantEntryV1 { flags, domid, frame } = entry(reference);
        assert_eq!((flags, domid, u64::from(frame)), (GTF_PERMIT_ACCESS, 0, page.gfn()));
    }
    assert_eq!(entry(2), GrantEntryV1::default());
}

/// xenstore says where rings and ports are.
fn check_nodes(toolstack: &Toolstack, built: &Built) {
    let tree = toolstack.store.tree();
    let node = |rest: &str| tree.text(&format!("/local/domain/{}/{rest}", built.domid)).unwrap_or_default();
    assert_eq!(node("name"), "g");
    assert_eq!(node("console/port"), built.console_port.to_string());
    assert_eq!(node("console/ring-ref"), SpecialPage::Console.gfn().to_string());
    assert_eq!(node("store/port"), built.xenstore_port.to_string());
    assert_eq!(node("memory/target"), (RAM_FRAMES * 4).to_string());
    assert_eq!((node("cpu/0/availability").as_str(), node("cpu/1/availability").as_str()), ("online", "online"));
    assert!(tree.introduced.contains(&built.domid.to_string()));
}

/// The guest runs, while the test plays the daemons.
fn live(toolstack: &Toolstack, built: &Built, events: &impl Events) {
    let world = toolstack.control.world();
    // xenstored binds to its channel and maps the ring by its grant.
    let port = events.bind_interdomain(built.domid, built.xenstore_port).expect("the guest's port waits for us");
    let ring = map_grant(toolstack, built.domid, RESERVED_XENSTORE);
    let ramdisk = toolstack.ramdisk().to_vec();
    let xenstore_port = built.xenstore_port;
    guest::run(&world.machine, DomId(built.domid), 0, move |cpu| first_vcpu(cpu, &ramdisk, xenstore_port));
    toolstack.handle().domain_unpause(built.domid).expect("is unpaused");
    // The guest's first message: written to its ring, announced by its port.
    assert_eq!(events.wait().expect("the guest sends"), port);
    assert_eq!(toolstack.control.read(ring.address, 8), b"question");
    toolstack.control.write(ring.address + 1024, b"answer");
    // The page that it grants beside: seen through its grant, written, and given back.
    let shared = map_grant(toolstack, built.domid, GRANT);
    assert_eq!(toolstack.control.read(shared.address, 6), b"shared");
    toolstack.control.write(shared.address, b"SHARED");
    unmap_grant(toolstack, shared);
    events.notify(port).expect("the guest's end is there");
    // Its second message is its last.
    assert_eq!(events.wait().expect("the guest sends"), port);
    unmap_grant(toolstack, ring);
    events.unbind(port).expect("is bound");
}

/// A page that the control domain has mapped by its grant.
struct Mapped {
    address: u64,
    handle: u32,
}

fn map_grant(toolstack: &Toolstack, domid: u16, reference: u32) -> Mapped {
    let address = toolstack.control.take_frames(1).expect("there are frames") * PAGE_SIZE_U64;
    let mut request = MapGrantRef {
        host_addr: address,
        flags: MapFlags::HOST_MAP.bits(),
        gref: reference,
        dom: domid,
        ..MapGrantRef::default()
    };
    grant_op(toolstack, GrantTableOp::MapGrantRef, &mut request);
    assert_eq!(request.status, 0);
    Mapped { address, handle: request.handle }
}

fn unmap_grant(toolstack: &Toolstack, mapped: Mapped) {
    let mut request = UnmapGrantRef { host_addr: mapped.address, handle: mapped.handle, ..UnmapGrantRef::default() };
    grant_op(toolstack, GrantTableOp::UnmapGrantRef, &mut request);
    assert_eq!(request.status, 0);
    toolstack.control.give_frames(mapped.address / PAGE_SIZE_U64, 1);
}

fn grant_op<T>(toolstack: &Toolstack, operation: GrantTableOp, request: &mut T)
where
    T: FromBytes + IntoBytes + zerocopy::Immutable,
{
    let cmd = operation.number();
    let call = |uop| Request::GrantTableOp { cmd, uop, count: 1 };
    toolstack.control.exchange(request, call).expect("the call itself succeeds");
}

// ---- what the guest does ----------------------------------------------------------------------------------------

fn first_vcpu(cpu: &mut Cpu, ramdisk: &[u8], xenstore_port: u32) {
    check_start_info(cpu, ramdisk);
    cpu.enter_long_mode();
    check_personality(cpu);
    let map = check_memory_map(cpu);
    assert_eq!(map.first(), Some(&(0, RAM_FRAMES * PAGE_SIZE_U64, E820Type::Ram.number())));
    let mut shared = AddToPhysmap {
        domid: DOMID_SELF,
        space: MapSpace::SharedInfo.number(),
        gpfn: SHARED_INFO,
        ..AddToPhysmap::default()
    };
    assert_eq!(cpu.memory_op(MemoryOp::AddToPhysmap, &mut shared), Ok(0));
    assert_eq!(cpu.param(HvmParam::StoreEvtchn), Ok(xenstore_port.into()));
    assert_eq!(cpu.param(HvmParam::StorePfn), Ok(SpecialPage::Xenstore.gfn()));
    grant_a_page(cpu);
    let ring = SpecialPage::Xenstore.gfn() * PAGE_SIZE_U64;
    cpu.write(ring, b"question");
    send(cpu, xenstore_port);
    wait_for(cpu, xenstore_port);
    assert_eq!(cpu.read(ring + 1024, 6), b"answer");
    assert_eq!(cpu.read(GRANTED * PAGE_SIZE_U64, 6), b"SHARED", "the other side wrote through its grant");
    check_grant_is_unused(cpu);
    balloon(cpu);
    touch_nothing(cpu);
    check_what_guests_may_not(cpu);
    send(cpu, xenstore_port);
    let mut reason = SchedShutdown { reason: ShutdownReason::Poweroff.number() };
    let answer = cpu.sched_op(SchedOp::Shutdown, &mut reason);
    panic!("the guest goes on after its shutdown: {answer:?}");
}

/// The registers are those of the boot protocol, and what EBX points to describes this machine.
fn check_start_info(cpu: &mut Cpu, ramdisk: &[u8]) {
    let vmcb = cpu.vmcb();
    assert_eq!((vmcb.guest.rip, vmcb.guest.rflags & 0x200, vmcb.guest.cr0 & 0x8000_0001), (kernel::ENTRY, 0, 1));
    let at = cpu.registers(|guest| guest.register(machine::codec::registers::Register::Rbx));
    let info: HvmStartInfo = cpu.get(at);
    assert_eq!((info.magic, info.version, info.nr_modules), (0x336e_c578, 1, 1));
    assert_eq!(cpu.read(info.cmdline_paddr, 13), b"console=hvc0\0");
    let module: HvmModlistEntry = cpu.get(info.modlist_paddr);
    assert_eq!(cpu.read(module.paddr, module.size as usize), ramdisk);
    let entry = info.memmap_paddr..;
    let entries: Vec<HvmMemmapEntry> =
        entry.step_by(size_of::<HvmMemmapEntry>()).take(info.memmap_entries as usize).map(|at| cpu.get(at)).collect();
    let first = entries.first().expect("the map has entries");
    assert_eq!((first.addr, first.size, first.kind), (0, RAM_FRAMES * PAGE_SIZE_U64, E820Type::Ram.number()));
    let rsdp = cpu.read(info.rsdp_paddr, 36);
    assert!(rsdp.starts_with(b"RSD PTR ") && rsdp.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0);
    assert_eq!(cpu.read(kernel::DATA, kernel::DATA_BYTES as usize), kernel::data());
    let bss = (kernel::DATA_SPAN - kernel::DATA_BYTES) as usize;
    assert_eq!(cpu.read(kernel::DATA + kernel::DATA_BYTES, bss), vec![0; bss], "the bss is clear");
}

/// The hypervisor says what it is.
fn check_personality(cpu: &mut Cpu) {
    let [leaves, b, c, d] = cpu.cpuid(0x4000_0000, 0);
    assert!(leaves >= 0x4000_0004);
    assert_eq!([b, c, d].map(u32::to_le_bytes).as_flattened(), b"XenVMMXenVMM");
    assert_eq!(cpu.cpuid(0x4000_0001, 0)[0], 0x0004_0011);
    assert_eq!(cpu.request(&Request::XenVersion { cmd: 0, arg: GuestPtr::NULL }), Ok(0x0004_0011));
}

/// XENMEM_memory_map: address, bytes, kind.
fn check_memory_map(cpu: &mut Cpu) -> Vec<(u64, u64, u32)> {
    const MOST: u32 = 8;
    let buffer = kernel::SCRATCH + 256;
    let mut map = MemoryMap { nr_entries: MOST, buffer: GuestPtr::from_address(buffer), ..MemoryMap::default() };
    assert_eq!(cpu.memory_op(MemoryOp::MemoryMap, &mut map), Ok(0));
    assert!(map.nr_entries < MOST);
    let step = size_of::<E820Entry>();
    let bytes = cpu.read(buffer, map.nr_entries as usize * step);
    let word = |entry: &[u8], at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
    bytes.chunks(step).map(|entry| (word(entry, 0), word(entry, 8), u32::from(entry[16]))).collect()
}

fn send(cpu: &mut Cpu, port: u32) {
    assert_eq!(cpu.event_op(EventChannelOp::Send, &mut Port { port }), Ok(0));
}

/// Polls until a port has an event, and takes it.
fn wait_for(cpu: &mut Cpu, port: u32) {
    use core::mem::offset_of;
    use public_abi::sched::SchedPoll;
    let ports = kernel::SCRATCH + 256;
    cpu.put(ports, &port);
    let poll = SchedPoll { ports: GuestPtr::from_address(ports), nr_ports: 1, ..SchedPoll::default() };
    assert_eq!(cpu.sched_op(SchedOp::Poll, &mut { poll }), Ok(0));
    let word = SHARED_INFO * PAGE_SIZE_U64 + offset_of!(SharedInfo, evtchn_pending) as u64 + u64::from(port / 64) * 8;
    let bit = 1u64 << (port % 64);
    let pending: u64 = cpu.get(word);
    assert_ne!(pending & bit, 0, "the poll ended without the event");
    cpu.put(word, &(pending & !bit));
}

/// Maps the grant table, finds the toolstack's entries in it, and grants a page to the control domain.
fn grant_a_page(cpu: &mut Cpu) {
    let mut request = AddToPhysmap {
        domid: DOMID_SELF,
        space: MapSpace::GrantTable.number(),
        gpfn: GRANT_TABLE,
        ..AddToPhysmap::default()
    };
    assert_eq!(cpu.memory_op(MemoryOp::AddToPhysmap, &mut request), Ok(0));
    let table = GRANT_TABLE * PAGE_SIZE_U64;
    let xenstore: GrantEntryV1 = cpu.get(table + u64::from(RESERVED_XENSTORE) * 8);
    assert_eq!(u64::from(xenstore.frame), SpecialPage::Xenstore.gfn());
    cpu.write(GRANTED * PAGE_SIZE_U64, b"shared");
    let entry = GrantEntryV1 { flags: GTF_PERMIT_ACCESS, domid: 0, frame: GRANTED as u32 };
    cpu.put(table + u64::from(GRANT) * 8, &entry);
}

fn check_grant_is_unused(cpu: &mut Cpu) {
    let entry: GrantEntryV1 = cpu.get(GRANT_TABLE * PAGE_SIZE_U64 + u64::from(GRANT) * 8);
    assert_eq!(entry.flags, GTF_PERMIT_ACCESS, "nobody uses it any more");
}

/// Gives a page back, touches its place, and takes another one.
fn balloon(cpu: &mut Cpu) {
    let at = BALLOON * PAGE_SIZE_U64;
    cpu.write(at, b"old");
    cpu.write(at - 4, b"left");
    cpu.write(at + PAGE_SIZE_U64, b"right");
    let list = kernel::SCRATCH + 256;
    cpu.put(list, &BALLOON);
    let one = MemoryReservation {
        extent_start: GuestPtr::from_address(list),
        nr_extents: 1,
        domid: DOMID_SELF,
        ..MemoryReservation::default()
    };
    assert_eq!(cpu.memory_op(MemoryOp::DecreaseReservation, &mut { one }), Ok(1));
    assert_eq!(cpu.load(at), u64::MAX, "there is nothing any more");
    cpu.store(at, 7);
    assert_eq!(cpu.load(at), u64::MAX);
    assert_eq!(cpu.memory_op(MemoryOp::PopulatePhysmap, &mut { one }), Ok(1));
    assert_eq!(cpu.load(at), 0, "another page, with nothing of anybody's in it");
    assert_eq!(
        (cpu.read(at - 4, 4).as_slice(), cpu.read(at + PAGE_SIZE_U64, 5).as_slice()),
        (&b"left"[..], &b"right"[..])
    );
}

/// Where nothing is, reads are all ones and writes go nowhere; nothing is raised.
fn touch_nothing(cpu: &mut Cpu) {
    for gpa in [RAM_FRAMES * PAGE_SIZE_U64, 0xe000_0000, 0x20_0000_0000] {
        assert_eq!(cpu.load(gpa), u64::MAX, "{gpa:#x}");
        cpu.store(gpa, 0);
        assert_eq!(cpu.load(gpa), u64::MAX, "{gpa:#x}");
    }
    for size in [1, 2, 4] {
        let ones = u32::MAX >> (32 - 8 * u32::from(size));
        assert_eq!(cpu.port_in(0xb004, size) & ones, ones);
        cpu.port_out(0xb004, size, 0);
    }
    assert_eq!(cpu.read_msr(0xc001_1028), None, "an MSR that is not there raises #GP");
}

/// Calls of the toolstack's, and pages of others.
fn check_what_guests_may_not(cpu: &mut Cpu) {
    use public_abi::domctl::{Domctl, DomctlOp};
    let mut pause = Domctl::new(DomctlOp::PauseDomain, 0);
    let answer = cpu.exchange(kernel::SCRATCH, &mut pause, |op| Request::Domctl { op });
    assert_eq!(answer, Err(Errno::EPERM));
    let mut stolen =
        AddToPhysmap { domid: 0, space: MapSpace::SharedInfo.number(), gpfn: 0x10_0002, ..AddToPhysmap::default() };
    assert_eq!(cpu.memory_op(MemoryOp::AddToPhysmap, &mut stolen), Err(Errno::EPERM));
    assert_eq!(cpu.hypercall(55, [0; 6]), -i64::from(Errno::ENOSYS.number()));
}

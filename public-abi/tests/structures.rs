//! Behaviour of the accessors: unions, 32-bit layouts, save records, rings, small encodings.

use public_abi::domctl::{DOMCTL_INTERFACE_VERSION, Domctl, DomctlOp};
use public_abi::domctl_domain::{CreateDomain, EmulationFlags, GetDomainInfo, HvmContext, MaxMem};
use public_abi::hvm_params::CallbackVia;
use public_abi::hvm_save::{Record, Records, SaveCode, SaveDescriptor, Truncated};
use public_abi::payload::WrongPayload;
use public_abi::{GuestPtr, GuestPtr32};
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn a_domctl_gives_only_its_own_parameters() {
    let max_mem = MaxMem { max_memkb: 0x1_0000_0001 };
    let request = Domctl::with(DomctlOp::MaxMem, 7, &max_mem);
    assert_eq!(request.as_ref().map(|request| request.get::<MaxMem>()), Ok(Ok(max_mem)));
    let request = request.unwrap_or_default();
    assert_eq!((request.cmd, request.interface_version, request.domain), (11, DOMCTL_INTERFACE_VERSION, 7));
    assert_eq!(request.as_bytes().get(16..24), Some(0x1_0000_0001_u64.to_le_bytes().as_slice()));
    assert!(matches!(request.get::<CreateDomain>(), Err(WrongPayload { command: 11, .. })));

    let mut unknown = Domctl { cmd: 9999, ..request };
    assert!(unknown.command().is_err());
    assert!(unknown.set(&max_mem).is_err());
    assert_eq!(unknown.u, request.u, "a refused write changes nothing");
}

#[test]
fn both_commands_of_a_pair_share_parameters() {
    let context = HvmContext { size: 8, buffer: GuestPtr::from_address(0x1000), ..HvmContext::default() };
    for operation in [DomctlOp::GetHvmContext, DomctlOp::SetHvmContext] {
        assert!(Domctl::with(operation, 1, &context).is_ok_and(|request| request.get() == Ok(context)));
    }
}

#[test]
fn writing_a_union_leaves_no_stale_bytes() {
    let mut request = Domctl::new(DomctlOp::GetDomainInfo, 0);
    request.u = [u64::MAX; 16];
    assert_eq!(request.set(&GetDomainInfo::default()), Ok(()));
    assert_eq!(request.u, [0; 16]);
}

#[test]
fn emulation_flags_are_the_two_values_that_xen_accepts() {
    assert_eq!((EmulationFlags::PVH.bits(), EmulationFlags::HVM.bits()), (1, 0x3ff));
}

#[test]
fn every_commanded_union_is_checked() {
    use public_abi::dm_op::{DmOp, DmOpRequest, InjectMsi, TrackDirtyVram};
    use public_abi::hvm_op::{Altp2mOp, Altp2mRequest, Altp2mView};
    use public_abi::platform::{PlatformOp, PlatformRequest, Settime32, Settime64};
    use public_abi::sysctl::{PhysInfo, Sysctl, SysctlOp};

    let physinfo = PhysInfo { nr_cpus: 3, max_mfn: 0xfeed, ..PhysInfo::default() };
    assert!(Sysctl::with(SysctlOp::PhysInfo, &physinfo).is_ok_and(|request| request.get() == Ok(physinfo)));
    assert!(Sysctl::with(SysctlOp::SchedId, &physinfo).is_err());

    let time = Settime64 { secs: 1, nsecs: 2, mbz: 0, system_time: 3 };
    let mut platform = PlatformRequest::new(PlatformOp::Settime64);
    assert_eq!(platform.set(&time), Ok(()));
    assert_eq!(platform.get(), Ok(time));
    assert!(platform.get::<Settime32>().is_err());

    let msi = InjectMsi { data: 0x41, addr: 0xfee0_0000, ..InjectMsi::default() };
    let mut dm_op = DmOpRequest::new(DmOp::InjectMsi);
    assert_eq!(dm_op.set(&msi), Ok(()));
    assert!(dm_op.get::<TrackDirtyVram>().is_err());

    let view = Altp2mView { view: 4, hvmmem_default_access: 7 };
    let mut altp2m = Altp2mRequest::new(Altp2mOp::CreateP2m, 1);
    assert_eq!(altp2m.set(&view), Ok(()));
    assert_eq!(altp2m.get(), Ok(view));
}

#[test]
fn plain_unions_read_what_was_written() {
    use public_abi::event_channel::{Status, StatusInterdomain};
    use public_abi::vm_event::{MemPagingEvent, RegsX86, VmEvent};

    let mut status = Status { u: [u32::MAX; 2], ..Status::default() };
    status.set(&33_u32);
    assert_eq!(status.u, [33, 0]);
    let peer = StatusInterdomain { dom: 5, pad: [0; 2], port: 17 };
    status.set(&peer);
    assert_eq!(status.get::<StatusInterdomain>(), peer);

    let paging = MemPagingEvent { gfn: 9, p2mt: 1, flags: 1 };
    let mut event = VmEvent::default();
    event.set(&paging);
    let regs = RegsX86 { rip: 0xdead, gs_sel: 0x33, ..RegsX86::default() };
    event.set_regs(&regs);
    assert_eq!((event.get::<MemPagingEvent>(), event.regs()), (paging, regs));
    assert_eq!(event.as_bytes().get(24..32), Some(9_u64.to_le_bytes().as_slice()));
}

#[test]
fn guest_pointers_compare_and_step() {
    let pointer: GuestPtr<u32> = GuestPtr::from_address(0x1000);
    assert_eq!(pointer.element(3), Some(GuestPtr::from_address(0x100c)));
    assert_eq!(GuestPtr::<u32>::from_address(u64::MAX - 2).element(1), None);
    assert_eq!(pointer.element(u64::MAX), None);
    assert!(GuestPtr::<u8>::NULL.is_null() && !pointer.is_null());
    assert_eq!(GuestPtr::<u32>::from(GuestPtr32::from_address(0xffff_f000)).address(), 0xffff_f000);
    assert_eq!(format!("{pointer:?}"), "GuestPtr(0x1000)");
}

#[test]
fn narrow_requests_widen() {
    use public_abi::compat32::{AddToPhysmap32, MemoryReservation32, ReservedDeviceMemory32, SchedPoll32};
    use public_abi::memory::{AddToPhysmap, MemoryReservation, ReservedDeviceMemory};
    use public_abi::sched::SchedPoll;

    // The bytes that a 32-bit guest puts into memory.
    let bytes = [0xf0, 0x7f, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let narrow = AddToPhysmap32::read_from_bytes(&bytes).unwrap_or_default();
    let wide = AddToPhysmap::from(narrow);
    assert_eq!((wide.domid, wide.size, wide.space, wide.idx, wide.gpfn), (0x7ff0, 0, 1, 2, 0xffff_ffff));

    let narrow = SchedPoll32 { timeout: [1, 2], nr_ports: 1, ports: GuestPtr32::from_address(8) };
    assert_eq!(SchedPoll::from(narrow).timeout, 0x2_0000_0001);

    let narrow = MemoryReservation32 { nr_extents: 7, extent_order: 9, domid: 3, ..MemoryReservation32::default() };
    let wide = MemoryReservation::from(narrow);
    assert_eq!((wide.nr_extents, wide.extent_order, wide.domid), (7, 9, 3));

    let region = ReservedDeviceMemory { start_pfn: 1 << 32, nr_pages: 1 };
    assert_eq!(ReservedDeviceMemory32::try_from(region), Err(public_abi::Errno::ERANGE));
}

/// Appends a record to a sequence.
fn push(bytes: &mut Vec<u8>, code: SaveCode, instance: u16, contents: &[u8]) {
    let descriptor = SaveDescriptor {
        typecode: code.number().try_into().unwrap_or(u16::MAX),
        instance,
        length: contents.len().try_into().unwrap_or(u32::MAX),
    };
    bytes.extend_from_slice(descriptor.as_bytes());
    bytes.extend_from_slice(contents);
}

#[test]
fn save_records_are_found_in_order() {
    use public_abi::arch_hvm_save::{HvmHwMtrr, HvmSaveHeader, HvmTscAdjust};

    let header = HvmSaveHeader { magic: 0x5438_1286, version: 1, ..HvmSaveHeader::default() };
    let mtrr = HvmHwMtrr { msr_mtrr_def_type: 0x806, ..HvmHwMtrr::default() };
    let mut bytes = Vec::new();
    push(&mut bytes, SaveCode::Header, 0, header.as_bytes());
    push(&mut bytes, SaveCode::Mtrr, 1, mtrr.as_bytes());
    let before_end = bytes.len();
    push(&mut bytes, SaveCode::End, 0, &[]);
    push(&mut bytes, SaveCode::Mtrr, 2, mtrr.as_bytes());

    let records: Result<Vec<Record<'_>>, Truncated> = Records::new(&bytes).collect();
    let records = records.unwrap_or_default();
    assert_eq!(records.len(), 2, "what follows END is not part of the sequence");
    assert_eq!(records.first().and_then(Record::get), Some(header));
    assert_eq!(records.last().and_then(Record::get), Some(mtrr));
    assert_eq!(records.last().map(|record| record.descriptor.instance), Some(1));
    assert_eq!(records.last().and_then(Record::get::<HvmTscAdjust>), None, "another type code");

    for cut in 0..before_end {
        let result: Result<Vec<Record<'_>>, Truncated> = Records::new(bytes.get(..cut).unwrap_or_default()).collect();
        let expected = if cut < 8 + size_of::<HvmSaveHeader>() { 0 } else { 8 + size_of::<HvmSaveHeader>() };
        assert_eq!(result, Err(Truncated { offset: expected }), "cut at {cut}");
    }
}

#[test]
fn callback_values_go_there_and_back() {
    let vias = [
        (CallbackVia::None, 0),
        (CallbackVia::Gsi(1), 1),
        (CallbackVia::Vector(0xf3), 0x0200_0000_0000_00f3),
        (CallbackVia::PciIntx { domain: 0x1234, bus: 0, device: 3, intx: 0 }, 0x0100_1234_0000_1800),
    ];
    for (via, value) in vias {
        assert_eq!((via.to_value(), CallbackVia::from_value(value)), (value, Some(via)));
    }
    assert_eq!(CallbackVia::from_value(3 << 56), None);
}

#[test]
fn memory_flags_and_commands() {
    use public_abi::memory::{E820Entry, E820Type, memf_address_bits, memf_from_node, memf_node, split_command};
    assert_eq!(
        (memf_node(0), memf_node(memf_from_node(0)), memf_node(memf_from_node(254))),
        (None, Some(0), Some(254))
    );
    assert_eq!(memf_address_bits(memf_from_node(3) | 32), 32);
    assert_eq!(split_command((5 << 6) | 28), (28, 5));
    let entry = E820Entry::new(0x1_2345_6789, 0x9_8765_4321, E820Type::Acpi);
    assert_eq!((entry.start(), entry.length(), entry.kind), (0x1_2345_6789, 0x9_8765_4321, 3));
    assert_eq!(entry.as_bytes().get(..8), Some(0x1_2345_6789_u64.to_le_bytes().as_slice()));
}

#[test]
fn ring_arithmetic_survives_wrap_around() {
    use public_abi::io::ring::{must_notify, overflows, ring_size, slot_offset, unconsumed};
    // Xen's sizes of a one-page ring: 32 block requests, 256 network requests each way.
    assert_eq!((ring_size(4096, 112), ring_size(4096, 12), ring_size(4096, 8)), (32, 256, 256));
    assert_eq!((ring_size(63, 8), ring_size(4096, 0), ring_size(71, 8), ring_size(72, 8)), (0, 0, 0, 1));
    assert_eq!((slot_offset(33, 32, 112), slot_offset(u32::MAX, 32, 112)), (64 + 112, 64 + 31 * 112));
    assert_eq!(unconsumed(2, u32::MAX), 3);
    assert!(!overflows(2, u32::MAX - 29, 32) && overflows(3, u32::MAX - 29, 32));
    assert!(must_notify(u32::MAX, 1, 0) && must_notify(0, 1, 1) && !must_notify(0, 1, 2) && !must_notify(5, 9, 5));
}

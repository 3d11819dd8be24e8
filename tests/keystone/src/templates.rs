//! Arguments that make sense, for random hypercalls to begin from: structures whose fields mostly hold what they should, so
//! that what is behind the first checks is reached. The caller may spoil some of it afterwards.

use crate::random::{ARENA, Random, Subject};
use public_abi::GuestPtr;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{
    AllocUnbound, BindInterdomain, BindIpi, BindVcpu, BindVirq, ExpandArray, InitControl, Port, Reset, SetPriority,
    Status,
};
use public_abi::grant_table::{
    CopyPtr, GrantCopy, MapGrantRef, QuerySize, SetVersion, SetupTable, SwapGrantRef, UnmapGrantRef,
};
use public_abi::hvm_op::{EvtchnUpcallVector, GetMemType, HvmParamRequest};
use public_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, MemAcquireResource, MemoryExchange, MemoryMap, MemoryReservation, PodTarget,
    RemoveFromPhysmap,
};
use public_abi::vcpu::{RegisterMemoryArea, RegisterVcpuInfo, SetPeriodicTimer, SetSingleshotTimer, VcpuHvmContext};
use zerocopy::{FromZeros, IntoBytes};

/// Where lists of frames and ports stand in the arena.
pub const LISTS: u64 = ARENA + 0x400;

/// Frames that calls move about, so that calls meet each other's traces: RAM in small and large pages, special pages, and
/// places above RAM.
fn gfn(subject: &Subject, random: &mut Random) -> u64 {
    match random.below(8) {
        0..=2 => 0x200 + random.below(32),
        3 => 0x110 + random.below(16),
        4 => random.below(subject.ram_frames),
        5 => 0x10_0000 + random.below(8),
        6 => 0xf_eff8 + random.below(8),
        _ => random.pick(&[0x1ff, 0x200, 0x3ff, 0x400, 0xf_c000, (1 << 36) - 1]),
    }
}

fn domid(subject: &Subject, random: &mut Random) -> u16 {
    match random.below(8) {
        0..=3 => DOMID_SELF,
        4 => subject.domain,
        5 => 0,
        _ => subject.neighbour + random.below(3) as u16,
    }
}

fn pointer<T>(random: &mut Random) -> GuestPtr<T> {
    GuestPtr::from_address(LISTS + random.below(3) * 0x200)
}

fn port(random: &mut Random) -> u32 {
    random.below(12) as u32
}

fn nanoseconds(random: &mut Random) -> u64 {
    1_000_000 << random.below(40)
}

/// The lists: frames first, then whatever 32-bit numbers the ports' list is read as.
pub fn lists(subject: &Subject, random: &mut Random) -> Vec<u8> {
    (0..192).flat_map(|_| gfn(subject, random).to_le_bytes()).collect()
}

/// The argument of a call, if it is one that is known here.
pub fn argument(subject: &Subject, random: &mut Random, number: u64, command: u64) -> Option<Vec<u8>> {
    match number {
        12 => memory(subject, random, command),
        20 => grant(subject, random, command),
        24 => vcpu(subject, random, command),
        32 => event(subject, random, command),
        34 => hvm(subject, random, command),
        _ => None,
    }
}

fn memory(subject: &Subject, random: &mut Random, command: u64) -> Option<Vec<u8>> {
    let order = random.pick(&[0, 0, 0, 0, 1, 9]);
    let reservation = MemoryReservation {
        extent_start: pointer(random),
        nr_extents: random.below(6),
        extent_order: order,
        domid: domid(subject, random),
        ..MemoryReservation::default()
    };
    let bytes = match command & 63 {
        0 | 1 | 6 => reservation.as_bytes().to_vec(),
        11 => {
            MemoryExchange { input: reservation, output: reservation, ..MemoryExchange::default() }.as_bytes().to_vec()
        }
        7 => AddToPhysmap {
            domid: domid(subject, random),
            size: random.below(4) as u16,
            space: random.below(6) as u32,
            idx: if random.once_in(2) { gfn(subject, random) } else { random.below(3) },
            gpfn: gfn(subject, random),
        }
        .as_bytes()
        .to_vec(),
        15 => RemoveFromPhysmap {
            domid: domid(subject, random),
            gpfn: gfn(subject, random),
            ..RemoveFromPhysmap::default()
        }
        .as_bytes()
        .to_vec(),
        23 => AddToPhysmapBatch {
            domid: domid(subject, random),
            space: random.below(6) as u16,
            size: random.below(8) as u16,
            foreign_domid: subject.neighbour + random.below(3) as u16,
            idxs: pointer(random),
            gpfns: pointer(random),
            errs: GuestPtr::from_address(ARENA + 0xe00),
        }
        .as_bytes()
        .to_vec(),
        9 => MemoryMap { nr_entries: random.below(8) as u32, buffer: pointer(random), ..MemoryMap::default() }
            .as_bytes()
            .to_vec(),
        16 | 17 => {
            PodTarget { target_pages: random.below(2000), domid: domid(subject, random), ..PodTarget::default() }
                .as_bytes()
                .to_vec()
        }
        28 => MemAcquireResource {
            domid: subject.neighbour + random.below(3) as u16,
            kind: random.below(3) as u16,
            id: random.below(2) as u32,
            nr_frames: random.below(3) as u32,
            frame: random.below(3),
            frame_list: pointer(random),
            ..MemAcquireResource::default()
        }
        .as_bytes()
        .to_vec(),
        _ => return None,
    };
    Some(bytes)
}

fn grant(subject: &Subject, random: &mut Random, command: u64) -> Option<Vec<u8>> {
    let reference = |random: &mut Random| random.below(8) as u32;
    let end = |random: &mut Random| {
        let u = if random.once_in(2) { u64::from(reference(random)) } else { gfn(subject, random) };
        CopyPtr { u, domid: domid(subject, random), offset: random.below(0x1010) as u16, ..CopyPtr::default() }
    };
    let one = |random: &mut Random| -> Option<Vec<u8>> {
        let bytes = match command {
            0 => MapGrantRef {
                host_addr: gfn(subject, random) << 12,
                flags: random.pick(&[2, 2, 2, 6, 0, 3]),
                gref: reference(random),
                dom: domid(subject, random),
                ..MapGrantRef::default()
            }
            .as_bytes()
            .to_vec(),
            1 => UnmapGrantRef {
                host_addr: gfn(subject, random) << 12,
                handle: random.below(8) as u32,
                ..UnmapGrantRef::default()
            }
            .as_bytes()
            .to_vec(),
            2 => SetupTable {
                dom: domid(subject, random),
                nr_frames: random.below(6) as u32,
                frame_list: pointer(random),
                ..SetupTable::default()
            }
            .as_bytes()
            .to_vec(),
            5 => {
                let (source, dest) = (end(random), end(random));
                let (len, flags) = (random.below(0x1000) as u16, random.below(4) as u16);
                GrantCopy { source, dest, len, flags, ..GrantCopy::default() }.as_bytes().to_vec()
            }
            6 => QuerySize { dom: domid(subject, random), ..QuerySize::default() }.as_bytes().to_vec(),
            8 => SetVersion { version: random.below(4) as u32 }.as_bytes().to_vec(),
            11 => SwapGrantRef { ref_a: reference(random), ref_b: reference(random), ..SwapGrantRef::default() }
                .as_bytes()
                .to_vec(),
            _ => return None,
        };
        Some(bytes)
    };
    let mut bytes = Vec::new();
    for _ in 0..6 {
        bytes.extend(one(random)?);
    }
    Some(bytes)
}

fn vcpu(subject: &Subject, random: &mut Random, command: u64) -> Option<Vec<u8>> {
    let bytes = match command {
        0 => {
            let mut context = VcpuHvmContext::new_zeroed();
            context.mode = random.below(3) as u32;
            for word in &mut context.cpu_regs {
                *word = random.pick(&[0, 1, 0x11, 0x8000_0011, 0xffff_ffff_0000_0000, 0x9b_ffff, 0x500]);
            }
            context.as_bytes().to_vec()
        }
        5 | 13 => {
            RegisterMemoryArea { addr: pointer::<u8>(random).address() + random.below(0x1000) }.as_bytes().to_vec()
        }
        6 => SetPeriodicTimer { period_ns: nanoseconds(random) }.as_bytes().to_vec(),
        8 => SetSingleshotTimer {
            timeout_abs_ns: nanoseconds(random),
            flags: random.below(2) as u32,
            ..SetSingleshotTimer::default()
        }
        .as_bytes()
        .to_vec(),
        10 => RegisterVcpuInfo {
            mfn: gfn(subject, random),
            offset: random.pick(&[0, 64, 4032, 4033, 4095, 3]),
            ..RegisterVcpuInfo::default()
        }
        .as_bytes()
        .to_vec(),
        _ => return None,
    };
    Some(bytes)
}

fn event(subject: &Subject, random: &mut Random, command: u64) -> Option<Vec<u8>> {
    let vcpu = random.below(3) as u32;
    let bytes = match command {
        0 => BindInterdomain {
            remote_dom: domid(subject, random),
            remote_port: port(random),
            ..BindInterdomain::default()
        }
        .as_bytes()
        .to_vec(),
        1 => BindVirq { virq: random.below(24) as u32, vcpu, ..BindVirq::default() }.as_bytes().to_vec(),
        3 | 4 | 9 => Port { port: port(random) }.as_bytes().to_vec(),
        5 => Status { dom: domid(subject, random), port: port(random), ..Status::default() }.as_bytes().to_vec(),
        6 => {
            AllocUnbound { dom: domid(subject, random), remote_dom: domid(subject, random), ..AllocUnbound::default() }
                .as_bytes()
                .to_vec()
        }
        7 => BindIpi { vcpu, ..BindIpi::default() }.as_bytes().to_vec(),
        8 => BindVcpu { port: port(random), vcpu }.as_bytes().to_vec(),
        10 => Reset { dom: domid(subject, random) }.as_bytes().to_vec(),
        11 => InitControl {
            control_gfn: gfn(subject, random),
            offset: random.below(64) as u32 * 64,
            vcpu,
            ..InitControl::default()
        }
        .as_bytes()
        .to_vec(),
        12 => ExpandArray { array_gfn: gfn(subject, random) }.as_bytes().to_vec(),
        13 => SetPriority { port: port(random), priority: random.below(18) as u32 }.as_bytes().to_vec(),
        _ => return None,
    };
    Some(bytes)
}

fn hvm(subject: &Subject, random: &mut Random, command: u64) -> Option<Vec<u8>> {
    let bytes = match command {
        0 | 1 => HvmParamRequest {
            domid: domid(subject, random),
            index: random.below(40) as u32,
            value: random.pick(&[0, 1, 2 << 56 | 0xf3, 1 << 56 | 9, 11, u64::MAX]),
            ..HvmParamRequest::default()
        }
        .as_bytes()
        .to_vec(),
        15 => GetMemType { domid: domid(subject, random), pfn: gfn(subject, random), ..GetMemType::default() }
            .as_bytes()
            .to_vec(),
        23 => EvtchnUpcallVector {
            vcpu: random.below(3) as u32,
            vector: random.number() as u8,
            ..EvtchnUpcallVector::default()
        }
        .as_bytes()
        .to_vec(),
        _ => return None,
    };
    Some(bytes)
}

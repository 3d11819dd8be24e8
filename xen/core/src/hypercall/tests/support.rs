//! A host with a control domain and a guest, and callers that put structures into memory and make hypercalls.

extern crate std;

use crate::domain::create::{self, Identity};
use crate::domain::{Role, Settings};
use crate::guest_mem::LinearMemory;
use crate::host::Host;
use crate::hypercall::{Caller, console_io, domctl, hvm, platform, sysctl};
use crate::outcome::{Reply, Stop};
use crate::p2m::{Entry, Kind};
use crate::time::Clock;
use crate::x86::interrupts::InterruptFlag;
use machine::fake::FakeMachine;
use machine::frame::{self, Fill, Pin};
use machine::{DomId, Gfn, Maddr, Mfn, PAGE_SHIFT, PAGE_SIZE};
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::payload::Payload;
use public_abi::platform::PlatformRequest;
use public_abi::sysctl::{Sysctl, SysctlOp};
use public_abi::{Errno, GuestPtr};
use std::cell::RefCell;
use std::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the callers' memory begins; lower addresses cannot be reached.
const BASE: u64 = 0x10_0000;
/// Its pages.
const PAGES: usize = 64;

/// Its last byte.
pub const LAST: u64 = BASE + 64 * 4096 - 1;

/// The callers' memory, one for all of them: pages of the control domain that the guest has mapped, too.
struct Arena {
    machine: FakeMachine,
    frames: Vec<Mfn>,
    used: usize,
}

std::thread_local! {
    static ARENA: RefCell<Option<Arena>> = const { RefCell::new(None) };
}

/// Calls `work` with each page of a range, the place in it, and the place in the range.
fn each_page(address: u64, length: usize, mut work: impl FnMut(&FakeMachine, Maddr, core::ops::Range<usize>)) {
    ARENA.with_borrow(|arena| {
        let arena = arena.as_ref().unwrap();
        let start = usize::try_from(address - BASE).unwrap();
        let mut done = 0;
        while done < length {
            let (page, offset) = ((start + done) / PAGE_SIZE, (start + done) % PAGE_SIZE);
            let part = (PAGE_SIZE - offset).min(length - done);
            let place = arena.frames[page].address().checked_add(offset as u64).unwrap();
            work(&arena.machine, place, done..done + part);
            done += part;
        }
    });
}

/// Reads the callers' memory.
pub fn read_arena(address: u64, out: &mut [u8]) {
    each_page(address, out.len(), |machine, place, range| assert!(machine.read_ram(place, &mut out[range])));
}

/// Writes the callers' memory.
pub fn write_arena(address: u64, bytes: &[u8]) {
    each_page(address, bytes.len(), |machine, place, range| assert!(machine.write_ram(place, &bytes[range])));
}

/// Makes the callers' memory and maps it in both domains.
fn make_arena(machine: &FakeMachine, host: &Host) {
    let mut frames = Vec::new();
    for gfn in (BASE >> PAGE_SHIFT..).take(PAGES) {
        let mfn = frame::allocate(0, frame::Kind::Guest, DomId::CONTROL, Fill::Zero).unwrap();
        for (id, kind) in [(GUEST, Kind::Foreign), (DomId::CONTROL, Kind::RamRw)] {
            // The allocation's reference goes to the owner's map, another one to the guest's.
            let shown = if kind == Kind::Foreign { Pin::take(mfn, DomId::CONTROL).unwrap().into_entry() } else { mfn };
            let domain = host.domains.get(id).unwrap();
            let mut change = domain.p2m.begin().unwrap();
            change.set(Gfn::new(gfn), Entry::with_frame(kind, 0, shown)).unwrap();
            change.commit().complete();
        }
        frames.push(mfn);
    }
    ARENA.set(Some(Arena { machine: machine.clone(), frames, used: 0 }));
}

/// Puts bytes into the callers' memory; gives their address.
pub fn put_bytes(bytes: &[u8]) -> u64 {
    let address = ARENA.with_borrow_mut(|arena| {
        let arena = arena.as_mut().unwrap();
        let start = arena.used.next_multiple_of(8);
        arena.used = start + bytes.len();
        assert!(arena.used <= PAGES * PAGE_SIZE, "the test needs more memory");
        BASE + start as u64
    });
    write_arena(address, bytes);
    address
}

/// Puts a structure into the callers' memory.
pub fn put<T: IntoBytes + Immutable>(value: &T) -> GuestPtr<T> {
    GuestPtr::from_address(put_bytes(value.as_bytes()))
}

/// Room for an array in the callers' memory, filled with a byte.
pub fn room<T>(elements: usize, fill: u8) -> GuestPtr<T> {
    GuestPtr::from_address(put_bytes(&std::vec![fill; elements * size_of::<T>()]))
}

/// Takes a structure out of the callers' memory.
pub fn take<T: FromBytes + IntoBytes>(pointer: GuestPtr<T>) -> T {
    let mut value = T::new_zeroed();
    read_arena(pointer.address(), value.as_mut_bytes());
    value
}

/// Takes an array out of the callers' memory.
pub fn take_array<T: FromBytes + IntoBytes>(pointer: GuestPtr<T>, elements: u64) -> Vec<T> {
    (0..elements).map(|index| take(pointer.element(index).unwrap())).collect()
}

/// The guest that every host has.
pub const GUEST: DomId = DomId(1);
/// A number that no domain has.
pub const NOBODY: u16 = 77;

/// A machine with 2 CPUs at 2 GHz, and its host.
pub struct World {
    /// The machine.
    pub machine: FakeMachine,
    /// The hypervisor's state.
    pub host: Host,
}

fn settings(role: Role) -> Settings {
    Settings {
        role,
        max_vcpus: 2,
        max_port: 1023,
        max_grant_frames: 64,
        max_maptrack_frames: 1024,
        max_grant_version: 2,
        flags: 3,
        emulation: 1,
        identity_mapped: role == Role::Control,
    }
}

/// Runs a test as CPU 0 of a new machine whose host has the control domain and domain 1, with two vCPUs each.
pub fn with_world(test: impl FnOnce(&World)) {
    let machine = FakeMachine::builder().pages(4096).cpus(2).timestamp_khz(2_000_000).build();
    let inside = machine.clone();
    inside.on_cpu(0, || {
        let mut host = crate::host::testing::host(2, 16, Clock::start());
        host.platform.command_line = "loglvl=all dom0_mem=1G".try_into().unwrap();
        for (id, role) in [(0, Role::Control), (1, Role::Guest)] {
            let identity = Identity { wanted: Some(DomId(id)), handle: [u8::try_from(id).unwrap(); 16], misc_flags: 0 };
            create::create(&host, settings(role), identity).unwrap();
            create::allocate_vcpus(&host, &host.domains.get(DomId(id)).unwrap()).unwrap();
        }
        make_arena(&machine, &host);
        test(&World { machine, host });
    });
}

impl World {
    /// Makes a hypercall as vCPU 0 of a domain.
    pub fn call(&self, id: DomId, work: impl FnOnce(&Caller<'_>) -> Reply) -> Reply {
        let domain = self.host.domains.get(id).unwrap();
        let vcpu = domain.vcpu(0).unwrap();
        // As the run loop does for as long as the vCPU is on its CPU.
        let hardware = vcpu.hardware.try_lock().unwrap();
        let memory = LinearMemory::new(&domain, &hardware);
        work(&Caller { host: &self.host, domain: &domain, vcpu, memory, interrupts: InterruptFlag::Set })
    }

    /// domctl with a request as it is; gives the answer and the request afterwards.
    pub fn domctl_raw(&self, id: DomId, request: &Domctl) -> (Reply, Domctl) {
        let pointer = put(request);
        (self.call(id, |caller| domctl::handle(caller, pointer.cast())), take(pointer))
    }

    /// domctl of the control domain, with parameters; gives those afterwards.
    pub fn domctl<T: Payload<Domctl> + Copy>(&self, operation: DomctlOp, id: u16, parameters: T) -> Result<T, Stop> {
        let request = Domctl::with(operation, id, &parameters).unwrap();
        let (reply, request) = self.domctl_raw(DomId::CONTROL, &request);
        reply.map(|_| request.get().unwrap())
    }

    /// domctl of the control domain without parameters.
    pub fn domctl_plain(&self, operation: DomctlOp, id: u16) -> Reply {
        self.domctl_raw(DomId::CONTROL, &Domctl::new(operation, id)).0
    }

    /// sysctl with a request as it is.
    pub fn sysctl_raw(&self, id: DomId, request: &Sysctl) -> (Reply, Sysctl) {
        let pointer = put(request);
        (self.call(id, |caller| sysctl::handle(caller, pointer.cast())), take(pointer))
    }

    /// sysctl of the control domain, with parameters; gives those afterwards, also after an error.
    pub fn sysctl<T: Payload<Sysctl> + Copy>(&self, operation: SysctlOp, parameters: T) -> (Reply, T) {
        let request = Sysctl::with(operation, &parameters).unwrap();
        let (reply, request) = self.sysctl_raw(DomId::CONTROL, &request);
        (reply, request.get().unwrap())
    }

    /// platform_op with a request as it is.
    pub fn platform_raw(&self, id: DomId, request: &PlatformRequest) -> (Reply, PlatformRequest) {
        let pointer = put(request);
        (self.call(id, |caller| platform::handle(caller, pointer.cast())), take(pointer))
    }

    /// hvm_op.
    pub fn hvm<T: IntoBytes + FromBytes + Immutable>(&self, id: DomId, command: u64, value: &T) -> (Reply, T) {
        let pointer = put(value);
        (self.call(id, |caller| hvm::handle(caller, command, pointer.cast())), take(pointer))
    }

    /// console_io.
    pub fn console(&self, id: DomId, command: u32, count: u32, buffer: GuestPtr<u8>) -> Reply {
        self.call(id, |caller| console_io::handle(caller, command, count, buffer.cast()))
    }
}

/// A hypercall's error.
pub fn error(errno: Errno) -> Reply {
    Err(Stop::Error(errno))
}

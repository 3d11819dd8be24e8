//! A host with a control domain and a guest, and callers that put structures into memory and make hypercalls.

extern crate std;

use crate::boot::Platform;
use crate::domain::console::Console;
use crate::domain::create::{self, Identity};
use crate::domain::{Role, Settings};
use crate::guest_mem::LinearMemory;
use crate::host::{Cpu, DomainTable, Host};
use crate::hypercall::{Caller, console_io, domctl, hvm, platform, sysctl};
use crate::outcome::{Reply, Stop};
use machine::DomId;
use machine::fake::FakeMachine;
use machine::lock::Lock;
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

std::thread_local! {
    /// The callers' memory, one for all.
    static ARENA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn with_range<R>(address: u64, length: usize, work: impl FnOnce(&mut [u8]) -> R) -> Result<R, Errno> {
    ARENA.with_borrow_mut(|arena| {
        let start = address.checked_sub(BASE).and_then(|start| usize::try_from(start).ok()).ok_or(Errno::EFAULT)?;
        let end = start.checked_add(length).ok_or(Errno::EFAULT)?;
        arena.get_mut(start..end).map(work).ok_or(Errno::EFAULT)
    })
}

/// Reads the callers' memory.
pub fn read_arena(address: u64, out: &mut [u8]) -> Result<(), Errno> {
    with_range(address, out.len(), |range| out.copy_from_slice(range))
}

/// Writes the callers' memory.
pub fn write_arena(address: u64, bytes: &[u8]) -> Result<(), Errno> {
    with_range(address, bytes.len(), |range| range.copy_from_slice(bytes))
}

/// Puts bytes into the callers' memory; gives their address.
pub fn put_bytes(bytes: &[u8]) -> u64 {
    ARENA.with_borrow_mut(|arena| {
        arena.resize(arena.len().next_multiple_of(8), 0);
        let address = BASE + u64::try_from(arena.len()).unwrap();
        arena.extend_from_slice(bytes);
        address
    })
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
    read_arena(pointer.address(), value.as_mut_bytes()).unwrap();
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
        ARENA.with_borrow_mut(Vec::clear);
        let cpu = || Cpu { queue: Lock::new(Default::default()), timers: Lock::new(Default::default()) };
        let host = Host {
            domains: DomainTable::try_new().unwrap(),
            cpus: std::vec![cpu(), cpu()],
            platform: Platform { command_line: "loglvl=all dom0_mem=1G".try_into().unwrap() },
            console: Console::new(),
        };
        for (id, role) in [(0, Role::Control), (1, Role::Guest)] {
            let identity = Identity { wanted: Some(DomId(id)), handle: [u8::try_from(id).unwrap(); 16], misc_flags: 0 };
            create::create(&host, settings(role), identity).unwrap();
            create::allocate_vcpus(&host, &host.domains.get(DomId(id)).unwrap()).unwrap();
        }
        test(&World { machine, host });
    });
}

impl World {
    /// Makes a hypercall as vCPU 0 of a domain.
    pub fn call(&self, id: DomId, work: impl FnOnce(&Caller<'_>) -> Reply) -> Reply {
        let domain = self.host.domains.get(id).unwrap();
        let memory = LinearMemory { domain: &domain };
        work(&Caller { host: &self.host, domain: &domain, vcpu: domain.vcpu(0).unwrap(), memory })
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

//! A small host on the fake machine, for tests of memory and of what stands on it.

extern crate std;

use crate::domain::{Domain, Role, Settings};
use crate::fault::{self, Handled};
use crate::host::Host;
use crate::p2m::{Door, NeedsFlush};
use core::sync::atomic::Ordering;
use machine::boxed::Boxed;
use machine::exit::{Access, Exit, X86Exit};
use machine::fake::FakeMachine;
use machine::iommu::{Iommu, Maker, UnitFlags};
use machine::vcpu::Vcpu;
use machine::{DomId, Maddr, cpu};
use std::sync::{Arc, Mutex};

/// Settings of an ordinary guest.
pub(crate) fn settings() -> Settings {
    Settings {
        role: Role::Guest,
        max_vcpus: 1,
        max_port: 1023,
        max_grant_frames: 32,
        max_maptrack_frames: 32,
        max_grant_version: 1,
        flags: 0,
        emulation: 0,
        identity_mapped: false,
    }
}

/// Settings of a 1:1 control domain.
pub(crate) fn control_settings() -> Settings {
    Settings { role: Role::Control, identity_mapped: true, ..settings() }
}

/// A host without domains. To be called on a CPU of the fake machine.
pub(crate) fn host() -> Host {
    crate::host::testing::host(1, 64, crate::time::Clock::new(0, 1_000_000, 0))
}

/// A domain that may have `max_pages`, alive.
pub(crate) fn domain(id: u16, settings: Settings, max_pages: u64) -> Domain {
    let domain = Domain::try_new(DomId(id), settings).unwrap();
    domain.accounting.max_pages.store(max_pages, Ordering::Relaxed);
    domain
}

/// Where the fake machine's IOMMU has its registers, and its function.
pub(crate) const IOMMU: (u64, u16) = (0xfed8_0000, 0x0010);

/// The machine's IOMMU, set up but still off. To be called on a CPU of the fake machine.
pub(crate) fn iommu(machine: &FakeMachine, maker: Maker) -> &'static Iommu {
    match maker {
        Maker::Amd => machine.add_iommu(IOMMU.0, IOMMU.1),
        Maker::Intel => machine.add_intel_iommu(IOMMU.0),
    }
    let mut iommu = Iommu::try_new(maker, std::vec::Vec::new()).unwrap();
    iommu.add(Maddr::new(IOMMU.0), UnitFlags::default()).unwrap();
    Boxed::try_new(iommu).unwrap().leak()
}

/// Puts a domain into a host's table.
pub(crate) fn insert(host: &Host, domain: Domain) {
    assert!(host.domains.insert(Boxed::try_new(domain).unwrap()).is_ok());
}

/// Entries that one access may take: faults that are cured, and interrupts.
const MOST_ENTRIES: usize = 10_000;

/// A guest's processor: keeps its stale translations between accesses, as a real one would.
pub(crate) struct GuestCpu {
    machine: FakeMachine,
    hardware: Vcpu,
    seen: u64,
    domain: DomId,
    vcpu: u16,
}

impl GuestCpu {
    /// A processor of a domain, run by the current CPU.
    pub(crate) fn new(machine: &FakeMachine, domain: &Domain) -> Self {
        Self::of_vcpu(machine, domain, 0)
    }

    /// As [`GuestCpu::new`], with a number of its own among those of the domain.
    pub(crate) fn of_vcpu(machine: &FakeMachine, domain: &Domain, vcpu: u16) -> Self {
        let hardware = Vcpu::try_new(domain.id, domain.p2m.root()).unwrap();
        Self { machine: machine.clone(), hardware, seen: 0, domain: domain.id, vcpu }
    }

    /// The guest reads a word, or writes one and reads it back. Faults are handled as the run loop does.
    ///
    /// # Errors
    /// The fault, and what became of it, if the access did not get through.
    pub(crate) fn access(&mut self, domain: &Domain, gpa: u64, write: Option<u64>) -> Result<u64, (Access, Handled)> {
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        self.machine.script_vcpu(self.domain, self.vcpu, move |guest| {
            if let Some(value) = write {
                guest.write_u64(gpa, value)?;
            }
            let value = guest.read_u64(gpa)?;
            *place.lock().unwrap() = Some(value);
            Ok(Exit::X86(X86Exit::Cpuid))
        });
        cpu::set_working_for(self.domain, self.vcpu);
        for _ in 0..MOST_ENTRIES {
            match self.run(domain) {
                Exit::X86(X86Exit::Cpuid) => return Ok(result.lock().unwrap().unwrap()),
                Exit::Stage2Fault(access) => {
                    let handled = fault::handle(domain, &access, |_| false);
                    if handled != Handled::Resume {
                        // The instruction is emulated or never finished: the script goes on behind it.
                        self.hardware.guest_mut().rip += 1;
                        while self.run(domain) == Exit::Interrupt {
                            cpu::take_work();
                        }
                        return Err((access, handled));
                    }
                }
                Exit::Interrupt => {
                    cpu::take_work();
                }
                exit => panic!("{exit:?}"),
            }
        }
        panic!("the access at {gpa:#x} never gets through");
    }

    /// The guest writes the same word many times in a row without leaving by itself. Says whether all got through.
    pub(crate) fn hammer(&mut self, domain: &Domain, gpa: u64, times: u32) -> bool {
        let mut left = times;
        self.machine.script_vcpu(self.domain, self.vcpu, move |guest| {
            while left > 0 {
                guest.write_u64(gpa, u64::from(left))?;
                left -= 1;
            }
            Ok(Exit::X86(X86Exit::Cpuid))
        });
        cpu::set_working_for(self.domain, self.vcpu);
        loop {
            match self.run(domain) {
                Exit::X86(X86Exit::Cpuid) => return true,
                Exit::Interrupt => {
                    cpu::take_work();
                }
                Exit::Stage2Fault(access) => {
                    if fault::handle(domain, &access, |_| false) != Handled::Resume {
                        self.hardware.guest_mut().rip += 1;
                        while self.run(domain) == Exit::Interrupt {
                            cpu::take_work();
                        }
                        return false;
                    }
                }
                exit => panic!("{exit:?}"),
            }
        }
    }

    /// Enters once, by the protocol of the run loop.
    pub(crate) fn run(&mut self, domain: &Domain) -> Exit {
        let door = domain.p2m.door(cpu::current()).expect("the machine has started this CPU");
        if door.enter(&mut self.seen) == NeedsFlush::Yes {
            self.hardware.flush_translations();
        }
        let _inside = Inside(door);
        self.hardware.run()
    }
}

/// Leaves the guest even when the fake machine has found an error, so that the flusher does not wait for ever.
struct Inside<'a>(Door<'a>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Makes hypercalls for a domain whose pages 0 to 15 are RAM, with linear addresses equal to physical ones.
pub(crate) struct TestCaller<'a> {
    host: &'a Host,
    domain: &'a Domain,
    pub(crate) vcpu: crate::vcpu::Vcpu,
}

impl<'a> TestCaller<'a> {
    /// A caller of a domain that needs no RAM there yet, or has it.
    pub(crate) fn new(host: &'a Host, domain: &'a Domain) -> Self {
        for page in 0..16 {
            let gfn = machine::Gfn::new(page);
            if domain.p2m.lookup(gfn).kind == crate::p2m::Kind::Hole {
                crate::memory::populate(host, domain, gfn, 0).unwrap();
            }
        }
        Self { host, domain, vcpu: crate::vcpu::Vcpu::try_new(domain.id, 0, domain.p2m.root()).unwrap() }
    }

    /// Makes one call with an argument structure at 0x1000, and gives its answer and the structure afterwards.
    pub(crate) fn call<T>(&self, command: u64, argument: &T) -> (crate::outcome::Reply, T)
    where
        T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
    {
        let pointer = public_abi::GuestPtr::<T>::from_address(0x1000);
        self.with(|caller| {
            caller.memory.write(pointer, argument).unwrap();
            let reply = crate::hypercall::memory::memory_op(caller, command, pointer.cast());
            (reply, caller.memory.read(pointer).unwrap())
        })
    }

    /// Does something as the caller.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&crate::hypercall::Caller<'_>) -> R) -> R {
        let hardware = self.vcpu.hardware.try_lock().unwrap();
        work(&crate::hypercall::Caller {
            host: self.host,
            domain: self.domain,
            vcpu: &self.vcpu,
            memory: crate::guest_mem::LinearMemory::new(self.domain, &hardware),
            interrupts: crate::x86::interrupts::InterruptFlag::Set,
        })
    }

    /// Writes an array of 64-bit numbers at an address.
    pub(crate) fn list(&self, address: u64, values: &[u64]) -> public_abi::GuestPtr<u64> {
        let pointer = public_abi::GuestPtr::from_address(address);
        self.with(|caller| {
            for (value, index) in values.iter().zip(0u64..) {
                caller.memory.write_at(pointer, index, value).unwrap();
            }
        });
        pointer
    }
}

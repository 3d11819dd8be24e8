//! A small host on the fake machine, for tests of memory and of what stands on it.

extern crate std;

use crate::boot::Platform;
use crate::domain::{Domain, Role, Settings};
use crate::fault::{self, Handled};
use crate::host::{DomainTable, Host};
use crate::p2m::NeedsFlush;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use machine::boxed::Boxed;
use machine::exit::{Access, Exit, X86Exit};
use machine::fake::FakeMachine;
use machine::vcpu::Vcpu;
use machine::{CpuId, DomId, cpu};
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
    Host {
        domains: DomainTable::try_new().unwrap(),
        cpus: Vec::new(),
        clock: crate::time::Clock::new(0, 1_000_000, 0),
        virq_handlers: crate::event::VirqHandlers::new(),
        platform: Platform { command_line: machine::boot_info::CommandLine::new() },
    }
}

/// A domain that may have `max_pages`, alive.
pub(crate) fn domain(id: u16, settings: Settings, max_pages: u64) -> Domain {
    let domain = Domain::try_new(DomId(id), settings).unwrap();
    domain.accounting.max_pages.store(max_pages, Ordering::Relaxed);
    domain
}

/// Puts a domain into a host's table.
pub(crate) fn insert(host: &Host, domain: Domain) {
    assert!(host.domains.insert(Boxed::try_new(domain).unwrap()).is_ok());
}

/// A guest's processor: keeps its stale translations between accesses, as a real one would.
pub(crate) struct GuestCpu {
    machine: FakeMachine,
    hardware: Vcpu,
    seen: u64,
    domain: DomId,
}

impl GuestCpu {
    /// A processor of a domain, run by the current CPU.
    pub(crate) fn new(machine: &FakeMachine, domain: &Domain) -> Self {
        let hardware = Vcpu::try_new(domain.p2m.root()).unwrap();
        Self { machine: machine.clone(), hardware, seen: 0, domain: domain.id }
    }

    /// The guest reads a word, or writes one and reads it back. Faults are handled as the run loop does.
    ///
    /// # Errors
    /// The fault, and what became of it, if the access did not get through.
    pub(crate) fn access(&mut self, domain: &Domain, gpa: u64, write: Option<u64>) -> Result<u64, (Access, Handled)> {
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        self.machine.script_vcpu(self.domain, 0, move |guest| {
            if let Some(value) = write {
                guest.write_u64(gpa, value)?;
            }
            let value = guest.read_u64(gpa)?;
            *place.lock().unwrap() = Some(value);
            Ok(Exit::X86(X86Exit::Cpuid))
        });
        cpu::set_working_for(self.domain, 0);
        for _ in 0..8 {
            match self.run(domain) {
                Exit::X86(X86Exit::Cpuid) => return Ok(result.lock().unwrap().unwrap()),
                Exit::Stage2Fault(access) => {
                    let handled = fault::handle(domain, &access);
                    if handled != Handled::Resume {
                        // The instruction is emulated or never finished: the script goes on behind it.
                        self.hardware.vmcb_mut().rip += 1;
                        assert_eq!(self.run(domain), Exit::Halt);
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

    /// Enters once, by the protocol of the run loop.
    pub(crate) fn run(&mut self, domain: &Domain) -> Exit {
        let me: CpuId = cpu::current();
        if domain.p2m.enter(me, &mut self.seen) == NeedsFlush::Yes {
            self.hardware.flush_translations();
        }
        let exit = self.hardware.run();
        domain.p2m.leave(me);
        exit
    }
}

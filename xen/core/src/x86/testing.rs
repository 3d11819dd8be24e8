//! A host with one domain on a fake machine, for the tests of this module.

use crate::domain::{Domain, Role, Settings};
use crate::host::Host;
use crate::vcpu::Vcpu;
use machine::DomId;
use machine::fake::FakeMachine;
use std::vec::Vec;

/// What a domain of the test has.
pub fn settings(role: Role, max_vcpus: u32) -> Settings {
    Settings {
        role,
        max_vcpus,
        max_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        max_grant_version: 1,
        flags: 0,
        emulation: 1,
        identity_mapped: false,
    }
}

/// Runs `work` on CPU 0 of a new machine, with a host and a domain of this role that has this many vCPUs.
pub fn with_domain(role: Role, vcpus: u32, work: impl FnOnce(&FakeMachine, &Host, &Domain)) {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        let host = crate::host::testing::host(1, 64, crate::time::Clock::start());
        let domain = Domain::try_new(DomId(3), settings(role, vcpus)).unwrap();
        let root = domain.p2m.root();
        domain
            .vcpus
            .call_once(|| (0..vcpus).map(|index| Vcpu::try_new(domain.id, index, root).unwrap()).collect::<Vec<_>>());
        work(&machine, &host, &domain);
    });
}

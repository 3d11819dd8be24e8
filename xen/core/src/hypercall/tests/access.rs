//! Who may ask: every number of every control hypercall, from a domain without privileges.

use super::support::{GUEST, NOBODY, error, put, with_world};
use crate::hypercall::{domctl, physdev, platform, sysctl, xsm};
use machine::DomId;
use machine::fake::FakeFunction;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::physdev::{PciDeviceAdd, PhysdevOp};
use public_abi::platform::{PlatformOp, PlatformRequest};
use public_abi::sysctl::{Sysctl, SysctlOp};
use public_abi::{Errno, GuestPtr};

/// Xen 4.17's answer to a guest for a request whose parameters are all zero. Requests about hardware have their numbers
/// checked first, and without an IOMMU nobody is asked who he is (common/domctl.c, arch/x86/domctl.c).
fn xen_answers(operation: DomctlOp) -> Errno {
    match operation {
        DomctlOp::IoportPermission | DomctlOp::IoportMapping | DomctlOp::MemoryMapping => Errno::EINVAL,
        DomctlOp::GetDeviceGroup => Errno::EOPNOTSUPP,
        _ => Errno::EPERM,
    }
}

#[test]
fn every_domctl_is_refused_to_a_guest() {
    with_world(|world| {
        for operation in DomctlOp::ALL {
            for domain in [GUEST.0, 0] {
                let (reply, after) = world.domctl_raw(GUEST, &Domctl::new(*operation, domain));
                let expected = if *operation == DomctlOp::SetTarget && domain == 0 {
                    // Its own target: the control domain cannot serve itself.
                    Errno::EINVAL
                } else {
                    xen_answers(*operation)
                };
                assert_eq!(reply, error(expected), "{} on domain {domain}", operation.name());
                assert_eq!(after, Domctl::new(*operation, domain), "{} leaves the request alone", operation.name());
            }
        }
    });
}

#[test]
fn a_domain_that_is_not_there_comes_before_privileges() {
    with_world(|world| {
        for operation in DomctlOp::ALL {
            let (reply, _) = world.domctl_raw(GUEST, &Domctl::new(*operation, NOBODY));
            let expected = match operation {
                DomctlOp::CreateDomain => Errno::EPERM,
                _ => Errno::ESRCH,
            };
            assert_eq!(reply, error(expected), "{}", operation.name());
        }
    });
}

#[test]
fn every_sysctl_and_platform_op_is_refused_to_a_guest() {
    with_world(|world| {
        for operation in SysctlOp::ALL {
            let request = Sysctl::new(*operation);
            assert_eq!(world.sysctl_raw(GUEST, &request), (error(Errno::EPERM), request), "{}", operation.name());
        }
        for operation in PlatformOp::ALL {
            let request = PlatformRequest::new(*operation);
            assert_eq!(world.platform_raw(GUEST, &request), (error(Errno::EPERM), request), "{}", operation.name());
        }
    });
}

#[test]
fn physdev_and_xsm_do_not_exist_for_a_guest() {
    with_world(|world| {
        let argument = put(&[0_u64; 8]);
        for operation in PhysdevOp::ALL {
            let reply = world.call(GUEST, |caller| physdev::handle(caller, operation.number(), argument.cast()));
            assert_eq!(reply, error(Errno::ENOSYS), "{}", operation.name());
        }
        assert_eq!(xsm::handle(), error(Errno::ENOSYS));
    });
}

#[test]
fn the_control_domain_may_report_functions_that_exist() {
    with_world(|world| {
        world.machine.add_function(0, FakeFunction::new(0x29c0_8086, 0x0600_0000));
        world.machine.add_function(0x0010, FakeFunction::new(0x1234_11e8, 0x00ff_0000));
        let call = |operation: PhysdevOp, seg: u16, bus: u8, devfn: u8| {
            let argument = put(&PciDeviceAdd { seg, bus, devfn, ..PciDeviceAdd::default() }).cast();
            world.call(DomId::CONTROL, |caller| physdev::handle(caller, operation.number(), argument))
        };
        let (add, remove) = (PhysdevOp::PciDeviceAdd, PhysdevOp::PciDeviceRemove);
        assert_eq!((call(add, 0, 0, 0), call(add, 0, 0, 0x10), call(add, 0, 0, 0x10)), (Ok(0), Ok(0), Ok(0)));
        for (segment, bus, devfn) in [(0, 0, 1), (0, 0, 0xf8), (0, 1, 0), (1, 0, 0)] {
            assert_eq!(call(add, segment, bus, devfn), error(Errno::ENODEV));
        }
        assert_eq!((call(remove, 0, 0, 0x10), call(remove, 0, 0, 0x10)), (Ok(0), error(Errno::ENODEV)));
    });
}

#[test]
fn the_console_is_the_control_domains() {
    with_world(|world| {
        let text = put(b"text").cast();
        for command in 0..4 {
            assert_eq!(world.console(GUEST, command, 4, text), error(Errno::EPERM));
        }
        assert_eq!(world.console(DomId::CONTROL, 2, 4, text), error(Errno::ENOSYS));
        assert!(!world.machine.console().contains("text"));
    });
}

#[test]
fn pointers_come_first_and_versions_second() {
    with_world(|world| {
        for id in [DomId::CONTROL, GUEST] {
            for address in [0, 8, 1 << 60, u64::MAX - 3] {
                let pointer = GuestPtr::from_address(address);
                assert_eq!(world.call(id, |caller| domctl::handle(caller, pointer)), error(Errno::EFAULT));
                assert_eq!(world.call(id, |caller| sysctl::handle(caller, pointer)), error(Errno::EFAULT));
                assert_eq!(world.call(id, |caller| platform::handle(caller, pointer)), error(Errno::EFAULT));
            }
            let domctl = Domctl { interface_version: 0x14, ..Domctl::new(DomctlOp::PauseDomain, NOBODY) };
            assert_eq!(world.domctl_raw(id, &domctl).0, error(Errno::EACCES));
            let sysctl = Sysctl { interface_version: 0x16, ..Sysctl::new(SysctlOp::PhysInfo) };
            assert_eq!(world.sysctl_raw(id, &sysctl).0, error(Errno::EACCES));
            let platform = PlatformRequest { interface_version: 3, ..PlatformRequest::new(PlatformOp::GetCpuInfo) };
            assert_eq!(world.platform_raw(id, &platform).0, error(Errno::EACCES));
        }
    });
}

#[test]
fn unknown_numbers_come_last() {
    with_world(|world| {
        for cmd in [0, 6, 87, 90, 999, u32::MAX] {
            let request = |domain| Domctl { cmd, ..Domctl::new(DomctlOp::PauseDomain, domain) };
            assert_eq!(world.domctl_raw(GUEST, &request(GUEST.0)).0, error(Errno::EPERM), "domctl {cmd}");
            assert_eq!(world.domctl_raw(DomId::CONTROL, &request(GUEST.0)).0, error(Errno::ENOSYS), "domctl {cmd}");
            assert_eq!(world.domctl_raw(DomId::CONTROL, &request(NOBODY)).0, error(Errno::ESRCH), "domctl {cmd}");
        }
        for cmd in [0, 13, 24, 28, 30, u32::MAX] {
            let request = Sysctl { cmd, ..Sysctl::new(SysctlOp::PhysInfo) };
            assert_eq!(world.sysctl_raw(GUEST, &request).0, error(Errno::EPERM), "sysctl {cmd}");
            assert_eq!(world.sysctl_raw(DomId::CONTROL, &request).0, error(Errno::ENOSYS), "sysctl {cmd}");
        }
        for cmd in [0, 64, u32::MAX] {
            let request = PlatformRequest { cmd, ..PlatformRequest::new(PlatformOp::GetCpuInfo) };
            assert_eq!(world.platform_raw(DomId::CONTROL, &request).0, error(Errno::ENOSYS), "platform {cmd}");
        }
    });
}

/// No request with zeroes in it may bring the hypervisor down or succeed without doing anything that is known of.
#[test]
fn the_control_domain_gets_an_answer_to_everything() {
    with_world(|world| {
        let harmless = [
            DomctlOp::CreateDomain,
            DomctlOp::DestroyDomain,
            DomctlOp::PauseDomain,
            DomctlOp::GetDomainInfo,
            DomctlOp::UnpauseDomain,
        ];
        for operation in DomctlOp::ALL.iter().filter(|operation| !harmless.contains(operation)) {
            let (reply, _) = world.domctl_raw(DomId::CONTROL, &Domctl::new(*operation, GUEST.0));
            assert!(!matches!(reply, Err(crate::outcome::Stop::Crash(_))), "{}", operation.name());
        }
        for operation in SysctlOp::ALL {
            let (reply, _) = world.sysctl_raw(DomId::CONTROL, &Sysctl::new(*operation));
            assert!(!matches!(reply, Err(crate::outcome::Stop::Crash(_))), "{}", operation.name());
        }
        for operation in PlatformOp::ALL {
            let (reply, _) = world.platform_raw(DomId::CONTROL, &PlatformRequest::new(*operation));
            assert!(!matches!(reply, Err(crate::outcome::Stop::Crash(_))), "{}", operation.name());
        }
    });
}

//! Tests of `create.rs`: which configurations are refused, and with which of Xen's errors.

use super::*;
use public_abi::domctl_domain::ArchDomainConfig;

/// What libxl 4.17 asks for to make a PVH guest with two vCPUs.
fn pvh() -> CreateDomain {
    CreateDomain {
        flags: (CreateDomainFlags::HVM | CreateDomainFlags::HAP).bits(),
        max_vcpus: 2,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 2,
        arch: ArchDomainConfig { emulation_flags: EmulationFlags::PVH.bits(), misc_flags: 0 },
        ..CreateDomain::default()
    }
}

#[test]
fn a_pvh_guest_gets_defaults_for_what_is_negative() {
    let settings = sanitise(&pvh()).unwrap();
    assert_eq!(settings.role, Role::Guest);
    assert_eq!((settings.max_vcpus, settings.max_port), (2, 1023));
    assert_eq!((settings.max_grant_frames, settings.max_maptrack_frames), (64, 1024));
    assert_eq!(settings.max_grant_version, 2);
}

#[test]
fn each_bad_field_is_named() {
    let hvm_hap = pvh().flags;
    type Change = fn(&mut CreateDomain);
    let cases: &[(Change, Errno, &str)] = &[
        (|c| c.flags |= 1 << 20, Errno::EINVAL, "flags"),
        (|c| c.grant_opts = 0x102, Errno::EINVAL, "grant_opts"),
        (|c| c.max_vcpus = 0, Errno::EINVAL, "max_vcpus"),
        (|c| c.max_vcpus = 129, Errno::EINVAL, "max_vcpus"),
        (|c| c.flags = 2, Errno::EINVAL, "flags"),
        (|c| c.flags = 0, Errno::EINVAL, "flags"),
        (|c| c.flags = 1, Errno::EINVAL, "flags"),
        (|c| c.flags |= 1 << 5, Errno::EINVAL, "flags"),
        (|c| c.flags |= 1 << 6, Errno::EINVAL, "flags"),
        (|c| c.flags |= 1 << 7, Errno::EINVAL, "flags"),
        (|c| c.flags |= 1 << 2, Errno::EINVAL, "flags"),
        (|c| c.iommu_opts = 1, Errno::EINVAL, "iommu_opts"),
        (|c| c.vmtrace_size = 4096, Errno::EINVAL, "vmtrace_size"),
        (|c| c.arch.misc_flags = 2, Errno::EINVAL, "arch.misc_flags"),
        (|c| c.arch.emulation_flags = 1 << 11, Errno::EINVAL, "arch.emulation_flags"),
        (|c| c.arch.emulation_flags = 0, Errno::EOPNOTSUPP, "arch.emulation_flags"),
        (|c| c.arch.emulation_flags = 0x3ff, Errno::EOPNOTSUPP, "arch.emulation_flags"),
        (|c| c.arch.emulation_flags = 3, Errno::EOPNOTSUPP, "arch.emulation_flags"),
        (|c| c.grant_opts = 0, Errno::EINVAL, "grant_opts"),
        (|c| c.grant_opts = 3, Errno::EINVAL, "grant_opts"),
        (|c| c.max_grant_frames = 0, Errno::EINVAL, "max_grant_frames"),
        (|c| c.max_grant_frames = 65, Errno::EINVAL, "max_grant_frames"),
        (|c| c.max_maptrack_frames = 1025, Errno::EINVAL, "max_maptrack_frames"),
        (|c| c.cpupool_id = 1, Errno::ESRCH, "cpupool_id"),
    ];
    for (number, (change, errno, field)) in cases.iter().enumerate() {
        let mut config = pvh();
        change(&mut config);
        let refusal = sanitise(&config).expect_err("case is refused");
        assert_eq!((refusal.errno, refusal.field), (*errno, *field), "case {number}: {refusal:?}");
    }
    assert_eq!(hvm_hap, 3);
}

#[test]
fn what_xl_may_add_is_accepted() {
    let mut config = pvh();
    config.flags |= (CreateDomainFlags::OOS_OFF | CreateDomainFlags::XS_DOMAIN).bits();
    config.max_maptrack_frames = 0;
    config.max_grant_frames = 1;
    config.grant_opts = 1;
    config.arch.misc_flags = X86_MSR_RELAXED;
    config.ssidref = 7;
    config.max_evtchn_port = u32::MAX;
    let settings = sanitise(&config).unwrap();
    assert_eq!((settings.max_grant_frames, settings.max_maptrack_frames, settings.max_grant_version), (1, 0, 1));
    assert_eq!(settings.max_port, 0x7fff_ffff);
}

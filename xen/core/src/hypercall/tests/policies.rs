//! CPU policies and featuresets: the host's, and what a toolstack does with them.

use super::support::{GUEST, World, error, put, room, take_array, with_world};
use machine::DomId;
use public_abi::cpu_policy::{CpuidLeaf, MsrEntry};
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_vcpu::CpuPolicy;
use public_abi::sysctl::{CpuFeatureset, SysctlCpuPolicy, SysctlOp};
use public_abi::{Errno, GuestPtr};

/// An EPYC-like processor, as far as policies look.
fn processor(world: &World) {
    let leaves: &[(u32, u32, [u32; 4])] = &[
        (0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x0080_0f12, 0, 0x7e98_3203, 0x178b_fbff]),
        (4, 0, [0; 4]),
        (7, 0, [0, 0x209c_01a9, 0, 0]),
        (0xb, 0, [0; 4]),
        (0xd, 0, [7, 832, 832, 0]),
        (0xd, 1, [0xf, 832, 0, 0]),
        (0xd, 2, [256, 576, 0, 0]),
        (0x8000_0000, 0, [0x8000_0008, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x0080_0f12, 0, 0x0000_01f3, 0x2fd3_fbff]),
        (0x8000_0008, 0, [0x3030, 0, 0, 0]),
    ];
    for (leaf, subleaf, registers) in leaves {
        world.machine.set_cpuid(*leaf, *subleaf, *registers);
    }
}

#[test]
fn featuresets_say_how_long_they_are() {
    with_world(|world| {
        processor(world);
        let ask = |index, nr_features, features| {
            world.sysctl(SysctlOp::GetCpuFeatureset, CpuFeatureset { index, nr_features, features })
        };
        let (reply, set) = ask(0, 0, GuestPtr::NULL);
        assert_eq!((reply, set.nr_features), (Ok(0), 19));
        let words = room::<u32>(32, 0xee);
        let (reply, set) = ask(0, 32, words);
        assert_eq!((reply, set.nr_features), (Ok(0), 19));
        assert_eq!(take_array(words, 4), [0x178b_fbff, 0x7e98_3203, 0x2fd3_fbff, 0x1f3]);
        let raw = take_array(words, 19);
        assert_eq!(ask(5, 32, words).0, Ok(0));
        let guests = take_array(words, 19);
        assert_ne!(guests, raw, "guests are not given everything");
        assert!(guests[0] != 0 && guests[1] & 1 << 31 != 0, "and know that there is a hypervisor: {guests:x?}");
        let (reply, set) = ask(1, 4, words);
        assert_eq!((reply, set.nr_features), (error(Errno::ENOBUFS), 4), "written back all the same");
        assert_eq!(ask(2, 32, words).0, error(Errno::EOPNOTSUPP), "no PV");
        assert_eq!(ask(6, 32, words).0, error(Errno::EINVAL));
    });
}

#[test]
fn policies_are_listed_and_taken_back() {
    with_world(|world| {
        processor(world);
        let (reply, sizes) = world.sysctl(SysctlOp::GetCpuPolicy, SysctlCpuPolicy { index: 5, ..Default::default() });
        assert_eq!((reply, sizes.nr_leaves, sizes.nr_msrs), (Ok(0), 120, 2));
        let (leaves, msrs) = (room::<CpuidLeaf>(120, 0xee), room::<MsrEntry>(2, 0xee));
        let host = SysctlCpuPolicy { leaves, msrs, ..sizes };
        let (reply, host) = world.sysctl(SysctlOp::GetCpuPolicy, host);
        assert_eq!(reply, Ok(0));
        assert!(take_array(leaves, u64::from(host.nr_leaves)).is_sorted_by_key(|leaf| (leaf.leaf, leaf.subleaf)));
        let little = SysctlCpuPolicy { nr_leaves: host.nr_leaves - 1, ..host };
        assert_eq!(world.sysctl(SysctlOp::GetCpuPolicy, little).0, error(Errno::ENOBUFS));
        assert_eq!(world.sysctl(SysctlOp::GetCpuPolicy, SysctlCpuPolicy { rsvd: 1, ..host }).0, error(Errno::EINVAL));
        assert_eq!(
            world.sysctl(SysctlOp::GetCpuPolicy, SysctlCpuPolicy { index: 2, ..host }).0,
            error(Errno::EOPNOTSUPP)
        );

        // What libxl does: read the default, give it to the domain.
        let (nr_leaves, nr_msrs) = (host.nr_leaves, host.nr_msrs);
        let give = CpuPolicy { nr_leaves, nr_msrs, leaves, msrs, ..CpuPolicy::default() };
        let set = |policy| {
            let request = Domctl::with(DomctlOp::SetCpuPolicy, GUEST.0, &policy).unwrap();
            let (reply, request) = world.domctl_raw(DomId::CONTROL, &request);
            (reply, request.get::<CpuPolicy>().unwrap())
        };
        assert_eq!(set(give).0, Ok(0));
        let back = room::<CpuidLeaf>(120, 0xee);
        let got = world
            .domctl(DomctlOp::GetCpuPolicy, GUEST.0, CpuPolicy { nr_leaves: 120, leaves: back, ..CpuPolicy::default() })
            .unwrap();
        assert_eq!((got.nr_leaves, got.nr_msrs), (nr_leaves, 2));
        assert_eq!(take_array(back, u64::from(nr_leaves)), take_array(leaves, u64::from(nr_leaves)));

        let bad = put(&CpuidLeaf { leaf: 0x5000_0000, subleaf: u32::MAX, ..CpuidLeaf::default() });
        let (reply, told) = set(CpuPolicy { nr_leaves: 1, nr_msrs: 0, leaves: bad, ..give });
        assert_eq!((reply, told.err_leaf, told.err_msr), (error(Errno::ERANGE), 0x5000_0000, u32::MAX));
        assert_eq!(set(CpuPolicy { nr_leaves: 1000, ..give }).0, error(Errno::E2BIG));
        world.domctl_plain(DomctlOp::UnpauseDomain, GUEST.0).unwrap();
        assert_eq!(set(give).0, error(Errno::EEXIST), "it has run");
    });
}

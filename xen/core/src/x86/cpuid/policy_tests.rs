//! Tests of policies: what is hidden, what follows from what, and the way to a list of leaves and back.

use super::super::{Moment, answer};
use super::*;
use crate::domain::Role;
use proptest::prelude::*;
use std::vec::Vec;

/// A processor with every feature there is, and AVX-512, PKRU and much else in XSAVE.
fn everything(leaf: u32, subleaf: u32) -> Answer {
    let vendor = [*b"Auth", *b"cAMD", *b"enti"].map(u32::from_le_bytes);
    match (leaf, subleaf) {
        (0, _) => [0x20, vendor[0], vendor[1], vendor[2]],
        (EXTENDED_BASE, _) => [0x8000_0026, vendor[0], vendor[1], vendor[2]],
        (7, 0) => [2, u32::MAX, u32::MAX, u32::MAX],
        (0xd, 0) => [0x2e7, 0x988, 0x988, 0],
        (0xd, 1) => [u32::MAX, 0, u32::MAX, u32::MAX],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 5) => [64, 1088, 0, 0],
        (0xd, 6) => [512, 1152, 2, 0],
        (0xd, 7) => [1024, 1664, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        (0x8000_0008, _) => [0x30_3930, u32::MAX, u32::MAX, u32::MAX],
        _ => [u32::MAX; 4],
    }
}

const NOW: Moment = Moment { vcpu: 3, cr4: 0, xcr0: 1, has_apic: true };

fn default_policy() -> CpuPolicy {
    CpuPolicy::default_for(&CpuPolicy::raw(everything), Role::Guest)
}

#[test]
fn what_guests_must_not_see_is_hidden() {
    use CpuFeature as F;
    let policy = default_policy();
    let hidden = [
        F::Svm,
        F::Monitor,
        F::Monitorx,
        F::Ds,
        F::Vmx,
        F::Xsaves,
        F::Ibs,
        F::Lwp,
        F::Skinit,
        F::Topoext,
        F::Htt,
        F::TscDeadline,
        F::TscAdjust,
        F::Itsc,
        F::Ibpb,
        F::Ssbd,
        F::CetSs,
        F::Osxsave,
        F::Ospke,
        F::Cpb,
        F::Pqm,
    ];
    for feature in hidden {
        assert!(!policy.has(feature), "{feature:?}");
    }
    for feature in [F::Hypervisor, F::X2apic, F::Apic, F::Lm, F::Nx, F::Avx512f, F::Pku, F::Rdtscp, F::Syscall] {
        assert!(policy.has(feature), "{feature:?}");
    }
    for leaf in [2, 5, 6, 0xa, 0x8000_000a, 0x8000_001b, 0x8000_001e, 0x8000_0021] {
        let hidden = if leaf == 0x8000_0021 { [1, 2, 3].as_slice() } else { &[0, 1, 2, 3] };
        let found = policy.answer(leaf, 0);
        assert!(hidden.iter().all(|register| found[*register] == 0), "{leaf:#x}: {found:x?}");
    }
    assert_eq!(policy.basic_limit(), 0xd);
    assert_eq!(policy.extended_limit(), 0x8000_0021);
    assert_eq!(policy.answer(0x14, 0), [0; 4], "AMD processors answer zeroes beyond the limit");
    assert_eq!(policy.answer(7, 3), [0; 4]);
    assert_eq!(policy.answer(0x4fff_ffff, 0), [0; 4]);
    assert_eq!(policy.answer(0x8000_0008, 0)[0], 0x3030, "48 bits of both kinds of address");
}

#[test]
fn a_processor_without_x2apic_still_gets_one_emulated() {
    let bare = |leaf, subleaf| match leaf {
        1 => [0x0080_0f12, 0, 0, 0x0000_0331],
        0x8000_0001 => [0; 4],
        7 => [0; 4],
        _ => everything(leaf, subleaf),
    };
    let policy = CpuPolicy::default_for(&CpuPolicy::raw(bare), Role::Guest);
    assert!(policy.has(CpuFeature::X2apic) && policy.has(CpuFeature::Hypervisor));
    assert!(!policy.has(CpuFeature::Xsave) && !policy.has(CpuFeature::Avx));
    assert_eq!(policy.answer(0xd, 0), [0; 4], "no XSAVE, no leaf 0xd");
}

#[test]
fn the_control_domain_may_know_that_the_clock_is_steady() {
    let raw = CpuPolicy::raw(everything);
    assert!(CpuPolicy::default_for(&raw, Role::Control).has(CpuFeature::Itsc));
    assert!(!CpuPolicy::default_for(&raw, Role::Guest).has(CpuFeature::Itsc));
}

#[test]
fn answers_follow_the_moment() {
    let policy = default_policy();
    let [_, b, c, d] = answer(&policy, &NOW, 1, 0);
    assert_eq!(b >> 24, 6, "APIC id is twice the vCPU's number");
    assert_eq!(c & CpuFeature::Osxsave.mask(), 0);
    assert_ne!(d & CpuFeature::Apic.mask(), 0);
    let later = Moment { cr4: cr4::OSXSAVE | cr4::PKE, xcr0: 0x7, has_apic: false, ..NOW };
    let [_, _, c, d] = answer(&policy, &later, 1, 0);
    assert_ne!(c & CpuFeature::Osxsave.mask(), 0);
    assert_eq!(d & CpuFeature::Apic.mask(), 0);
    assert_ne!(answer(&policy, &later, 7, 0)[2] & CpuFeature::Ospke.mask(), 0);
    assert_eq!(answer(&policy, &NOW, 0xb, 1), [0, 0, 1, 6]);
    // Sizes: header, AVX, everything.
    assert_eq!(answer(&policy, &NOW, 0xd, 0), [0x2e7, 576, 2696, 0]);
    assert_eq!(answer(&policy, &later, 0xd, 0)[1], 832);
    let all = Moment { xcr0: 0x2e7, ..NOW };
    assert_eq!(answer(&policy, &all, 0xd, 0)[1], 2696);
    assert_eq!(answer(&policy, &all, 0xd, 1)[1], 576 + 256 + 64 + 512 + 1024 + 8);
    use machine::codec::registers::cr4;
}

#[test]
fn a_component_is_offered_only_with_its_feature() {
    let raw = CpuPolicy::raw(everything);
    let maximum = CpuPolicy::maximum(&raw);
    let policy = CpuPolicy::default_for(&raw, Role::Guest);
    let mut leaves = leaves_of(&policy);
    let seven = leaves.iter_mut().find(|leaf| (leaf.leaf, leaf.subleaf) == (7, 0)).unwrap();
    seven.b &= !CpuFeature::Avx2.mask();
    let changed = policy.apply_leaves(&maximum, leaves.into_iter()).unwrap();
    assert!(!changed.has(CpuFeature::Avx512f), "needs AVX2");
    assert!(!changed.has(CpuFeature::Avx512Vnni), "needs AVX-512");
    assert_eq!(changed.extended_states(), 0x207);
    assert_eq!(changed.answer(0xd, 5), [0; 4]);
}

fn leaves_of(policy: &CpuPolicy) -> Vec<CpuidLeaf> {
    let mut leaves = Vec::new();
    let mut put = |leaf| {
        leaves.push(leaf);
        Ok::<(), ()>(())
    };
    policy.to_leaves(&mut put).unwrap();
    leaves
}

#[test]
fn lists_are_refused_with_the_leaf_that_is_wrong() {
    let raw = CpuPolicy::raw(everything);
    let (maximum, policy) = (CpuPolicy::maximum(&raw), CpuPolicy::default_for(&raw, Role::Guest));
    let one = |leaf, subleaf, a| CpuidLeaf { leaf, subleaf, a, ..CpuidLeaf::default() };
    let apply = |leaf| policy.apply_leaves(&maximum, [leaf].into_iter()).unwrap_err();
    let none = CPUID_NO_SUBLEAF;
    for (leaf, subleaf) in [
        (1, 0),
        (7, none),
        (7, 3),
        (4, 6),
        (0xb, 2),
        (0xd, 63),
        (0xe, none),
        (0x8000_0022, none),
        (0x4000_0001, none),
        (u32::MAX, none),
    ] {
        let error = apply(one(leaf, subleaf, 0));
        assert_eq!(error, PolicyError { errno: Errno::ERANGE, leaf, subleaf }, "{leaf:#x} {subleaf:#x}");
    }
    assert_eq!(apply(one(0, none, 0xe)), PolicyError { errno: Errno::EINVAL, leaf: 0, subleaf: none });
    assert_eq!(apply(one(7, 0, 3)), PolicyError { errno: Errno::EINVAL, leaf: 7, subleaf: 0 });
    assert_eq!(apply(one(EXTENDED_BASE, none, 0x8000_0022)).leaf, EXTENDED_BASE);
    let many = std::iter::repeat_n(one(1, none, 0), MAX_LEAVES + 1).collect::<Vec<_>>();
    assert_eq!(policy.apply_leaves(&maximum, many.into_iter()).unwrap_err().errno, Errno::E2BIG);
    assert_eq!(MAX_LEAVES, 120, "as Xen 4.17 tells its tools");
}

#[test]
fn the_toolstack_groups_vcpus_as_it_likes() {
    let raw = CpuPolicy::raw(everything);
    let (maximum, policy) = (CpuPolicy::maximum(&raw), CpuPolicy::default_for(&raw, Role::Guest));
    let mut leaves = leaves_of(&policy);
    for leaf in &mut leaves {
        match leaf.leaf {
            1 => {
                leaf.b |= 8 << 16;
                leaf.d |= CpuFeature::Htt.mask();
            }
            0x8000_0008 => leaf.c = 0x3007,
            0x8000_0001 => leaf.c |= CpuFeature::CmpLegacy.mask() | CpuFeature::Svm.mask(),
            _ => {}
        }
    }
    let changed = policy.apply_leaves(&maximum, leaves.into_iter()).unwrap();
    assert_eq!(changed.answer(1, 0)[1] >> 16 & 0xff, 8);
    assert_eq!(changed.answer(0x8000_0008, 0)[2], 0x3007);
    assert!(changed.has(CpuFeature::Htt) && changed.has(CpuFeature::CmpLegacy) && !changed.has(CpuFeature::Svm));
}

proptest! {
    #[test]
    fn a_list_of_leaves_gives_the_same_policy(seed: [u32; 7], basic in 0xdu32..0x30, extended in 8u32..0x30) {
        let random = |leaf: u32, subleaf: u32| {
            let mix = |at: usize| seed[at].rotate_left(leaf ^ subleaf.wrapping_mul(5)).wrapping_mul(leaf | 1);
            match (leaf, subleaf) {
                (0, _) => [basic, everything(0, 0)[1], 0, 0],
                (EXTENDED_BASE, _) => [EXTENDED_BASE + extended, 0, 0, 0],
                (0xd, 0) => [seed[4] & 0x2e7 | 3, 0, 0, 0],
                (0xd, 2..) => everything(leaf, subleaf),
                (0x8000_0008, _) => [0x3030, mix(1), mix(2), mix(3)],
                _ => [mix(0), mix(1), mix(2), mix(3)],
            }
        };
        let raw = CpuPolicy::raw(random);
        let (policy, maximum) = (CpuPolicy::default_for(&raw, Role::Guest), CpuPolicy::maximum(&raw));
        let leaves = leaves_of(&policy);
        prop_assert!(leaves.len() <= MAX_LEAVES);
        prop_assert!(leaves.is_sorted_by_key(|leaf| (leaf.leaf, leaf.subleaf)));
        let again = policy.apply_leaves(&maximum, leaves.into_iter()).unwrap();
        prop_assert_eq!(again, policy);
        prop_assert_eq!(CpuPolicy::EMPTY.apply_leaves(&maximum, leaves_of(&policy).into_iter()).unwrap(), policy);
    }

    #[test]
    fn no_list_gives_more_than_the_maximum(values: Vec<(u8, u32, u32, u32, u32)>) {
        let raw = CpuPolicy::raw(everything);
        let (policy, maximum) = (CpuPolicy::default_for(&raw, Role::Guest), CpuPolicy::maximum(&raw));
        let known = leaves_of(&maximum);
        let leaves = values.iter().take(MAX_LEAVES).map(|(which, a, b, c, d)| {
            let place = known[usize::from(*which) % known.len()];
            let limits = matches!(place.leaf, 0 | EXTENDED_BASE) || (place.leaf, place.subleaf) == (7, 0);
            CpuidLeaf { a: if limits { place.a } else { *a }, b: *b, c: *c, d: *d, ..place }
        });
        let leaves = leaves.collect::<Vec<_>>();
        let changed = policy.apply_leaves(&maximum, leaves.into_iter()).unwrap();
        let free = [CpuFeature::Htt, CpuFeature::CmpLegacy];
        for feature in CpuFeature::ALL {
            let allowed = maximum.has(*feature) || free.contains(feature);
            prop_assert!(allowed || !changed.has(*feature), "{:?}", feature);
        }
        prop_assert_eq!(changed.extended_states() & !maximum.extended_states(), 0);
        prop_assert!(changed.physical_address_bits() <= maximum.physical_address_bits());
    }
}

//! Tests of the planner: what libxl's order and places demand, and what does not fit.

use super::*;
use crate::plan::spec::Segment;

const HOST: HostFacts = HostFacts {
    grant_version: 2,
    xenstore_domid: 0,
    console_domid: 0,
};

/// Debian's 6.1 kernel as xen-abi.md §2.1 measured it.
fn kernel() -> Kernel {
    let segments = vec![Segment {
        address: 0x100_0000,
        file_size: 0x300_0000,
        memory_size: 0x3a0_0000,
    }];
    Kernel {
        segments,
        entry: 0x100_0850,
        rsdp_anywhere: true,
    }
}

fn spec(memory_mib: u64) -> GuestSpec {
    let mut spec = GuestSpec::new("g", [7; 16], memory_mib << 10);
    spec.command_line = Some("console=hvc0".into());
    spec
}

fn made(spec: &GuestSpec, ramdisk: Option<u64>) -> Vec<Step> {
    plan(spec, &kernel(), ramdisk, &HOST).expect("fits").steps
}

#[test]
fn the_domain_comes_first_and_xenstored_learns_of_it_after_its_ring_is_ready() {
    let steps = made(&spec(256), Some(5 << 20));
    assert!(matches!(steps.first(), Some(Step::CreateDomain(_))));
    let at = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).expect("is there");
    let introduce = at(&|step| matches!(step, Step::Introduce { .. }));
    let seeded = at(&|step| matches!(step, Step::SeedGrant { reference: 1, .. }));
    let cleared = at(&|step| matches!(step, Step::Clear { .. }));
    let pool = at(&|step| matches!(step, Step::PagingPool(_)));
    let populate = at(&|step| matches!(step, Step::Populate { .. }));
    let loaded = at(&|step| matches!(step, Step::Load { .. }));
    assert!(
        pool < populate
            && populate < cleared
            && cleared < loaded
            && loaded < seeded
            && seeded < introduce
    );
}

#[test]
fn nothing_overlaps_and_everything_lies_in_populated_memory() {
    let steps = made(&spec(5 << 10), Some(123_457));
    let populated: Vec<Range> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Populate { range, .. } => Some(*range),
            _ => None,
        })
        .collect();
    let loaded: Vec<Range> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Load { range, .. } => Some(*range),
            _ => None,
        })
        .collect();
    for (index, range) in loaded.iter().enumerate() {
        assert!(
            populated.iter().any(|memory| memory.contains(*range)),
            "{range:x?}"
        );
        for other in &loaded[index + 1..] {
            assert!(!range.overlaps(*other), "{range:x?} {other:x?}");
        }
    }
    let ram: u64 = populated
        .iter()
        .filter(|range| range.start != ACPI_BASE && range.end != SPECIAL_END)
        .map(|range| range.bytes())
        .sum();
    assert_eq!(ram, 5 << 30);
}

#[test]
fn the_ramdisk_follows_the_kernel_and_the_start_info_the_ramdisk() {
    let steps = made(&spec(256), Some(5000));
    let range = |source: &dyn Fn(&Source) -> bool| {
        steps.iter().find_map(|step| match step {
            Step::Load { range, source: s } if source(s) => Some(*range),
            _ => None,
        })
    };
    assert_eq!(
        range(&|source| *source == Source::Ramdisk),
        Some(Range {
            start: 0x4a0_0000,
            end: 0x4a0_0000 + 5000
        })
    );
    let info = range(&|source| {
        matches!(
            source,
            Source::Made {
                what: "start info",
                ..
            }
        )
    })
    .expect("is there");
    assert_eq!(info.start, 0x4a0_2000);
    let context = steps
        .iter()
        .find(|step| matches!(step, Step::Context { .. }));
    assert_eq!(
        context,
        Some(&Step::Context {
            vcpus: 1,
            entry: 0x100_0850,
            start_info: 0x4a0_2000
        })
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let error = plan(&spec(64), &kernel(), None, &HOST).expect_err("is too small");
    assert_eq!(
        error,
        PlanError::KernelBeyondMemory {
            end: 0x4a0_0000,
            ram_end: 64 << 20
        }
    );
    assert!(error.to_string().contains("memory=75"), "{error}");
    let error = plan(&spec(80), &kernel(), Some(10 << 20), &HOST).expect_err("is too small");
    assert_eq!(
        error,
        PlanError::TooLittleMemory {
            needed_mib: 84,
            available_mib: 80,
            what: "ramdisk"
        }
    );
    let lost = Kernel {
        entry: 5,
        ..kernel()
    };
    assert_eq!(
        plan(&spec(256), &lost, None, &HOST),
        Err(PlanError::NoEntry { entry: 5 })
    );
    let mut many = spec(256);
    many.max_vcpus = 129;
    assert_eq!(
        plan(&many, &kernel(), None, &HOST),
        Err(PlanError::Vcpus {
            online: 1,
            most: 129
        })
    );
}

#[test]
fn affinities_and_scheduling_appear_only_when_asked_for() {
    let plain = made(&spec(256), None);
    assert!(
        !plain
            .iter()
            .any(|step| matches!(step, Step::Affinity { .. } | Step::Scheduling { .. }))
    );
    let mut pinned = spec(256);
    pinned.max_vcpus = 3;
    pinned.hard_affinity = vec![vec![], vec![2, 3]];
    pinned.weight = Some(512);
    let steps = made(&pinned, None);
    let affinities: Vec<_> = steps
        .iter()
        .filter(|step| matches!(step, Step::Affinity { .. }))
        .collect();
    assert_eq!(
        affinities,
        [&Step::Affinity {
            vcpu: 1,
            hard: vec![2, 3],
            soft: vec![]
        }]
    );
    assert!(steps.contains(&Step::Scheduling {
        weight: Some(512),
        cap: None
    }));
}

#[test]
fn an_old_kernel_finds_an_rsdp_below_one_mebibyte() {
    let old = Kernel {
        rsdp_anywhere: false,
        ..kernel()
    };
    let steps = plan(&spec(256), &old, None, &HOST).expect("fits").steps;
    let copy = steps
        .iter()
        .any(|step| matches!(step, Step::Load { range, .. } if range.start == 0xfffc0));
    assert!(copy);
}

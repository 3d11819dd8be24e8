//! Tests of the planner: what libxl's order and places demand, and what does not fit.

use image::elf::{Machine, Segment};
use image::notes::Notes;

use super::*;

const HOST: HostFacts = HostFacts { grant_version: 2, xenstore_domid: 0, console_domid: 0 };
const CODE: [u8; 0x900] = [0x90; 0x900];

/// A kernel with the addresses of Debian's 6.1, as xen-abi.md §2.1 measured them.
fn kernel() -> Kernel<'static> {
    let span = layout::range(0x100_0000, 0x3a0_0000);
    let notes = Notes {
        phys32_entry: Some(0x100_0850),
        guest_os: Some(b"linux"),
        supported_features: Some(1 << 15),
        ..Notes::default()
    };
    let segment = Segment { range: span, vaddr: 0, flags: 7, align: 0x20_0000, offset: 0, length: CODE.len() as u64 };
    Kernel { machine: Machine::X86_64, entry: 0, segments: vec![segment], span, notes }
}

/// A guest that shall balloon down finds all of its memory, and the two numbers that tell it by how much.
#[test]
fn a_guest_with_less_memory_than_it_can_have_starts_with_all_of_it() {
    let mut spec = spec(128);
    spec.max_memory_kib = 256 << 10;
    let steps = made(&spec, 0);
    let ram = Step::Populate { what: "RAM", range: layout::range(0, 256 << 20), large: true };
    assert!(steps.contains(&ram));
    assert!(steps.contains(&Step::MaxMemory((256 << 10) + 1024)));
    let nodes: Vec<_> = steps
        .iter()
        .flat_map(|step| match step {
            Step::Store { nodes, .. } => nodes.as_slice(),
            _ => &[],
        })
        .filter(|node| node.path.rest.starts_with("memory/"))
        .map(|node| (node.path.rest.as_str(), &node.value))
        .collect();
    let text = |text: &str| nodes::NodeValue::Text(text.into());
    assert!(nodes.contains(&("memory/static-max", &text("262144"))));
    assert!(nodes.contains(&("memory/target", &text("131072"))));
}

fn spec(memory_mib: u64) -> GuestSpec {
    let mut spec = GuestSpec::new("g", [7; 16], memory_mib << 10);
    spec.command_line = Some("console=hvc0".into());
    spec
}

fn made(spec: &GuestSpec, ramdisk: u64) -> Vec<Step> {
    plan(spec, &kernel(), ramdisk, &HOST).expect("fits").steps
}

fn loads(steps: &[Step]) -> Vec<(GpaRange, Source)> {
    let load = |step: &Step| match step {
        Step::Load { range, source } => Some((*range, source.clone())),
        _ => None,
    };
    steps.iter().filter_map(load).collect()
}

#[test]
fn the_domain_comes_first_and_xenstored_learns_of_it_after_its_ring_is_ready() {
    let steps = made(&spec(256), 5 << 20);
    assert!(matches!(steps.first(), Some(Step::CreateDomain(_))));
    let at = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).expect("is there");
    let introduce = at(&|step| matches!(step, Step::Introduce { .. }));
    let seeded = at(&|step| matches!(step, Step::SeedGrants(_)));
    let cleared = at(&|step| matches!(step, Step::Clear { .. }));
    let pool = at(&|step| matches!(step, Step::PagingPool(_)));
    let populate = at(&|step| matches!(step, Step::Populate { .. }));
    let loaded = at(&|step| matches!(step, Step::Load { .. }));
    assert!(pool < populate && populate < cleared && cleared < loaded && loaded < seeded && seeded < introduce);
}

#[test]
fn nothing_overlaps_and_everything_lies_in_populated_memory() {
    let steps = made(&spec(5 << 10), 123_457);
    let populated: Vec<(GpaRange, &str)> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Populate { range, what, .. } => Some((*range, *what)),
            _ => None,
        })
        .collect();
    let loaded = loads(&steps);
    for (index, (range, _)) in loaded.iter().enumerate() {
        assert!(populated.iter().any(|(memory, _)| memory.contains(*range)), "{range}");
        for (other, _) in &loaded[index + 1..] {
            assert!(!range.overlaps(*other), "{range} {other}");
        }
    }
    let ram: u64 = populated.iter().filter(|(_, what)| what.starts_with("RAM")).map(|(range, _)| range.len()).sum();
    assert_eq!(ram, 5 << 30);
}

#[test]
fn the_start_info_points_to_what_was_placed() {
    let steps = made(&spec(256), 5000);
    let loaded = loads(&steps);
    let ramdisk = loaded.iter().find(|(_, source)| *source == Source::Ramdisk).expect("is there").0;
    assert_eq!(ramdisk, layout::range(0x4a0_0000, 5000));
    let (info, bytes) = loaded
        .iter()
        .find_map(|(range, source)| match source {
            Source::Made { what: "start info", bytes } => Some((*range, bytes)),
            _ => None,
        })
        .expect("is there");
    assert_eq!(info.start(), 0x4a0_2000);
    assert_eq!(info.len(), bytes.len() as u64);
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let modules = usize::try_from(u64_at(16) - info.start()).expect("in the block");
    assert_eq!((u64_at(modules), u64_at(modules + 8)), (0x4a0_0000, 5000));
    assert_eq!(u64_at(32), ACPI_BASE);
    let context = steps.iter().find(|step| matches!(step, Step::Context { .. }));
    assert_eq!(context, Some(&Step::Context { vcpus: 1, entry: 0x100_0850, start_info: 0x4a0_2000 }));
}

#[test]
fn what_does_not_fit_is_named() {
    let error =
        |spec: &GuestSpec, ramdisk| plan(spec, &kernel(), ramdisk, &HOST).expect_err("does not fit").to_string();
    let kernel_out = error(&spec(64), 0);
    assert!(
        kernel_out.contains("kernel") && kernel_out.contains("has 64 MiB below 4 GiB; raise memory="),
        "{kernel_out}"
    );
    let ramdisk_out = error(&spec(80), 10 << 20);
    assert!(ramdisk_out.contains("initrd") && ramdisk_out.contains("raise memory="), "{ramdisk_out}");
    let mut many = spec(256);
    many.max_vcpus = 129;
    assert_eq!(plan(&many, &kernel(), 0, &HOST), Err(PlanError::Vcpus { online: 1, most: 129 }));
    let mut odd = spec(256);
    odd.memory_kib = 1026;
    odd.max_memory_kib = 1026;
    assert!(matches!(plan(&odd, &kernel(), 0, &HOST), Err(PlanError::Memory { .. })));
    let mut no_note = kernel();
    no_note.notes.phys32_entry = None;
    assert!(plan(&spec(256), &no_note, 0, &HOST).is_err_and(|error| error.to_string().contains("PHYS32_ENTRY")));
}

#[test]
fn affinities_and_scheduling_appear_only_when_asked_for() {
    let plain = made(&spec(256), 0);
    assert!(!plain.iter().any(|step| matches!(step, Step::Affinity { .. } | Step::Scheduling { .. })));
    let mut pinned = spec(256);
    pinned.max_vcpus = 3;
    pinned.hard_affinity = vec![vec![], vec![2, 3]];
    pinned.weight = Some(512);
    let steps = made(&pinned, 0);
    let affinities: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Affinity { .. })).collect();
    assert_eq!(affinities, [&Step::Affinity { vcpu: 1, hard: vec![2, 3], soft: vec![] }]);
    assert!(steps.contains(&Step::Scheduling { weight: Some(512), cap: None }));
}

#[test]
fn a_claim_is_the_ram_and_ends_when_that_is_there() {
    let mut claiming = spec(256);
    claiming.claim = true;
    let steps = made(&claiming, 0);
    let at = |wanted: &Step| steps.iter().position(|step| step == wanted).expect("is there");
    let first = steps.iter().position(|step| matches!(step, Step::Populate { .. })).expect("is there");
    let special = steps.iter().position(|step| matches!(step, Step::Populate { what: "special pages", .. }));
    assert!(at(&Step::Claim(65536)) < first && first < at(&Step::Claim(0)));
    assert!(Some(at(&Step::Claim(0))) < special);
    assert!(!made(&spec(256), 0).iter().any(|step| matches!(step, Step::Claim(_))));
}

#[test]
fn an_old_kernel_finds_an_rsdp_below_one_mebibyte() {
    let mut old = kernel();
    old.notes.supported_features = None;
    let copies = |kernel: &Kernel<'_>| {
        let steps = plan(&spec(256), kernel, 0, &HOST).expect("fits").steps;
        loads(&steps).iter().filter(|(range, _)| range.start() == LEGACY_RSDP).count()
    };
    assert_eq!((copies(&old), copies(&kernel())), (1, 0));
}

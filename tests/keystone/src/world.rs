//! The whole host: a fake machine that has booted the hypervisor, with the kernel of the tests as its control domain.
//!
//! The hypervisor boots as on a real machine, from a boot loader's information, and builds the control domain itself. Its
//! CPUs are no threads: whoever wants something to happen takes their turns ([`World::turn`]), so every run is the same.

use crate::kernel;
use libxc::plan::acpi::{self, Processor};
use machine::boot_info::{BootInfo, CommandLine, Range, RangeKind};
use machine::fake::{FakeMachine, Ledger, account};
use machine::{CpuId, DomId, Maddr, PAGE_SHIFT};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use xen_core::host::{DomainRef, Host};
use xen_core::vcpu::run;

/// First byte behind the first megabyte's RAM.
const LOW_END: u64 = 0x9_f000;
/// Where RAM goes on.
const HIGH_START: u64 = 0x10_0000;
/// Where the firmware's tables are: far above RAM.
const ACPI_TABLES: u64 = 0x7fe0_0000;

/// What a host shall have.
#[derive(Clone, Debug)]
pub struct Plan {
    /// CPUs.
    pub cpus: u16,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// The hypervisor's command line.
    pub command_line: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self { cpus: 1, memory_mib: 64, command_line: "dom0_mem=16M dom0_max_vcpus=1 loglvl=all".into() }
    }
}

/// A host that runs.
pub struct World {
    /// Its machine.
    pub machine: FakeMachine,
    /// The hypervisor's state.
    pub host: &'static Host,
    cpus: u16,
    ledger: RefCell<Ledger>,
    turns: Cell<u64>,
}

impl World {
    /// Runs a test with a host that has booted, on CPU 0 of its machine.
    pub fn with<R>(plan: &Plan, test: impl FnOnce(&Rc<Self>) -> R) -> R {
        let world = Self::boot(plan);
        world.machine.clone().on_cpu(0, || test(&Rc::new(world)))
    }

    fn boot(plan: &Plan) -> Self {
        let top = plan.memory_mib << 20;
        let builder = FakeMachine::builder().stepped().cpus(plan.cpus);
        let builder = builder.region(0, LOW_END >> PAGE_SHIFT);
        let high_pages = (top - HIGH_START) >> PAGE_SHIFT;
        let builder = builder.region(HIGH_START >> PAGE_SHIFT, high_pages);
        let machine = builder.reserve(0, top >> PAGE_SHIFT).build();
        let cpus = plan.cpus;
        let host = machine.on_cpu(0, || {
            let mut info = boot_info(&machine, plan, top);
            let host = xen_core::boot::bring_up(&mut info, "none").unwrap_or_else(|error| {
                panic!("the hypervisor does not boot: {error}\n{}", machine.console());
            });
            drop(info);
            host
        });
        Self { machine, host, cpus, ledger: RefCell::default(), turns: Cell::new(0) }
    }

    /// A domain.
    pub fn domain(&self, id: u16) -> DomainRef<'static> {
        self.host.domains.get(DomId(id)).unwrap_or_else(|| panic!("there is no domain {id}"))
    }

    /// One turn of a CPU. The hypervisor's allocations are written into the ledger.
    pub fn turn_of(&self, cpu: u16) {
        self.turns.set(self.turns.get() + 1);
        let mut ledger = *self.ledger.borrow();
        self.machine.on_cpu(cpu, || account(&mut ledger, || run::turn(self.host, CpuId(cpu))));
        self.ledger.replace(ledger);
    }

    /// One turn of each CPU that has something to do. Whether one had.
    pub fn turn(&self) -> bool {
        let mut had = false;
        for cpu in 0..self.cpus {
            if self.has_work(cpu) {
                self.turn_of(cpu);
                had = true;
            }
        }
        had
    }

    fn has_work(&self, cpu: u16) -> bool {
        !self.machine.work(cpu).is_empty()
            || self.host.cpus.get(usize::from(cpu)).is_some_and(|cpu| !cpu.queue.lock().is_empty())
    }

    /// Takes turns until `is_done`; when nobody has anything to do, time passes up to the next timer. False if nothing will
    /// ever happen any more.
    #[must_use]
    pub fn run_until(&self, mut is_done: impl FnMut() -> bool) -> bool {
        while !is_done() {
            if !self.turn() && !self.pass_time() {
                return false;
            }
        }
        true
    }

    /// Takes turns until nobody has anything to do now.
    pub fn settle(&self) {
        while self.turn() {}
    }

    /// Lets time pass up to the next timer. False if none is set.
    pub fn pass_time(&self) -> bool {
        let next = (0..self.cpus).filter_map(|cpu| self.machine.timer(cpu)).min();
        let Some(next) = next else { return false };
        self.machine.advance(next.saturating_sub(self.machine.now()));
        true
    }

    /// Turns taken so far.
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// What the hypervisor has allocated in its turns.
    pub fn ledger(&self) -> Ledger {
        *self.ledger.borrow()
    }

    /// Lets the hypervisor's allocation number `n` from now, counted from 0, fail; `None`: none fails.
    pub fn fail_allocation(&self, n: Option<u64>) {
        self.ledger.borrow_mut().left = n;
    }

    /// Whether the allocation that was to fail is still to come.
    pub fn failure_is_due(&self) -> bool {
        self.ledger.borrow().left.is_some()
    }
}

/// What a boot loader would say.
fn boot_info(machine: &FakeMachine, plan: &Plan, top: u64) -> BootInfo {
    let firmware = plan.cpus.min(128) as u8;
    let processors: Vec<Processor> =
        (0..firmware).map(|uid| Processor { uid, apic_id: uid * 2, enabled: true }).collect();
    let tables = acpi::tables(ACPI_TABLES, &processors);
    machine.set_firmware(ACPI_TABLES, &tables.bytes);
    let mut info = BootInfo::new();
    info.loader = heapless_text("the test");
    info.command_line = CommandLine::try_from(plan.command_line.as_str()).expect("a short command line");
    let kernel = kernel::elf();
    let module = (top - kernel.len() as u64) & !0xfff;
    let ranges = [
        (0, LOW_END, RangeKind::Ram),
        (0xf_0000, 0x1_0000, RangeKind::Reserved),
        (HIGH_START, top - HIGH_START, RangeKind::Ram),
        (ACPI_TABLES, 0x1000, RangeKind::AcpiReclaimable),
    ];
    for (start, length, kind) in ranges {
        info.ranges.push(Range { start: Maddr::new(start), length, kind }).expect("few ranges");
    }
    info.rsdp = Some(Maddr::new(tables.rsdp));
    info.floor = Maddr::new(module);
    let module = machine.load_module(Maddr::new(module), &kernel, "the control domain");
    info.modules.push(module).expect("one module");
    info
}

fn heapless_text<S: for<'a> TryFrom<&'a str>>(text: &str) -> S {
    S::try_from(text).unwrap_or_else(|_| panic!("{text:?} is too long"))
}

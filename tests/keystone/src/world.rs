//! The whole host: a fake machine that has booted the hypervisor, with the kernel of the tests as its control domain.
//!
//! The hypervisor boots as on a real machine, from a boot loader's information, and builds the control domain itself. Its
//! CPUs are no threads: whoever wants something to happen takes their turns ([`World::turn`]), so every run is the same.

use crate::kernel;
use libxc::plan::acpi::{self, Processor};
use machine::boot_info::{BootInfo, CommandLine, Range, RangeKind, RootPointer};
use machine::fake::{FakeMachine, Ledger, account};
use machine::lock::{Guard, rank};
use machine::{CpuId, DomId, Maddr, PAGE_SHIFT};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use xen_core::host::{DomainRef, Host};
use xen_core::sched::{self, CpuQueue, Waiting};
use xen_core::vcpu::run;

/// No domain has this number.
const NOBODY: DomId = DomId(0x7fff);

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
    /// CPUs other than the first run by themselves, on threads of their own: no two runs are the same.
    pub threads: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory_mib: 64,
            command_line: "dom0_mem=16M dom0_max_vcpus=1 loglvl=all".into(),
            threads: false,
        }
    }
}

/// A host that runs.
pub struct World {
    /// Its machine.
    pub machine: FakeMachine,
    /// The hypervisor's state.
    pub host: &'static Host,
    /// CPUs whose turns the test takes.
    cpus: u16,
    threads: bool,
    ledger: RefCell<Ledger>,
    turns: Cell<u64>,
}

/// Shuts the machine down when the test is over, or has failed, so that other CPUs' threads end.
struct Stop(FakeMachine);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

impl World {
    /// Runs a test with a host that has booted, on CPU 0 of its machine.
    pub fn with<R>(plan: &Plan, test: impl FnOnce(&Rc<Self>) -> R) -> R {
        let world = Self::boot(plan);
        let machine = world.machine.clone();
        let _stop = Stop(machine.clone());
        machine.on_cpu(0, || test(&Rc::new(world)))
    }

    fn boot(plan: &Plan) -> Self {
        let top = plan.memory_mib << 20;
        let builder = FakeMachine::builder().cpus(plan.cpus);
        let builder = if plan.threads { builder } else { builder.stepped() };
        let builder = builder.region(0, LOW_END >> PAGE_SHIFT);
        let high_pages = (top - HIGH_START) >> PAGE_SHIFT;
        let builder = builder.region(HIGH_START >> PAGE_SHIFT, high_pages);
        let machine = builder.reserve(0, top >> PAGE_SHIFT).build();
        let cpus = if plan.threads { 1 } else { plan.cpus };
        let host = machine.on_cpu(0, || {
            let mut info = boot_info(&machine, plan, top);
            let host = xen_core::boot::bring_up(&mut info, "none").unwrap_or_else(|error| {
                panic!("the hypervisor does not boot: {error}\n{}", machine.console());
            });
            drop(info);
            for cpu in &host.cpus {
                cpu.queue.lock().reserve(1).expect("memory for the one who ends turns");
            }
            host
        });
        Self { machine, host, cpus, threads: plan.threads, ledger: RefCell::default(), turns: Cell::new(0) }
    }

    /// A domain.
    pub fn domain(&self, id: u16) -> DomainRef<'static> {
        self.host.domains.get(DomId(id)).unwrap_or_else(|| panic!("there is no domain {id}"))
    }

    /// One turn of a CPU: a slice at the most. The hypervisor's allocations are written into the ledger.
    pub fn turn_of(&self, cpu: u16) {
        self.turns.set(self.turns.get() + 1);
        let mut ledger = *self.ledger.borrow();
        self.host.idle.fetch_and(!(1 << cpu), Ordering::AcqRel);
        self.machine.on_cpu(cpu, || {
            if self.queue(cpu).is_empty() {
                // It has been idle, and takes there what interrupts it: the placeholder below would keep it from it.
                machine::cpu::interrupt_window();
            }
            self.bound_turn(cpu);
            account(&mut ledger, || run::turn(self.host, CpuId(cpu)));
            self.queue(cpu).remove(NOBODY, 0);
        });
        self.ledger.replace(ledger);
    }

    /// Sees that a CPU's turn ends even if nobody else wants to run there: queues somebody who does not exist behind the one
    /// whose turn it is.
    fn bound_turn(&self, cpu: u16) {
        let mut queue = self.queue(cpu);
        let first = queue.first_time().map_or(queue.clock(), |first| first.max(queue.clock()));
        let virtual_time = first + sched::ticks(sched::SLICE_MICROSECONDS);
        queue.add(Waiting { virtual_time, service: u64::MAX, domain: NOBODY, vcpu: 0 });
    }

    fn queue(&self, cpu: u16) -> Guard<'_, CpuQueue, { rank::RUN_QUEUE }> {
        self.host.cpus[usize::from(cpu)].queue.lock()
    }

    /// One turn of each CPU that has something to do. Whether one had.
    pub fn turn(&self) -> bool {
        let mut had = false;
        for cpu in 0..self.cpus {
            if self.has_work(cpu) {
                self.turn_of(cpu);
                had = true;
            } else {
                // It would wait for an interrupt now, and others may send it work.
                self.host.idle.fetch_or(1 << cpu, Ordering::AcqRel);
            }
        }
        had
    }

    fn has_work(&self, cpu: u16) -> bool {
        !self.machine.work(cpu).is_empty() || self.machine.has_interrupt(cpu) || !self.queue(cpu).is_empty()
    }

    /// Takes turns until `is_done`; when nobody has anything to do, time passes up to the next timer. False if nothing will
    /// ever happen any more.
    #[must_use]
    pub fn run_until(&self, mut is_done: impl FnMut() -> bool) -> bool {
        if self.threads {
            return self.run_beside_threads(is_done);
        }
        while !is_done() {
            if !self.turn() && !self.pass_time() {
                return false;
            }
        }
        true
    }

    /// As [`World::run_until`], while other CPUs run on their threads: time passes at this one's pace.
    fn run_beside_threads(&self, mut is_done: impl FnMut() -> bool) -> bool {
        /// Rounds without anything to do here after which nothing will ever happen.
        const MOST_ROUNDS: u64 = 20_000_000;
        /// Ticks of a round.
        const ROUND: u64 = 1000;
        let mut idle = 0;
        while !is_done() {
            assert!(!self.machine.is_broken(), "another CPU has found an error");
            self.machine.advance(ROUND);
            idle = if self.turn() { 0 } else { idle + 1 };
            if idle > MOST_ROUNDS {
                return false;
            }
            std::thread::yield_now();
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

    /// Whether other CPUs run on threads of their own.
    pub fn has_threads(&self) -> bool {
        self.threads
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
    info.root = Some(RootPointer::At(Maddr::new(tables.rsdp)));
    info.floor = Maddr::new(module);
    let module = machine.load_module(Maddr::new(module), &kernel, "the control domain");
    info.modules.push(module).expect("one module");
    info
}

fn heapless_text<S: for<'a> TryFrom<&'a str>>(text: &str) -> S {
    S::try_from(text).unwrap_or_else(|_| panic!("{text:?} is too long"))
}

//! The one value that all state of the hypervisor hangs off: domains, processors, options.

use crate::domain::Domain;
use crate::sched::CpuQueue;
use crate::timer::CpuTimers;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use machine::boxed::{Boxed, OutOfMemory};
use machine::lock::{Lock, Shared, rank};
use machine::{CpuId, DomId, frame};

/// Domains at the most, the control domain included.
pub const MAX_DOMAINS: usize = 512;

/// Read access to a domain: while it lives, the domain is not taken apart.
pub type DomainRef<'a> = DomainGuard<'a>;

/// One place for a domain.
type Slot = Shared<Option<Boxed<Domain>>>;

/// A domain borrowed from its slot.
pub struct DomainGuard<'a> {
    guard: machine::lock::ReadGuard<'a, Option<Boxed<Domain>>>,
}

impl core::ops::Deref for DomainGuard<'_> {
    type Target = Domain;
    #[inline]
    fn deref(&self) -> &Domain {
        match &*self.guard {
            Some(domain) => domain,
            None => unreachable!("a guard is made for filled slots only"),
        }
    }
}

/// All domains, by slot. A domain's number and its slot are independent: numbers are not reused soon, slots are.
pub struct DomainTable {
    slots: Vec<Slot>,
    /// For each slot, the number of the domain in it, or `NO_DOMAIN`: lets a look-up pass over other slots without a lock.
    numbers: Vec<AtomicU16>,
    /// Held while domains are created or removed.
    pub change: Lock<DomainNumbers, { rank::DOMAIN_LIST }>,
    /// Pages that claims of all domains have set aside (memory::claim).
    pub claimed_pages: AtomicU64,
}

const NO_DOMAIN: u16 = u16::MAX;
/// Set in the number of a domain that is being removed: no domain has such a number, so look-ups pass over it, and wait for
/// those who found it before.
const HIDDEN: u16 = 1 << 15;

/// What came of removing a domain.
pub enum Removal {
    /// It is the caller's.
    Done(Boxed<Domain>),
    /// Somebody holds a reference; try again.
    InUse,
    /// There is no such domain.
    NotThere,
}

/// Hands out domain numbers.
#[derive(Debug)]
pub struct DomainNumbers {
    next: u16,
}

impl DomainTable {
    /// An empty table.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new() -> Result<Self, OutOfMemory> {
        let (mut slots, mut numbers) = (Vec::new(), Vec::new());
        slots.try_reserve_exact(MAX_DOMAINS).map_err(|_| OutOfMemory)?;
        numbers.try_reserve_exact(MAX_DOMAINS).map_err(|_| OutOfMemory)?;
        for _ in 0..MAX_DOMAINS {
            slots.push(Shared::new(None));
            numbers.push(AtomicU16::new(NO_DOMAIN));
        }
        Ok(Self { slots, numbers, change: Lock::new(DomainNumbers { next: 1 }), claimed_pages: AtomicU64::new(0) })
    }

    /// The domain with this number.
    #[inline]
    pub fn get(&self, id: DomId) -> Option<DomainRef<'_>> {
        let index = self.numbers.iter().position(|number| number.load(Ordering::Acquire) == id.0)?;
        let guard = self.slots.get(index)?.read();
        // The slot may have changed hands between the two looks.
        guard.as_ref().is_some_and(|domain| domain.id == id).then_some(DomainGuard { guard })
    }

    /// The domain with the lowest number that is `from` or higher.
    pub fn next_from(&self, from: DomId) -> Option<DomainRef<'_>> {
        let mut from = from.0;
        loop {
            let next = self
                .numbers
                .iter()
                .map(|number| number.load(Ordering::Acquire))
                .filter(|number| *number >= from && *number < HIDDEN)
                .min()?;
            if let Some(domain) = self.get(DomId(next)) {
                return Some(domain);
            }
            from = next.checked_add(1)?;
        }
    }

    /// Puts a domain into a free slot. The caller holds `change`.
    ///
    /// # Errors
    /// Gives the domain back when all slots are full.
    pub fn insert(&self, domain: Boxed<Domain>) -> Result<(), Boxed<Domain>> {
        let id = domain.id;
        for (slot, number) in self.slots.iter().zip(&self.numbers) {
            if number.load(Ordering::Acquire) != NO_DOMAIN {
                continue;
            }
            let Some(mut place) = slot.try_write() else { continue };
            *place = Some(domain);
            number.store(id.0, Ordering::Release);
            return Ok(());
        }
        Err(domain)
    }

    /// Takes a domain out, unless somebody still holds a reference to it; then nobody finds it any more, and the caller tries
    /// again later. The caller holds `change`.
    pub fn remove(&self, id: DomId) -> Removal {
        let is_it =
            |number: &AtomicU16| matches!(number.load(Ordering::Acquire), it if it == id.0 || it == id.0 | HIDDEN);
        let Some((slot, number)) = self.slots.iter().zip(&self.numbers).find(|(_, number)| is_it(number)) else {
            return Removal::NotThere;
        };
        number.store(id.0 | HIDDEN, Ordering::Release);
        let Some(mut place) = slot.try_write() else { return Removal::InUse };
        let domain = place.take();
        number.store(NO_DOMAIN, Ordering::Release);
        domain.map_or(Removal::NotThere, Removal::Done)
    }

    /// Whether the domain is being removed: nobody finds it any more, but its place is not free.
    pub fn is_hidden(&self, id: DomId) -> bool {
        id.0 < HIDDEN && self.numbers.iter().any(|number| number.load(Ordering::Acquire) == id.0 | HIDDEN)
    }

    /// A number for a new domain: `wanted` if it is free, else the next unused one, wrapping around below 0x7ff0. A number
    /// is not free, either, while pages of its last domain are in use elsewhere.
    pub fn choose_number(&self, numbers: &mut DomainNumbers, wanted: Option<DomId>) -> Option<DomId> {
        const FIRST_RESERVED: u16 = 0x7ff0;
        let is_free = |id: u16| {
            self.numbers.iter().all(|number| number.load(Ordering::Acquire) & !HIDDEN != id)
                && frame::leaving_pages(DomId(id)) == 0
        };
        if let Some(wanted) = wanted {
            return (wanted.0 < FIRST_RESERVED && is_free(wanted.0)).then_some(wanted);
        }
        for _ in 0..FIRST_RESERVED {
            let candidate = numbers.next;
            numbers.next = if candidate >= FIRST_RESERVED - 1 { 1 } else { candidate.saturating_add(1) };
            if is_free(candidate) {
                return Some(DomId(candidate));
            }
        }
        None
    }
}

/// What belongs to one processor.
pub struct Cpu {
    /// vCPUs that want to run here.
    pub queue: Lock<CpuQueue, { rank::RUN_QUEUE }>,
    /// Its APIC id.
    pub apic_id: u32,
    /// Ticks of the time stamp counter that it was idle.
    pub idle_time: AtomicU64,
    /// Somebody wants the vCPU that runs here to make way, if `sched::should_switch` agrees.
    pub switch: AtomicBool,
    /// What must happen here at a certain time.
    pub timers: Lock<CpuTimers, { rank::TIMER }>,
}

/// The hypervisor's whole state.
pub struct Host {
    /// All domains.
    pub domains: DomainTable,
    /// All processors, by number.
    pub cpus: Vec<Cpu>,
    /// Processors that run no vCPU now, one bit each.
    pub idle: AtomicU64,
    /// Microseconds that a vCPU may run before one that wakes interrupts it; 0: none.
    pub rate_limit: AtomicU32,
    /// System time and the wall clock.
    pub clock: crate::time::Clock,
    /// Which domain hears of each global virtual interrupt.
    pub virq_handlers: crate::event::VirqHandlers,
    /// The interrupts of the machine's devices.
    pub interrupts: crate::interrupt::Interrupts,
    /// The machine's PCI functions.
    pub pci: crate::pci::Pci,
    /// What translates for the machine's devices.
    pub translation: crate::iommu::Translation,
    /// What the command line and the firmware said.
    pub platform: crate::boot::Platform,
    /// Who gets what is typed, and what of the log was read.
    pub console: crate::domain::console::Console,
}

impl Cpu {
    /// Whether a reason to look at the queue has come up since this was last asked.
    #[inline]
    pub fn wants_switch(&self) -> bool {
        self.switch.load(Ordering::Relaxed) && self.switch.swap(false, Ordering::AcqRel)
    }
}

impl Host {
    /// Makes a CPU look at its queue before it enters a guest again.
    pub fn request_switch(&self, cpu: CpuId) {
        if let Some(cpu) = self.cpus.get(cpu.index()) {
            cpu.switch.store(true, Ordering::Release);
        }
    }
}

/// Hosts for tests, so that a new field is filled in one place.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Cpu, DomainTable, Host};
    use crate::boot::Platform;
    use crate::boot::acpi::Acpi;
    use crate::domain::console::Console;
    use crate::event::VirqHandlers;
    use crate::interrupt::Interrupts;
    use crate::sched::CpuQueue;
    use crate::time::Clock;
    use crate::timer::CpuTimers;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
    use machine::lock::Lock;

    /// A host without domains, with so many CPUs, each with room for the queues and timers of `vcpus` vCPUs. To be called on
    /// a CPU of the fake machine.
    pub(crate) fn host(cpus: u32, vcpus: usize, clock: Clock) -> Host {
        let cpu = |apic_id| {
            let (mut queue, mut timers) = (CpuQueue::new(), CpuTimers::new());
            queue.reserve(vcpus).unwrap();
            timers.reserve(vcpus).unwrap();
            Cpu {
                queue: Lock::new(queue),
                apic_id,
                idle_time: AtomicU64::new(0),
                switch: AtomicBool::new(false),
                timers: Lock::new(timers),
            }
        };
        let apic_ids = (0..cpus).map(|cpu| cpu * 2).collect::<Vec<_>>();
        Host {
            pci: crate::pci::Pci::new(Vec::new(), Vec::new()),
            translation: crate::iommu::Translation::new(None),
            interrupts: Interrupts::try_new(&Acpi::default(), None, apic_ids.into_iter()).unwrap(),
            domains: DomainTable::try_new().unwrap(),
            cpus: (0..cpus).map(cpu).collect::<Vec<_>>(),
            idle: AtomicU64::new(0),
            rate_limit: AtomicU32::new(crate::sched::DEFAULT_RATE_LIMIT),
            clock,
            virq_handlers: VirqHandlers::new(),
            platform: Platform {
                command_line: machine::boot_info::CommandLine::new(),
                changeset: "git:0123456789ab",
                acpi: crate::boot::acpi::Acpi::default(),
                start_timestamp: 0,
                total_pages: machine::frame::total_pages(),
                power: crate::power::Power::default(),
                after_crash: crate::boot::options::AfterCrash::Restart,
            },
            console: Console::new(),
        }
    }
}

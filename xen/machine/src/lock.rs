//! Locks with ranks.
//!
//! Every lock of the hypervisor has a rank, and a CPU may take a lock only if it holds none of the same or a higher rank:
//! then no two CPUs can wait for each other. Debug builds check this at every acquisition; release builds pay nothing.
//! A waiting CPU is outside of its guest, so that whoever flushes translations does not wait for it: a flush cannot deadlock
//! with a lock.
//!
//! Locks are not fair. Tickets were tried: under an emulator whose processors are threads of a busy host the next in line is
//! often one that does not run, and making a guest took five times as long.

use crate::cpu;
use core::ops::{Deref, DerefMut};

/// The ranks, outermost first. A number may be used by several locks that are never held together.
pub mod rank {
    /// A vCPU's hardware state: held while it runs, by everybody else only tried.
    pub const VCPU: u8 = 0;
    /// Creation and destruction of domains.
    pub const DOMAIN_LIST: u8 = 1;
    /// One domain's control operations (domctl).
    pub const DOMAIN: u8 = 2;
    /// One domain's grant table.
    pub const GRANT: u8 = 4;
    /// One domain's event channels.
    pub const EVENT: u8 = 6;
    /// One vCPU's registered areas (vcpu_info, runstate).
    pub const VCPU_AREAS: u8 = 8;
    /// One domain's p2m.
    pub const P2M: u8 = 10;
    /// The machine's interrupt pins, and its PCI functions: whoever holds it looks at a domain's devices.
    pub const MACHINE_DEVICE: u8 = 11;
    /// Emulated devices of one domain (vIO-APIC, vPCI).
    pub const DEVICE: u8 = 12;
    /// Whose each CPU's interrupt vectors are; the PCI configuration mechanism.
    pub const VECTORS: u8 = 13;
    /// One CPU's run queue.
    pub const RUN_QUEUE: u8 = 14;
    /// One CPU's timers.
    pub const TIMER: u8 = 15;
    /// The registers of I/O interrupt controllers, of which two accesses belong together.
    pub const IO_APIC: u8 = 16;
    /// The commands and events of an IOMMU's unit.
    pub const IOMMU: u8 = 17;
    /// The heap of small objects.
    pub const HEAP: u8 = 18;
    /// The hypervisor's own page tables; whoever changes them may need a page.
    pub const OWN_TABLES: u8 = 19;
    /// The free-page pool.
    pub const FRAMES: u8 = 20;
    /// Console output; innermost, so that anyone may log.
    pub const CONSOLE: u8 = 22;
}

/// How a CPU spends its time while it waits for a lock.
#[derive(Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    fn relax() {
        cpu::relax();
    }
}

/// A mutual exclusion lock of rank `RANK`.
#[derive(Debug)]
pub struct Lock<T, const RANK: u8> {
    inner: spin::mutex::SpinMutex<T, Relax>,
}

/// Read access to a [`Shared`] value.
pub type ReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, Relax>;

/// A held [`Lock`].
#[derive(Debug)]
pub struct Guard<'a, T, const RANK: u8> {
    // Dropped before the token: the lock is free before its rank is.
    inner: spin::mutex::SpinMutexGuard<'a, T, Relax>,
    _held: Held<RANK>,
}

impl<T, const RANK: u8> Lock<T, RANK> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { inner: spin::mutex::SpinMutex::new(value) }
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> Guard<'_, T, RANK> {
        let held = Held::enter();
        Guard { inner: self.inner.lock(), _held: held }
    }

    /// Takes the lock if it is free now.
    pub fn try_lock(&self) -> Option<Guard<'_, T, RANK>> {
        self.inner.try_lock().map(|inner| Guard { inner, _held: Held::enter_unordered() })
    }

    /// The value, when the borrow shows that nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T, const RANK: u8> Deref for Guard<'_, T, RANK> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T, const RANK: u8> DerefMut for Guard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A readers-writer lock without a rank: its readers are nested inside one another freely, and its writers only try.
#[derive(Debug)]
pub struct Shared<T> {
    inner: spin::rwlock::RwLock<T, Relax>,
}

impl<T> Shared<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { inner: spin::rwlock::RwLock::new(value) }
    }

    /// Waits until no writer holds the lock, and reads.
    pub fn read(&self) -> ReadGuard<'_, T> {
        self.inner.read()
    }

    /// Writes, if nobody reads or writes now.
    pub fn try_write(&self) -> Option<spin::rwlock::RwLockWriteGuard<'_, T, Relax>> {
        self.inner.try_write()
    }
}

/// A value that is set once.
pub type Once<T> = spin::once::Once<T, Relax>;

/// The proof that a rank is held on this CPU.
#[derive(Debug)]
struct Held<const RANK: u8>;

impl<const RANK: u8> Held<RANK> {
    fn enter() -> Self {
        if cfg!(debug_assertions) {
            let held = cpu::held_ranks();
            assert!(held >> RANK == 0, "lock of rank {RANK} taken while ranks {held:#x} are held");
        }
        Self::enter_unordered()
    }

    fn enter_unordered() -> Self {
        if cfg!(debug_assertions) {
            cpu::set_held_ranks(cpu::held_ranks() | 1 << RANK);
        }
        Self
    }
}

impl<const RANK: u8> Drop for Held<RANK> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            cpu::set_held_ranks(cpu::held_ranks() & !(1 << RANK));
        }
    }
}

//! The bare lock under `Lock`: given in the order of asking.
//!
//! Who asks draws a number and waits until it is served. So a CPU waits for those before it and for nobody else, whatever
//! guests make others do; with a plain flag, the CPU next to the memory can win every time. Not `spin`'s lock of that kind:
//! its guards carry their number along, which costs the hot paths twice of what this one does.
//!
//! Before this: `lock`, which adds the rank. After it: `cpu::relax`.

use crate::cpu;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

/// A value for one CPU at a time.
#[derive(Debug)]
pub(super) struct Ticket<T> {
    /// The number that the next who asks will draw. Numbers wrap: there are fewer CPUs than numbers.
    next: AtomicU32,
    /// The number of the holder; [`Ticket::next`] if there is none. Only the holder changes it.
    serving: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `lock` and `try_lock` let one CPU at a time reach the value, which goes from CPU to CPU (so `Send`) and is never shared.
unsafe impl<T: Send> Sync for Ticket<T> {}

impl<T> Ticket<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Draws a number and waits until it is served. The caller owes one [`Ticket::unlock`].
    #[cfg(target_os = "none")]
    #[inline]
    pub(super) fn lock(&self) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.serving.load(Ordering::Acquire) != number {
            self.wait(number);
        }
    }

    #[cfg(target_os = "none")]
    #[cold]
    fn wait(&self, number: u32) {
        while self.serving.load(Ordering::Acquire) != number {
            cpu::relax();
        }
    }

    /// A CPU of the fake machine can be stopped while it waits, which unwinds: it must not leave a number behind that nobody
    /// ever uses. So it draws none until its turn has come.
    #[cfg(not(target_os = "none"))]
    pub(super) fn lock(&self) {
        while !self.try_lock() {
            cpu::relax();
        }
    }

    /// Takes the lock if nobody holds it or waits for it. After true the caller owes one [`Ticket::unlock`].
    #[inline]
    #[must_use]
    pub(super) fn try_lock(&self) -> bool {
        let number = self.next.load(Ordering::Relaxed);
        self.serving.load(Ordering::Acquire) == number
            && self.next.compare_exchange(number, number.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Serves the next. For the holder only.
    #[inline]
    pub(super) fn unlock(&self) {
        // Nobody else writes it, so this needs no locked instruction.
        let number = self.serving.load(Ordering::Relaxed);
        self.serving.store(number.wrapping_add(1), Ordering::Release);
    }

    /// The value; to be reached by the holder only.
    #[inline]
    pub(super) const fn place(&self) -> *mut T {
        self.value.get()
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_past_those_who_wait() {
        let lock = Ticket::new(());
        assert!(lock.try_lock());
        assert!(!lock.try_lock(), "held");
        // Another CPU draws a number, as `lock` does on a real machine.
        let waiting = lock.next.fetch_add(1, Ordering::Relaxed);
        assert_ne!(lock.serving.load(Ordering::Relaxed), waiting);
        lock.unlock();
        assert_eq!(lock.serving.load(Ordering::Relaxed), waiting, "its turn");
        assert!(!lock.try_lock(), "it is the other CPU's now");
        lock.unlock();
        assert!(lock.try_lock());
    }

    #[test]
    fn numbers_wrap() {
        let lock =
            Ticket { next: AtomicU32::new(u32::MAX), serving: AtomicU32::new(u32::MAX), value: UnsafeCell::new(()) };
        for _ in 0..3 {
            lock.lock();
            assert!(!lock.try_lock());
            lock.unlock();
        }
        assert_eq!(lock.serving.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn one_at_a_time() {
        const ROUNDS: u64 = 10_000;
        let lock = Ticket::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        lock.lock();
                        // SAFETY: the lock is held.
                        let value = unsafe { &mut *lock.place() };
                        *value += 1;
                        lock.unlock();
                    }
                });
            }
        });
        assert_eq!(lock.value.into_inner(), 2 * ROUNDS);
    }
}

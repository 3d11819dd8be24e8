//! Making CPUs forget translations of one domain, and knowing that they have.
//!
//! A domain has an epoch. A CPU announces the epoch with which it enters the domain's guest, and a vCPU whose last flush is
//! older than that epoch flushes on its way in. To flush, one raises the epoch, kicks the CPUs that are inside with an older
//! one, and waits until each has left or come back in. CPUs outside need no kick: they see the epoch when they enter.
//!
//! A flush also tells which frame it is about, if it is about one only: what was remembered of other frames stays good then
//! ([`Epoch::only_change`]). Translations in hardware are flushed all the same.
//!
//! Why nothing can be missed: a CPU stores its announcement before it reads the epoch a last time, and a flusher raises the
//! epoch before it reads the announcements; all four are sequentially consistent, so one of the two sees the other. Waiting
//! is safe even though interrupts are off: leaving takes no lock.

use core::sync::atomic::{AtomicU64, Ordering};
use machine::{CpuId, Mfn};

/// CPUs at the most; the machine starts no more (x86/cpu.rs).
pub const MAX_CPUS: usize = 64;
/// "Not inside this domain's guest"; epochs count from 1.
const OUTSIDE: u64 = 0;

/// Whether a vCPU must forget its translations before it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "entering without the flush uses stale translations"]
pub enum NeedsFlush {
    /// They are current.
    No,
    /// They may be stale.
    Yes,
}

/// Bits of a machine frame's number in the word that tells what a flush was about (memory up to 256 TiB); the others are the
/// epoch's low ones. A word could only be taken for that of another epoch if 2^28 flushes came and went while one CPU is between
/// two instructions of [`Epoch::flush`], with interrupts off.
const FRAME_BITS: u32 = 36;
/// Instead of a frame: the flush may be about any.
const ANY_FRAME: u64 = (1 << FRAME_BITS) - 1;

/// The epoch, and who is inside with which.
#[derive(Debug)]
pub(super) struct Epoch {
    now: AtomicU64,
    /// What the flush that began the epoch was about. It is written after the epoch, so its part of the epoch is compared.
    about: AtomicU64,
    inside: [AtomicU64; MAX_CPUS],
}

/// One CPU's way into a domain's guest and out of it.
#[derive(Debug)]
pub struct Door<'a> {
    now: &'a AtomicU64,
    place: &'a AtomicU64,
}

impl Door<'_> {
    /// Announces that the CPU goes into the guest with a vCPU that was last flushed when `seen` was written; answers whether
    /// the vCPU must be flushed, and updates `seen`. A new vCPU begins with 0. To be called just before the entry, and
    /// [`Door::leave`] just after it, whatever came of it.
    #[inline]
    pub fn enter(&self, seen: &mut u64) -> NeedsFlush {
        let mut epoch = self.now.load(Ordering::SeqCst);
        loop {
            self.place.store(epoch, Ordering::SeqCst);
            let again = self.now.load(Ordering::SeqCst);
            if again == epoch {
                break;
            }
            epoch = again;
        }
        if *seen == epoch {
            return NeedsFlush::No;
        }
        *seen = epoch;
        NeedsFlush::Yes
    }

    /// Announces that the CPU has left the guest.
    #[inline]
    pub fn leave(&self) {
        self.place.store(OUTSIDE, Ordering::Release);
    }
}

impl Epoch {
    pub(super) const fn new() -> Self {
        let (now, about) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { now, about, inside: [const { AtomicU64::new(OUTSIDE) }; MAX_CPUS] }
    }

    /// The epoch now.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Acquire)
    }

    /// Where `cpu` announces itself. `None` for a CPU that the machine never starts.
    pub(super) fn door(&self, cpu: CpuId) -> Option<Door<'_>> {
        Some(Door { now: &self.now, place: self.inside.get(cpu.index())? })
    }

    /// The one frame that the map has lost between two epochs, or that it has lost rights to: pages and tables in other
    /// frames are then what they were. `None` if that is not known.
    #[inline]
    pub(super) fn only_change(&self, before: u64, now: u64) -> Option<Mfn> {
        let word = self.about.load(Ordering::SeqCst);
        let frame = word & ANY_FRAME;
        let is_known = now == before.wrapping_add(1) && frame != ANY_FRAME && word == about(now, Some(Mfn::new(frame)));
        is_known.then(|| Mfn::new(frame))
    }

    /// Makes all CPUs forget, and waits until they have. The caller is in the hypervisor, so its own CPU has left. `changed`
    /// is the only frame that the change was about.
    pub(super) fn flush(&self, changed: Option<Mfn>) {
        let epoch = self.now.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.about.store(about(epoch, changed), Ordering::SeqCst);
        if machine::cpu::count() == 1 {
            return;
        }
        let me = machine::cpu::current();
        let is_stale = |place: &AtomicU64| {
            let seen = place.load(Ordering::SeqCst);
            seen != OUTSIDE && seen < epoch
        };
        let others = || {
            self.inside
                .iter()
                .zip(0u16..)
                .take(machine::cpu::count())
                .map(|(place, number)| (place, CpuId(number)))
                .filter(|(_, cpu)| *cpu != me)
        };
        // All are kicked before the first is waited for.
        let mut kicked = false;
        for (_, cpu) in others().filter(|(place, _)| is_stale(place)) {
            machine::cpu::kick(cpu);
            kicked = true;
        }
        if kicked {
            for (place, _) in others() {
                while is_stale(place) {
                    machine::cpu::relax();
                }
            }
        }
    }
}

/// The word that tells what the flush of an epoch was about.
#[inline]
fn about(epoch: u64, changed: Option<Mfn>) -> u64 {
    epoch << FRAME_BITS | changed.map_or(ANY_FRAME, |mfn| mfn.number().min(ANY_FRAME))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use machine::fake::FakeMachine;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_flush_reaches_a_vcpu_at_its_next_entry_once() {
        FakeMachine::builder().build().on_cpu(0, || {
            let epoch = Epoch::new();
            let (cpu, mut seen) = (CpuId(0), 0);
            assert_eq!(epoch.door(cpu).unwrap().enter(&mut seen), NeedsFlush::Yes, "nothing is known of a new vCPU");
            epoch.door(cpu).unwrap().leave();
            assert_eq!(epoch.door(cpu).unwrap().enter(&mut seen), NeedsFlush::No);
            epoch.door(cpu).unwrap().leave();
            epoch.flush(None);
            assert_eq!(epoch.door(cpu).unwrap().enter(&mut seen), NeedsFlush::Yes);
            epoch.door(cpu).unwrap().leave();
            assert_eq!(epoch.door(cpu).unwrap().enter(&mut seen), NeedsFlush::No);
        });
    }

    #[test]
    fn a_flush_tells_its_frame_to_those_who_know_all_before_it() {
        FakeMachine::builder().build().on_cpu(0, || {
            let epoch = Epoch::new();
            let frame = Some(Mfn::new(0x1234));
            assert_eq!(epoch.only_change(0, 1), None, "nothing is known of the beginning");
            epoch.flush(frame);
            assert_eq!(epoch.only_change(1, 2), frame);
            assert_eq!(epoch.only_change(0, 2), None, "two changes");
            assert_eq!(epoch.only_change(2, 2), None);
            assert_eq!(epoch.only_change(2, 3), None, "not told yet");
            epoch.flush(None);
            assert_eq!(epoch.only_change(2, 3), None, "any frame");
            // Numbers that do not fit are any frame, and leave the epoch's part alone.
            epoch.flush(Some(Mfn::new(1 << FRAME_BITS)));
            assert_eq!(epoch.only_change(3, 4), None);
            epoch.flush(Some(Mfn::new(ANY_FRAME - 1)));
            assert_eq!(epoch.only_change(4, 5), Some(Mfn::new(ANY_FRAME - 1)));
        });
    }

    #[test]
    fn cpus_outside_are_left_alone() {
        let machine = FakeMachine::builder().cpus(3).build();
        machine.on_cpu(0, || {
            let epoch = Epoch::new();
            let mut seen = 0;
            // CPU 1 was inside and has left; CPU 2 never was.
            let _first = epoch.door(CpuId(1)).unwrap().enter(&mut seen);
            epoch.door(CpuId(1)).unwrap().leave();
            epoch.flush(None);
            assert_eq!([machine.kicks(1), machine.kicks(2)], [0, 0]);
        });
    }

    #[test]
    fn a_flush_waits_for_those_inside() {
        let machine = FakeMachine::builder().cpus(2).build();
        let epoch = Epoch::new();
        let (inside, flushed) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                machine.on_cpu(1, || {
                    let mut seen = 0;
                    let _first = epoch.door(CpuId(1)).unwrap().enter(&mut seen);
                    inside.store(true, Ordering::SeqCst);
                    // The guest runs until it is kicked.
                    while !machine::cpu::has_work() {
                        assert!(!flushed.load(Ordering::SeqCst), "the flush came back while this CPU was inside");
                        machine::cpu::relax();
                    }
                    assert!(!flushed.load(Ordering::SeqCst));
                    epoch.door(CpuId(1)).unwrap().leave();
                });
            });
            machine.on_cpu(0, || {
                while !inside.load(Ordering::SeqCst) {
                    machine::cpu::relax();
                }
                epoch.flush(None);
                flushed.store(true, Ordering::SeqCst);
            });
        });
        assert_eq!(machine.kicks(1), 1);
    }
}

//! What the hypervisor knows of one page of RAM: 16 bytes.
//!
//! One word holds kind, owner and reference count so that a reference is taken with a single compare-and-swap and no lock;
//! the second word is the free list's links while the page is free, the guest frame number while a guest owns it, and the
//! number of entries in use while it is a table.

use crate::units::{DomId, Gfn};
use core::sync::atomic::{AtomicU64, Ordering};

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Not to be used: firmware's, kept for a 1:1 domain, or not yet handed to the pool.
    Reserved = 0,
    /// First page of a free block; the count field holds the block's order.
    Free = 1,
    /// Inside a free block, not its first page.
    FreeTail = 2,
    /// The hypervisor's own: image, stacks, large heap allocations.
    Hypervisor = 3,
    /// A page of small heap objects.
    Slab = 4,
    /// A page of a page table that hardware walks.
    Table = 5,
    /// RAM of a guest; the count is the number of references, the allocation itself being one.
    Guest = 6,
    /// The hypervisor's, but a guest may map it: shared info, grant tables. Counted as `Guest` is.
    Shared = 7,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Reserved,
        Self::Free,
        Self::FreeTail,
        Self::Hypervisor,
        Self::Slab,
        Self::Table,
        Self::Guest,
        Self::Shared,
    ];
}

/// The first word of a page's record, unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// What the page is used for.
    pub kind: Kind,
    /// Whose page it is, for `Table`, `Guest` and `Shared`.
    pub owner: DomId,
    /// References, or the order of a free block.
    pub count: u32,
    /// Whether old content may still be in it.
    pub dirty: bool,
    /// Whether its owner's map does not show it any more, while references keep it.
    pub leaving: bool,
}

const OWNER_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 48;
const DIRTY: u64 = 1 << 56;
const LEAVING: u64 = 1 << 57;

impl State {
    /// A page of `kind` owned by `owner` with `count` references, clean.
    pub const fn new(kind: Kind, owner: DomId, count: u32) -> Self {
        Self { kind, owner, count, dirty: false, leaving: false }
    }

    const fn pack(self) -> u64 {
        let marks = if self.dirty { DIRTY } else { 0 } | if self.leaving { LEAVING } else { 0 };
        self.count as u64 | (self.owner.0 as u64) << OWNER_SHIFT | (self.kind as u64) << KIND_SHIFT | marks
    }

    const fn unpack(word: u64) -> Self {
        Self {
            kind: Kind::ALL[((word >> KIND_SHIFT) & 7) as usize],
            owner: DomId((word >> OWNER_SHIFT & 0xffff) as u16),
            count: (word & 0xffff_ffff) as u32,
            dirty: word & DIRTY != 0,
            leaving: word & LEAVING != 0,
        }
    }
}

/// A change from one state to another, for whoever guesses that many pages are in the same state: much cheaper than looking at each.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    old: u64,
    new: u64,
}

impl Change {
    /// One that no page is in the state for.
    pub const NEVER: Self = Self { old: u64::MAX, new: u64::MAX };

    /// From `old` to `new`.
    pub const fn between(old: State, new: State) -> Self {
        Self { old: old.pack(), new: new.pack() }
    }
}

/// The record of one page.
#[derive(Debug)]
pub struct FrameInfo {
    word: AtomicU64,
    link: AtomicU64,
}

const _: () = assert!(size_of::<FrameInfo>() == 16);

impl FrameInfo {
    /// The record of a reserved page whose content is unknown.
    pub const fn new() -> Self {
        let state = State { dirty: true, ..State::new(Kind::Reserved, DomId(0), 0) };
        Self { word: AtomicU64::new(state.pack()), link: AtomicU64::new(0) }
    }

    /// The page's state now.
    pub fn state(&self) -> State {
        State::unpack(self.word.load(Ordering::Acquire))
    }

    /// Whether old content may be in the page.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.word.load(Ordering::Acquire) & DIRTY != 0
    }

    /// Takes a reference to a page of `owner`'s whose references are counted, unless the last one has gone already, or there are too many.
    #[inline]
    pub fn take(&self, owner: DomId) -> bool {
        // The kinds that are counted are the last two.
        const _: () = assert!(Kind::Guest as u64 == 6 && Kind::Shared as u64 == 7 && Kind::ALL.len() == 8);
        const COUNTED: u64 = 6 << KIND_SHIFT;
        let expected = COUNTED | (owner.0 as u64) << OWNER_SHIFT;
        let more = |word: u64| {
            let is_owners = word & (COUNTED | 0xffff << OWNER_SHIFT) == expected;
            // The count is in the low bits.
            (is_owners && !matches!(word as u32, 0 | u32::MAX)).then(|| word + 1)
        };
        self.word.try_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Drops a reference. If it was the last one, gives the state before.
    ///
    /// # Errors
    /// The state, if there was none.
    #[inline]
    pub fn put(&self) -> Result<Option<State>, State> {
        let less = |word: u64| (word as u32 != 0).then(|| word - 1);
        match self.word.try_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(word) => Ok((word as u32 == 1).then(|| State::unpack(word))),
            Err(word) => Err(State::unpack(word)),
        }
    }

    /// Makes a change if the page is in the state that it is from.
    #[inline]
    pub fn apply(&self, change: Change) -> bool {
        self.word.compare_exchange(change.old, change.new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Sets the state, whatever it was; for pages that nobody else can reach.
    pub fn set_state(&self, state: State) {
        self.word.store(state.pack(), Ordering::Release);
    }

    /// Sets the state but for the mark of old content, which stays as it is; for pages that nobody else can reach.
    #[inline]
    pub fn set_state_of_content(&self, state: State) {
        let mark = self.word.load(Ordering::Acquire) & DIRTY;
        self.word.store(state.pack() & !DIRTY | mark, Ordering::Release);
    }

    /// Whether the page is the first of a free block of this order.
    #[inline]
    pub fn begins_free(&self, order: u32) -> bool {
        self.word.load(Ordering::Acquire) & !DIRTY == State::new(Kind::Free, DomId(0), order).pack()
    }

    /// Marks a guest's page that has references as one that its owner's map does not show any more. Gives the state before.
    ///
    /// # Errors
    /// The state, if it is none, or is marked already.
    #[inline]
    pub fn leave(&self) -> Result<State, State> {
        const GUESTS: u64 = (Kind::Guest as u64) << KIND_SHIFT;
        let marked = |word: u64| {
            let is_new = word & (7 << KIND_SHIFT | LEAVING) == GUESTS && word as u32 != 0;
            is_new.then_some(word | LEAVING)
        };
        self.word.try_update(Ordering::AcqRel, Ordering::Acquire, marked).map(State::unpack).map_err(State::unpack)
    }

    /// Notes that no old content is in the page any more. Others may take and drop references meanwhile.
    pub fn mark_clean(&self) {
        self.word.fetch_and(!DIRTY, Ordering::AcqRel);
    }

    /// Replaces the state if `change` agrees to what is there; gives the old state.
    pub fn update(&self, mut change: impl FnMut(State) -> Option<State>) -> Result<State, State> {
        self.word
            .try_update(Ordering::AcqRel, Ordering::Acquire, |word| change(State::unpack(word)).map(State::pack))
            .map(State::unpack)
            .map_err(State::unpack)
    }

    /// The free list's neighbours (page numbers, `NONE` at an end).
    pub fn links(&self) -> (u32, u32) {
        let word = self.link.load(Ordering::Relaxed);
        ((word >> 32) as u32, (word & 0xffff_ffff) as u32)
    }

    /// Sets the free list's neighbours.
    pub fn set_links(&self, previous: u32, next: u32) {
        self.link.store(u64::from(previous) << 32 | u64::from(next), Ordering::Relaxed);
    }

    /// The guest frame number last recorded for a page that a guest owns.
    pub fn gfn(&self) -> Gfn {
        Gfn::new(self.link.load(Ordering::Relaxed))
    }

    /// Records where the owner sees the page.
    pub fn set_gfn(&self, gfn: Gfn) {
        self.link.store(gfn.number(), Ordering::Relaxed);
    }

    /// Entries in use of a page that is a table.
    pub fn used(&self) -> u64 {
        self.link.load(Ordering::Relaxed)
    }

    /// Sets the number of entries in use: for a new table.
    pub fn set_used(&self, count: u64) {
        self.link.store(count, Ordering::Relaxed);
    }

    /// One more entry of a table is in use.
    pub fn add_used(&self) {
        self.link.fetch_add(1, Ordering::Relaxed);
    }

    /// One entry of a table is in use no longer.
    pub fn remove_used(&self) {
        self.link.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for FrameInfo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_packing() {
        for kind in Kind::ALL {
            for (owner, count, dirty) in [(0, 0, false), (0x7fef, u32::MAX, true), (3, 17, false)] {
                for leaving in [false, true] {
                    let state = State { kind, owner: DomId(owner), count, dirty, leaving };
                    assert_eq!(State::unpack(state.pack()), state);
                }
            }
        }
    }

    #[test]
    fn cleaning_loses_no_reference_that_comes_meanwhile() {
        extern crate std;
        const ROUNDS: u32 = 200_000;
        let info = FrameInfo::new();
        info.set_state(State { dirty: true, ..State::new(Kind::Guest, DomId(1), 1) });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    assert!(info.update(|state| Some(State { count: state.count + 1, dirty: true, ..state })).is_ok());
                }
            });
            for _ in 0..ROUNDS {
                info.mark_clean();
            }
        });
        assert_eq!(info.state().count, 1 + ROUNDS);
    }

    #[test]
    fn references_are_taken_and_dropped_as_the_state_says() {
        for kind in Kind::ALL {
            for (owner, count) in [(5, 0), (5, 1), (5, 7), (5, u32::MAX), (6, 3), (0xffff, 3)] {
                let state = State { dirty: owner == 6, leaving: count == 7, ..State::new(kind, DomId(owner), count) };
                let info = FrameInfo::new();
                info.set_state(state);
                let countable = matches!(kind, Kind::Guest | Kind::Shared);
                let may = countable && owner == 5 && count != 0 && count != u32::MAX;
                assert_eq!(info.take(DomId(5)), may, "{state:?}");
                assert_eq!(info.state(), State { count: if may { count + 1 } else { count }, ..state });
                info.set_state(state);
                match count {
                    0 => assert_eq!(info.put(), Err(state)),
                    count => {
                        assert_eq!(info.put(), Ok((count == 1).then_some(state)));
                        assert_eq!(info.state(), State { count: count - 1, ..state });
                    }
                }
            }
        }
    }

    #[test]
    fn update_refuses_without_change() {
        let info = FrameInfo::new();
        info.set_state(State::new(Kind::Guest, DomId(5), 1));
        assert!(info.update(|_| None).is_err());
        assert_eq!(info.state(), State::new(Kind::Guest, DomId(5), 1));
        let old = info.update(|s| Some(State { count: s.count + 1, ..s }));
        assert_eq!(old, Ok(State::new(Kind::Guest, DomId(5), 1)));
        assert_eq!(info.state().count, 2);
    }
}

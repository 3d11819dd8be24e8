//! Passing over an instruction that the hypervisor has carried out: where does the next one begin?
//!
//! A processor with NRIPS says so. Without it the bytes must be found through the guest's page tables and recognised
//! (`encoding`), which costs a nested table look-up for each level. So each vCPU remembers where it last did that.
//!
//! Why a remembered place cannot mislead. A hit needs all of: the same CR3, linear address and paging mode; the same
//! p2m epoch, so that every guest page is still what it was; each page-table entry of the walk, read again, unchanged;
//! and the instruction's own bytes, read again, unchanged. That is a whole new walk and a whole new comparison, only with
//! the p2m look-ups left out; the guest can rewrite code, tables or both, from any vCPU, and the hit fails. The pages are
//! pinned while they are remembered; `forget` gives them back when the vCPU leaves its CPU or the epoch has moved.
//!
//! If the bytes are not the instruction that exited, somebody has changed them since: the guest goes on where it was, and
//! executes what is there now.

use super::encoding::{self, Instruction, MAX_LENGTH, Match, Verdict};
use super::mmio::decode::{self, CodeSize, Operation, Seen};
use super::walk::{PhysicalMemory, Space, Step, walk, walk_and_keep};
use machine::codec::registers::{efer, rflags};
use machine::codec::vmcb::{Vmcb, event};

/// Words of code that are remembered: instructions that end within the second aligned word of 8 bytes.
const WORDS: usize = 2;
/// Bytes of a word.
const WORD: usize = 8;

/// Levels that are remembered; five-level paging is not offered to guests.
const KEPT_LEVELS: usize = 4;

/// An entry of a walk, without the number of its page, which is pinned beside it.
#[derive(Clone, Copy, Debug)]
struct Kept {
    entry: u64,
    offset: u16,
    is_short: bool,
}

impl From<Step> for Kept {
    fn from(step: Step) -> Self {
        Self { entry: step.entry, offset: (step.offset & 0xfff) as u16, is_short: step.is_short }
    }
}

impl Kept {
    /// Whether the entry, read again, is what it was.
    #[inline]
    fn still_is<M: PhysicalMemory>(&self, page: &M::Page) -> bool {
        let offset = usize::from(self.offset);
        if !self.is_short {
            return M::read_word(page, offset) == Some(self.entry);
        }
        let mut bytes = [0; 4];
        M::read(page, offset, &mut bytes) && u64::from(u32::from_le_bytes(bytes)) == self.entry
    }
}

/// What an instruction is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    root: u64,
    mode: u64,
    linear: u64,
    code: CodeSize,
    /// For the slot of many instructions: which.
    wanted: Option<Instruction>,
}

impl Key {
    #[inline]
    fn of(space: &Space, vmcb: &Vmcb, wanted: Option<Instruction>) -> Self {
        Self { root: space.root, mode: space.mode(), linear: linear(vmcb), code: code_size(vmcb), wanted }
    }
}

/// A place where an instruction was recognised, with all that the recognition rested on.
#[derive(Debug)]
struct Place<P, F> {
    key: Key,
    epoch: u64,
    /// The entries of the walk: page, place, content.
    steps: [Option<(P, Kept)>; KEPT_LEVELS],
    page: P,
    /// Where the first aligned word lies that the instruction touches.
    offset: u16,
    /// The words, and which of their bits are the instruction's.
    words: [(u64, u64); WORDS],
    length: u8,
    found: F,
}

impl<P, F> Place<P, F> {
    /// Whether a new walk and a new look at the bytes would give the same answer.
    #[inline]
    fn holds<M: PhysicalMemory<Page = P>>(&self, memory: &M, key: &Key) -> bool {
        self.key == *key
            && self.epoch == memory.epoch()
            && self.steps.iter().flatten().all(|(page, kept)| kept.still_is::<M>(page))
            && self.words.iter().zip((usize::from(self.offset)..).step_by(WORD)).all(|((word, mask), at)| {
                *mask == 0 || M::read_word(&self.page, at).is_some_and(|now| (now ^ word) & mask == 0)
            })
    }
}

/// What a vCPU remembers: its last hypercall, its last access to device memory, and its last other instruction.
#[derive(Debug)]
pub struct Remembered<P> {
    hypercall: Option<Place<P, Match>>,
    other: Option<Place<P, Match>>,
    access: Option<Place<P, Operation>>,
}

impl<P> Default for Remembered<P> {
    fn default() -> Self {
        Self { hypercall: None, other: None, access: None }
    }
}

impl<P> Remembered<P> {
    /// Gives all pages back.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Gives the pages back if the guest's memory has changed since they were remembered.
    pub fn forget_before(&mut self, epoch: u64) {
        for place in [&mut self.hypercall, &mut self.other] {
            place.take_if(|place| place.epoch != epoch);
        }
        self.access.take_if(|place| place.epoch != epoch);
    }
}

/// Whether the code that runs is 64-bit code.
#[inline]
pub fn is_64_bit(vmcb: &Vmcb) -> bool {
    vmcb.efer & efer::LMA != 0 && vmcb.cs.attributes & 1 << 9 != 0
}

/// The size of the code that runs.
#[inline]
pub fn code_size(vmcb: &Vmcb) -> CodeSize {
    /// The D bit of a code segment.
    const DEFAULT_32: u16 = 1 << 10;
    match () {
        () if is_64_bit(vmcb) => CodeSize::Bits64,
        () if vmcb.cs.attributes & DEFAULT_32 != 0 => CodeSize::Bits32,
        () => CodeSize::Bits16,
    }
}

/// The linear address of the instruction that exited.
#[inline]
pub fn linear(vmcb: &Vmcb) -> u64 {
    if is_64_bit(vmcb) { vmcb.rip } else { vmcb.cs.base.wrapping_add(vmcb.rip) & 0xffff_ffff }
}

/// Copies the bytes at a linear address, as far as they can be reached. Gives how many.
pub fn fetch<M: PhysicalMemory>(memory: &M, space: &Space, linear: u64, out: &mut [u8]) -> usize {
    let mut done = 0;
    while done < out.len() {
        let at = linear.wrapping_add(done as u64);
        let Ok(found) = walk(memory, space, at) else { break };
        let Some(page) = memory.page(found.gpa.frame()) else { break };
        let offset = found.gpa.offset();
        let count = (machine::PAGE_SIZE - offset).min(out.len() - done);
        let Some(part) = out.get_mut(done..done + count) else { break };
        if !M::read(&page, offset, part) {
            break;
        }
        done += count;
    }
    done
}

/// Recognises the instruction that exited. `None` if it is not there any more.
#[inline]
pub fn recognise<M: PhysicalMemory>(
    memory: &M,
    remembered: &mut Remembered<M::Page>,
    vmcb: &Vmcb,
    wanted: Instruction,
) -> Option<Match> {
    let slot = if wanted == Instruction::Vmmcall { &mut remembered.hypercall } else { &mut remembered.other };
    let space = Space::of(vmcb);
    let key = Key::of(&space, vmcb, Some(wanted));
    if let Some(place) = slot
        && place.holds(memory, &key)
    {
        return Some(place.found);
    }
    *slot = None;
    let is_64_bit = key.code == CodeSize::Bits64;
    let decode = |bytes: &[u8]| match encoding::recognise(bytes, is_64_bit, wanted) {
        Verdict::Is(found) => Seen::Is(found.length, found),
        Verdict::IsNot => Seen::IsNot,
        Verdict::Incomplete => Seen::Incomplete,
    };
    match look(memory, &space, key, slot, decode) {
        Found::Is(_, found) => Some(found),
        Found::Gone | Found::Unknown(_) => None,
    }
}

/// What was found at the place of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<F> {
    /// Its length, and what it is.
    Is(u8, F),
    /// Something that is not known: these bytes.
    Unknown([u8; MAX_LENGTH]),
    /// There is no code any more.
    Gone,
}

/// Finds out how the instruction that exited accesses memory.
#[inline]
pub fn recognise_access<M: PhysicalMemory>(
    memory: &M,
    remembered: &mut Remembered<M::Page>,
    vmcb: &Vmcb,
) -> Found<Operation> {
    let slot = &mut remembered.access;
    let space = Space::of(vmcb);
    let key = Key::of(&space, vmcb, None);
    if let Some(place) = slot
        && place.holds(memory, &key)
    {
        return Found::Is(place.length, place.found);
    }
    *slot = None;
    look(memory, &space, key, slot, |bytes| decode::decode(bytes, key.code))
}

/// Looks at the bytes, and remembers them if they are few and in one page.
#[cold]
fn look<M: PhysicalMemory, F: Copy>(
    memory: &M,
    space: &Space,
    key: Key,
    slot: &mut Option<Place<M::Page, F>>,
    decode: impl Fn(&[u8]) -> Seen<F>,
) -> Found<F> {
    // The epoch is read before any page is looked up: a change in between makes the place stale, not wrong.
    let epoch = memory.epoch();
    let mut steps = [const { None }; KEPT_LEVELS];
    let mut places = steps.iter_mut();
    let mut has_room = true;
    let walked = walk_and_keep(memory, space, key.linear, |page, step| match places.next() {
        Some(place) => *place = Some((page, Kept::from(step))),
        None => has_room = false,
    });
    let Some((page, offset)) = walked.ok().and_then(|walked| {
        let page = memory.page(walked.gpa.frame())?;
        Some((page, walked.gpa.offset()))
    }) else {
        return Found::Gone;
    };
    let mut bytes = [0; MAX_LENGTH];
    let in_page = machine::PAGE_SIZE.saturating_sub(offset).min(MAX_LENGTH);
    let first = bytes.get_mut(..in_page).unwrap_or_default();
    if !M::read(&page, offset, first) {
        return Found::Gone;
    }
    let mut seen = decode(first);
    if matches!(seen, Seen::Incomplete) {
        let count = fetch(memory, space, key.linear, &mut bytes);
        seen = decode(bytes.get(..count).unwrap_or_default());
    }
    let (length, found) = match seen {
        Seen::Is(length, found) => (length, found),
        Seen::IsNot => return Found::Unknown(bytes),
        Seen::Incomplete => return Found::Gone,
    };
    let count = usize::from(length);
    if count <= in_page
        && has_room
        && let Some(words) = words_of(bytes.get(..count).unwrap_or_default(), offset % WORD)
    {
        let offset = (offset & 0xff8) as u16;
        *slot = Some(Place { key, epoch, steps, page, offset, words, length, found });
    }
    Found::Is(length, found)
}

/// Code that begins `skip` bytes into a word, as words with masks; `None` if it is too long.
fn words_of(code: &[u8], skip: usize) -> Option<[(u64, u64); WORDS]> {
    let (mut bytes, mut mask) = ([0; WORDS * WORD], [0; WORDS * WORD]);
    let end = skip.checked_add(code.len())?;
    bytes.get_mut(skip..end)?.copy_from_slice(code);
    mask.get_mut(skip..end)?.fill(0xff);
    let mut words = [(0, 0); WORDS];
    let pairs = bytes.as_chunks::<WORD>().0.iter().zip(mask.as_chunks::<WORD>().0);
    for (place, (word, mask)) in words.iter_mut().zip(pairs) {
        *place = (u64::from_le_bytes(*word), u64::from_le_bytes(*mask));
    }
    Some(words)
}

/// Goes on `length` bytes further: what every completed instruction does. RF and the interrupt shadow end, and a trap flag
/// that was set traps.
#[inline]
pub fn advance(vmcb: &mut Vmcb, length: u8) {
    let next = vmcb.rip.wrapping_add(u64::from(length));
    go_on_at(vmcb, if is_64_bit(vmcb) { next } else { next & 0xffff_ffff });
}

/// As [`advance`], to an address that is known.
#[inline]
pub fn go_on_at(vmcb: &mut Vmcb, rip: u64) {
    vmcb.rip = rip;
    vmcb.interrupt_shadow = 0;
    if vmcb.rflags & (rflags::RF | rflags::TF) != 0 {
        vmcb.rflags &= !rflags::RF;
        if vmcb.rflags & rflags::TF != 0 {
            vmcb.dr6 |= DR6_SINGLE_STEP;
            super::interrupts::queue(vmcb, event::EXCEPTION, DEBUG_VECTOR, None);
        }
    }
}

/// DR6.BS: a single step was the reason of the debug exception.
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// #DB.
const DEBUG_VECTOR: u8 = 1;

#[cfg(test)]
#[path = "instruction_tests.rs"]
mod tests;

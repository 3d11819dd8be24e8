//! Passing over an instruction that the hypervisor has carried out: where does the next one begin?
//!
//! A processor with NRIPS says so. Without it the bytes must be found through the guest's page tables and recognised
//! (`encoding`), which costs a nested table look-up for each level. So each vCPU remembers where it last did that.
//!
//! Why a remembered place cannot mislead. A hit needs all of: the same CR3, linear address and paging mode; the same
//! p2m epoch, so that every guest page is still what it was; each page-table entry of the walk, read again, unchanged;
//! and the instruction's own bytes, read again, unchanged. That is a whole new walk and a whole new comparison, only with
//! the p2m look-ups left out; the guest can rewrite code, tables or both, from any vCPU, and the hit fails. The pages are
//! pinned while they are remembered; `forget` gives them back when the vCPU leaves its CPU, or enters with another epoch.
//! If all that happened between two epochs is that one frame went, whatever does not rest on it is as good at the new one.
//!
//! If the bytes are not the instruction that exited, somebody has changed them since: the guest goes on where it was, and
//! executes what is there now.

use super::encoding::{self, Instruction, MAX_LENGTH, Match, Verdict};
use super::mmio::decode::{self, CodeSize, Operation, Seen};
use super::walk::{PhysicalMemory, Space, Step, walk, walk_and_keep};
use heapless::Vec;
use machine::codec::registers::{cr0, rflags};
use machine::codec::vmcb::{GuestState, event};
use machine::vcpu::{InterruptShadow, Vcpu as Hardware};

/// Bytes of a word.
const WORD: usize = 8;
/// Words of code that are remembered: instructions that end within the second aligned word of 8 bytes.
const CODE_WORDS: usize = 2;
/// Levels of a walk that are remembered; five-level paging is not offered to guests.
const KEPT_LEVELS: usize = 4;
/// Words that a recognition rests on.
const WATCHED: usize = KEPT_LEVELS + CODE_WORDS;

/// A word of guest memory, and what some of its bits were.
#[derive(Debug)]
struct Watch<W> {
    word: W,
    value: u64,
    mask: u64,
}

impl<W> Watch<W> {
    /// Watches an entry of a page table.
    fn entry<M: PhysicalMemory<Word = W>>(page: M::Page, step: &Step) -> Option<Self> {
        let word = M::word(page, step.offset & !(WORD - 1))?;
        if !step.is_short {
            return Some(Self { word, value: step.entry, mask: u64::MAX });
        }
        let shift = if step.offset & 4 == 0 { 0 } else { 32 };
        Some(Self { word, value: step.entry << shift, mask: 0xffff_ffff << shift })
    }

    /// Whether the word, read again, is what it was.
    #[inline]
    fn holds<M: PhysicalMemory<Word = W>>(&self) -> bool {
        (M::load(&self.word) ^ self.value) & self.mask == 0
    }
}

/// What an instruction is looked up by: all registers that say where it is, and which bytes it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    rip: u64,
    root: u64,
    cr0: u64,
    cr4: u64,
    efer: u64,
    code_base: u64,
    code_attributes: u16,
    /// For the slot of many instructions: which.
    wanted: Option<Instruction>,
}

impl Key {
    #[inline]
    fn of(state: &GuestState, wanted: Option<Instruction>) -> Self {
        Self {
            rip: state.rip,
            root: state.cr3,
            cr0: state.cr0 & (cr0::PG | cr0::WP),
            cr4: state.cr4,
            efer: state.efer(),
            code_base: state.cs.base,
            code_attributes: state.cs.attributes,
            wanted,
        }
    }
}

/// A place where an instruction was recognised, with all that the recognition rested on.
#[derive(Debug)]
struct Place<W, F> {
    key: Key,
    epoch: u64,
    /// The entries of the walk, and the code itself.
    watches: Vec<Watch<W>, WATCHED>,
    length: u8,
    found: F,
}

impl<W, F> Place<W, F> {
    /// Whether a new walk and a new look at the bytes would give the same answer.
    #[inline]
    fn holds<M: PhysicalMemory<Word = W>>(&self, memory: &M, key: &Key) -> bool {
        self.key == *key && self.epoch == memory.epoch() && self.watches.iter().all(Watch::holds::<M>)
    }
}

/// What a vCPU remembers: its last hypercall, its last access to device memory, and its last other instruction.
#[derive(Debug)]
pub struct Remembered<W> {
    hypercall: Option<Place<W, Match>>,
    other: Option<Place<W, Match>>,
    access: Option<Place<W, Operation>>,
}

impl<W> Default for Remembered<W> {
    fn default() -> Self {
        Self { hypercall: None, other: None, access: None }
    }
}

impl<W> Remembered<W> {
    /// Gives all pages back.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Gives back what rests on a word that `is_gone`, and what was not known at the epoch `before`. The rest holds at the
    /// epoch `now`.
    pub fn renew(&mut self, before: u64, now: u64, is_gone: impl Fn(&W) -> bool) {
        renew_place(&mut self.hypercall, before, now, &is_gone);
        renew_place(&mut self.other, before, now, &is_gone);
        renew_place(&mut self.access, before, now, &is_gone);
    }
}

fn renew_place<W, F>(slot: &mut Option<Place<W, F>>, before: u64, now: u64, is_gone: &impl Fn(&W) -> bool) {
    match slot {
        Some(place) if place.epoch == before && !place.watches.iter().any(|watch| is_gone(&watch.word)) => {
            place.epoch = now;
        }
        _ => *slot = None,
    }
}

/// The size of the code that runs.
#[inline]
pub fn code_size(state: &GuestState) -> CodeSize {
    /// The D bit of a code segment.
    const DEFAULT_32: u16 = 1 << 10;
    match () {
        () if state.is_64_bit() => CodeSize::Bits64,
        () if state.cs.attributes & DEFAULT_32 != 0 => CodeSize::Bits32,
        () => CodeSize::Bits16,
    }
}

/// The linear address of the instruction that exited.
#[inline]
pub fn linear(state: &GuestState) -> u64 {
    if state.is_64_bit() { state.rip } else { state.cs.base.wrapping_add(state.rip) & 0xffff_ffff }
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
    remembered: &mut Remembered<M::Word>,
    state: &GuestState,
    wanted: Instruction,
) -> Option<Match> {
    let slot = if wanted == Instruction::Vmmcall { &mut remembered.hypercall } else { &mut remembered.other };
    if let Some(place) = slot
        && place.holds(memory, &Key::of(state, Some(wanted)))
    {
        return Some(place.found);
    }
    recognise_anew(memory, state, slot, wanted)
}

#[cold]
fn recognise_anew<M: PhysicalMemory>(
    memory: &M,
    state: &GuestState,
    slot: &mut Option<Place<M::Word, Match>>,
    wanted: Instruction,
) -> Option<Match> {
    let decode = |bytes: &[u8]| match encoding::recognise(bytes, state.is_64_bit(), wanted) {
        Verdict::Is(found) => Seen::Is(found.length, found),
        Verdict::IsNot => Seen::IsNot,
        Verdict::Incomplete => Seen::Incomplete,
    };
    match look(memory, state, Some(wanted), slot, decode) {
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
    remembered: &mut Remembered<M::Word>,
    state: &GuestState,
) -> Found<Operation> {
    let slot = &mut remembered.access;
    if let Some(place) = slot
        && place.holds(memory, &Key::of(state, None))
    {
        return Found::Is(place.length, place.found);
    }
    look(memory, state, None, slot, |bytes| decode::decode(bytes, code_size(state)))
}

/// Looks at the bytes, and remembers them if they are few and in one page.
#[cold]
fn look<M: PhysicalMemory, F: Copy>(
    memory: &M,
    state: &GuestState,
    wanted: Option<Instruction>,
    slot: &mut Option<Place<M::Word, F>>,
    decode: impl Fn(&[u8]) -> Seen<F>,
) -> Found<F> {
    *slot = None;
    let (space, linear) = (Space::of(state), linear(state));
    // The epoch is read before any page is looked up: a change in between makes the place stale, not wrong.
    let epoch = memory.epoch();
    let mut watches = Vec::new();
    let mut is_whole = true;
    let walked = walk_and_keep(memory, &space, linear, |page, step| {
        is_whole &= Watch::entry::<M>(page, &step).is_some_and(|watch| watches.push(watch).is_ok());
    });
    let Some((page, frame, offset)) = walked.ok().and_then(|walked| {
        let frame = walked.gpa.frame();
        Some((memory.page(frame)?, frame, walked.gpa.offset()))
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
        let count = fetch(memory, &space, linear, &mut bytes);
        seen = decode(bytes.get(..count).unwrap_or_default());
    }
    let (length, found) = match seen {
        Seen::Is(length, found) => (length, found),
        Seen::IsNot => return Found::Unknown(bytes),
        Seen::Incomplete => return Found::Gone,
    };
    let count = usize::from(length);
    if count <= in_page && is_whole {
        let code = words_of(bytes.get(..count).unwrap_or_default(), offset % WORD);
        let mut at = offset & !(WORD - 1);
        for (value, mask) in code.into_iter().flatten().filter(|(_, mask)| *mask != 0) {
            let word = memory.page(frame).and_then(|page| M::word(page, at));
            is_whole &= word.is_some_and(|word| watches.push(Watch { word, value, mask }).is_ok());
            at = at.saturating_add(WORD);
        }
        if is_whole && code.is_some() {
            let key = Key::of(state, wanted);
            *slot = Some(Place { key, epoch, watches, length, found });
        }
    }
    Found::Is(length, found)
}

/// Code that begins `skip` bytes into a word, as words with masks; `None` if it is too long.
fn words_of(code: &[u8], skip: usize) -> Option<[(u64, u64); CODE_WORDS]> {
    let (mut bytes, mut mask) = ([0; CODE_WORDS * WORD], [0; CODE_WORDS * WORD]);
    let end = skip.checked_add(code.len())?;
    bytes.get_mut(skip..end)?.copy_from_slice(code);
    mask.get_mut(skip..end)?.fill(0xff);
    let mut words = [(0, 0); CODE_WORDS];
    let pairs = bytes.as_chunks::<WORD>().0.iter().zip(mask.as_chunks::<WORD>().0);
    for (place, (word, mask)) in words.iter_mut().zip(pairs) {
        *place = (u64::from_le_bytes(*word), u64::from_le_bytes(*mask));
    }
    Some(words)
}

/// Goes on `length` bytes further: what every completed instruction does. RF and the interrupt shadow end, and a trap flag
/// that was set traps.
#[inline]
pub fn advance(hardware: &mut Hardware, length: u8) {
    let next = hardware.guest().rip.wrapping_add(u64::from(length));
    go_on_at(hardware, if hardware.is_64_bit() { next } else { next & 0xffff_ffff });
}

/// As [`advance`], to an address that is known.
#[inline]
pub fn go_on_at(hardware: &mut Hardware, rip: u64) {
    hardware.set_interrupt_shadow(InterruptShadow::No);
    let state = hardware.guest_mut();
    state.rip = rip;
    if state.rflags & (rflags::RF | rflags::TF) != 0 {
        state.rflags &= !rflags::RF;
        if state.rflags & rflags::TF != 0 {
            state.dr6 |= DR6_SINGLE_STEP;
            super::interrupts::queue(hardware, event::EXCEPTION, DEBUG_VECTOR, None);
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

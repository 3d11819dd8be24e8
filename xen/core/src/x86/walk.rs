//! The guest's own page tables, walked by the hypervisor to find the bytes of an instruction that the guest has just
//! executed, or to say which page fault an access of the guest's deserves.
//!
//! Why a walker of its own beside `guest_mem`: it names every entry that it has read, so that `instruction` can later
//! check with a few loads that a walk would still give the same answer. It changes nothing: accessed and dirty bits are
//! the processor's business here. (AMD APM volume 2, chapter 5.)

use machine::Gpa;
use machine::codec::registers::{cr0, cr4, efer};
use machine::codec::vmcb::GuestState;

/// Physical memory of a guest, page by page.
pub trait PhysicalMemory {
    /// A page that stays where it is while this value lives.
    type Page;
    /// A word of such a page, to be read again and again.
    type Word;
    /// The page with this number, if it is RAM.
    fn page(&self, gfn: machine::Gfn) -> Option<Self::Page>;
    /// A page that the guest may write, and that the hypervisor is about to write for it.
    fn page_for_writing(&self, gfn: machine::Gfn) -> Option<Self::Page>;
    /// Copies from a page; false if that would cross its end.
    fn read(page: &Self::Page, offset: usize, out: &mut [u8]) -> bool;
    /// An aligned word of 8 bytes of a page.
    fn word(page: Self::Page, offset: usize) -> Option<Self::Word>;
    /// What it holds now, in one load.
    fn load(word: &Self::Word) -> u64;
    /// Copies to a page that was asked for for writing; false if that would cross its end.
    fn write(page: &Self::Page, offset: usize, bytes: &[u8]) -> bool;
    /// Sets bits of one byte of a page that was asked for for writing, without disturbing others.
    fn set_bits(page: &Self::Page, offset: usize, bits: u8);
    /// A number that changes before a page can be taken from the guest or moved.
    fn epoch(&self) -> u64;
}

/// How a guest translates linear addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paging {
    /// It does not.
    Off,
    /// Two levels of 32-bit entries.
    Legacy,
    /// Three levels of 64-bit entries.
    Pae,
    /// Four levels, or five.
    Long {
        /// 4 or 5.
        levels: u8,
    },
}

/// The registers that a walk depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// How many levels, of what.
    pub paging: Paging,
    /// CR3.
    pub root: u64,
    cr0: u64,
    cr4: u64,
    efer: u64,
}

impl Space {
    /// The address space that the registers in a VMCB describe.
    #[inline]
    pub fn of(state: &GuestState) -> Self {
        let paging = match () {
            () if state.cr0 & cr0::PG == 0 => Paging::Off,
            () if state.efer() & efer::LMA != 0 && state.cr4 & cr4::LA57 != 0 => Paging::Long { levels: 5 },
            () if state.efer() & efer::LMA != 0 => Paging::Long { levels: 4 },
            () if state.cr4 & cr4::PAE != 0 => Paging::Pae,
            () => Paging::Legacy,
        };
        Self { paging, root: state.cr3, cr0: state.cr0, cr4: state.cr4, efer: state.efer() }
    }

    /// Everything but CR3 that decides a walk, in one word: equal words and equal CR3 mean equal walks.
    #[inline]
    pub const fn mode(&self) -> u64 {
        self.cr0 & (cr0::PG | cr0::WP) | self.cr4 << 32 | self.efer & (efer::LMA | efer::NXE)
    }
}

/// What the guest wants with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intent {
    /// It writes.
    pub write: bool,
    /// It fetches an instruction.
    pub fetch: bool,
    /// It runs at privilege level 3.
    pub user: bool,
    /// RFLAGS.AC is set: SMAP does not hold for explicit accesses.
    pub ignore_smap: bool,
}

/// A page fault, as the guest would get it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The linear address, for CR2.
    pub address: u64,
    /// The error code.
    pub error_code: u32,
}

/// Bits of a page fault's error code (APM volume 2, 8.4.2).
mod error {
    pub(super) const PRESENT: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const FETCH: u32 = 1 << 4;
}

/// Bits of an entry.
mod entry {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
    /// Address bits of a 64-bit entry.
    pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// An entry that a walk has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The page that it lies in.
    pub gfn: machine::Gfn,
    /// Where it lies in its page.
    pub offset: usize,
    /// What it said.
    pub entry: u64,
    /// It has 4 bytes, not 8.
    pub is_short: bool,
}

impl Step {
    /// Reads the entry again from the page that it lies in.
    #[inline]
    pub fn read<M: PhysicalMemory>(&self, page: &M::Page) -> Option<u64> {
        let mut bytes = [0; 8];
        let part = if self.is_short { bytes.get_mut(..4)? } else { &mut bytes[..] };
        M::read(page, self.offset, part).then(|| u64::from_le_bytes(bytes))
    }
}

/// The most levels there are.
pub const MAX_LEVELS: usize = 5;

/// A finished walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Where the linear address leads.
    pub gpa: Gpa,
    /// Rights of all levels together.
    rights: u64,
}

/// Why a walk found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkError {
    /// The guest's tables do not allow it.
    Fault(PageFault),
    /// A table lies where there is no RAM.
    NoTable,
}

/// Shape of one level: how far its index is shifted, and how many bits it has.
struct Level {
    shift: u32,
    bits: u32,
    may_be_leaf: bool,
}

fn level(space: &Space, number: u8) -> Level {
    match (space.paging, number) {
        (Paging::Legacy, 1) => Level { shift: 12, bits: 10, may_be_leaf: true },
        (Paging::Legacy, _) => Level { shift: 22, bits: 10, may_be_leaf: space.cr4 & cr4::PSE != 0 },
        (Paging::Pae, 3) => Level { shift: 30, bits: 2, may_be_leaf: false },
        (_, number) => Level { shift: 3 + 9 * u32::from(number), bits: 9, may_be_leaf: number <= 3 },
    }
}

/// Finds the guest physical address behind a linear one, without asking for rights.
///
/// # Errors
/// [`WalkError`]: an entry is not present, or a table is not RAM.
pub fn walk<M: PhysicalMemory>(memory: &M, space: &Space, linear: u64) -> Result<Walk, WalkError> {
    walk_and_keep(memory, space, linear, |_, _| ())
}

/// As [`walk`]; hands each entry that was read, from the root down, to `keep`, with the page that it lies in.
///
/// # Errors
/// As [`walk`].
pub fn walk_and_keep<M: PhysicalMemory>(
    memory: &M,
    space: &Space,
    linear: u64,
    mut keep: impl FnMut(M::Page, Step),
) -> Result<Walk, WalkError> {
    let mut result = Walk { gpa: Gpa::new(linear), rights: entry::WRITE | entry::USER };
    let (levels, entry_size, mut table) = match space.paging {
        Paging::Off => {
            result.gpa = Gpa::new(linear & 0xffff_ffff);
            return Ok(result);
        }
        Paging::Legacy => (2, 4, space.root & 0xffff_f000),
        Paging::Pae => (3, 8, space.root & 0xffff_ffe0),
        Paging::Long { levels } => (levels, 8, space.root & entry::ADDRESS),
    };
    for number in (1..=levels).rev() {
        let shape = level(space, number);
        let index = linear >> shape.shift & ((1 << shape.bits) - 1);
        let at = Gpa::new(table.wrapping_add(index.wrapping_mul(entry_size)));
        let page = memory.page(at.frame()).ok_or(WalkError::NoTable)?;
        let step = Step { gfn: at.frame(), offset: at.offset(), entry: 0, is_short: entry_size == 4 };
        let bits = step.read::<M>(&page).ok_or(WalkError::NoTable)?;
        keep(page, Step { entry: bits, ..step });
        if bits & entry::PRESENT == 0 {
            return Err(WalkError::Fault(PageFault { address: linear, error_code: 0 }));
        }
        // Entries of PAE's top level have no rights.
        if (space.paging, number) != (Paging::Pae, 3) {
            result.rights &= bits | !(entry::WRITE | entry::USER);
            result.rights |= bits & entry::NO_EXECUTE;
        }
        let is_leaf = number == 1 || shape.may_be_leaf && bits & entry::LARGE != 0;
        let low = (1u64 << shape.shift) - 1;
        if is_leaf {
            result.gpa = Gpa::new(leaf_address(space, bits, number) & !low | linear & low);
            break;
        }
        table = if entry_size == 4 { bits & 0xffff_f000 } else { bits & entry::ADDRESS };
    }
    Ok(result)
}

/// The address in a leaf. A large leaf of two-level paging holds address bits 39:32 in bits 20:13.
fn leaf_address(space: &Space, bits: u64, number: u8) -> u64 {
    match space.paging {
        Paging::Legacy if number == 2 => bits & 0xffc0_0000 | (bits >> 13 & 0xff) << 32,
        Paging::Legacy => bits & 0xffff_f000,
        _ => bits & entry::ADDRESS,
    }
}

/// The page fault that an access to `linear` raises, if it raises one.
///
/// # Errors
/// [`WalkError::NoTable`] if a table is not RAM: the processor would take a nested fault.
pub fn fault_of<M: PhysicalMemory>(
    memory: &M,
    space: &Space,
    linear: u64,
    intent: Intent,
) -> Result<Option<PageFault>, WalkError> {
    let has_no_execute = space.efer & efer::NXE != 0;
    let mut error_code = 0;
    if intent.write {
        error_code |= error::WRITE;
    }
    if intent.user {
        error_code |= error::USER;
    }
    if intent.fetch && (has_no_execute || space.cr4 & cr4::SMEP != 0) {
        error_code |= error::FETCH;
    }
    match walk(memory, space, linear) {
        Err(WalkError::Fault(fault)) => Ok(Some(PageFault { error_code, ..fault })),
        Err(other) => Err(other),
        Ok(walk) => {
            let (user_page, writable) = (walk.rights & entry::USER != 0, walk.rights & entry::WRITE != 0);
            let supervisor = !intent.user;
            let denied = intent.user && !user_page
                || intent.write && !writable && (intent.user || space.cr0 & cr0::WP != 0)
                || intent.fetch && has_no_execute && walk.rights & entry::NO_EXECUTE != 0
                || intent.fetch && supervisor && user_page && space.cr4 & cr4::SMEP != 0
                || !intent.fetch && supervisor && user_page && !intent.ignore_smap && space.cr4 & cr4::SMAP != 0;
            let denied = denied && space.paging != Paging::Off;
            Ok(denied.then_some(PageFault { address: linear, error_code: error_code | error::PRESENT }))
        }
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
pub(super) mod tests;

//! Reads and writes of guest memory that the hypervisor makes for a guest's instruction: with the guest's own rights, the
//! page faults that it would get, and the accessed and dirty bits that the processor would set.

use super::walk::{Intent, MAX_LEVELS, PageFault, PhysicalMemory, Space, Step, WalkError, fault_of, walk_and_keep};
use machine::codec::registers::rflags;
use machine::codec::vmcb::{GuestState, Segment};
use machine::{Gpa, PAGE_SIZE};

/// Why an access did not happen. Nothing was changed but accessed bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// The guest gets this page fault.
    Fault(PageFault),
    /// The address is not canonical: the guest gets #GP.
    NotCanonical,
    /// There is no RAM at this guest physical address.
    NotRam(Gpa),
}

/// Accessed and dirty bits of a page-table entry.
const ACCESSED: u8 = 1 << 5;
const DIRTY: u8 = 1 << 6;
/// The largest piece that is moved at once; it touches two pages at the most.
pub const MAX_BYTES: usize = 64;

/// What an access by the running instruction means for rights.
pub fn intent(state: &GuestState, write: bool) -> Intent {
    Intent { write, fetch: false, user: state.cpl == 3, ignore_smap: state.rflags & rflags::AC != 0 }
}

/// A segment register by its encoding: ES, CS, SS, DS, FS, GS.
pub fn segment(state: &GuestState, number: u8) -> &Segment {
    match number {
        0 => &state.es,
        1 => &state.cs,
        2 => &state.ss,
        4 => &state.fs,
        5 => &state.gs,
        _ => &state.ds,
    }
}

/// The linear address of `offset` in a segment. In 64-bit code only FS and GS have a base.
pub fn linear(state: &GuestState, number: u8, offset: u64) -> u64 {
    if !state.is_64_bit() {
        return segment(state, number).base.wrapping_add(offset) & 0xffff_ffff;
    }
    if number >= 4 { segment(state, number).base.wrapping_add(offset) } else { offset }
}

/// Where the pieces of an access lie: up to two pages, each with an offset and a length.
struct Pieces<P> {
    first: (P, usize, usize),
    second: Option<(P, usize)>,
}

fn is_canonical(address: u64) -> bool {
    let high = address.cast_signed() >> 47;
    high == 0 || high == -1
}

fn page_behind<M: PhysicalMemory>(
    memory: &M,
    space: &Space,
    linear: u64,
    intent: Intent,
) -> Result<(M::Page, usize), AccessError> {
    let not_ram = AccessError::NotRam(Gpa::new(linear));
    match fault_of(memory, space, linear, intent) {
        Ok(None) => {}
        Ok(Some(fault)) => return Err(AccessError::Fault(fault)),
        Err(_) => return Err(not_ram),
    }
    let mut steps: [Option<Step>; MAX_LEVELS] = [None; MAX_LEVELS];
    let mut places = steps.iter_mut();
    let walked = walk_and_keep(memory, space, linear, |_, step| {
        if let Some(place) = places.next() {
            *place = Some(step);
        }
    });
    let walked = match walked {
        Ok(walked) => walked,
        Err(WalkError::Fault(fault)) => return Err(AccessError::Fault(fault)),
        Err(WalkError::NoTable) => return Err(not_ram),
    };
    let gfn = walked.gpa.frame();
    let page = if intent.write { memory.page_for_writing(gfn) } else { memory.page(gfn) };
    let page = page.ok_or(AccessError::NotRam(walked.gpa))?;
    // The bits of every level, and the dirty bit of the last.
    let last = steps.iter().flatten().count().saturating_sub(1);
    for (index, step) in steps.iter().flatten().enumerate() {
        let wanted = ACCESSED | if intent.write && index == last { DIRTY } else { 0 };
        let is_rightless = matches!((space.paging, index), (super::walk::Paging::Pae, 0));
        let is_set = is_rightless || step.entry & u64::from(wanted) == u64::from(wanted);
        if !is_set && let Some(table) = memory.page_for_writing(step.gfn) {
            M::set_bits(&table, step.offset, wanted);
        }
    }
    Ok((page, walked.gpa.offset()))
}

fn locate<M: PhysicalMemory>(
    memory: &M,
    state: &GuestState,
    linear: u64,
    length: usize,
    write: bool,
) -> Result<Pieces<M::Page>, AccessError> {
    let (space, intent) = (Space::of(state), intent(state, write));
    if state.is_64_bit() && !is_canonical(linear) {
        return Err(AccessError::NotCanonical);
    }
    let (page, offset) = page_behind(memory, &space, linear, intent)?;
    let in_first = PAGE_SIZE.saturating_sub(offset).min(length);
    let rest = length.saturating_sub(in_first);
    let second = match rest {
        0 => None,
        _ => Some((page_behind(memory, &space, linear.wrapping_add(in_first as u64), intent)?.0, rest)),
    };
    Ok(Pieces { first: (page, offset, in_first), second })
}

/// Reads up to [`MAX_BYTES`] at a linear address.
///
/// # Errors
/// [`AccessError`].
pub fn read<M: PhysicalMemory>(memory: &M, state: &GuestState, linear: u64, out: &mut [u8]) -> Result<(), AccessError> {
    let not_ram = AccessError::NotRam(Gpa::new(linear));
    let pieces = locate(memory, state, linear, out.len(), false)?;
    let (page, offset, count) = pieces.first;
    let (low, high) = out.split_at_mut_checked(count).ok_or(not_ram)?;
    let first = M::read(&page, offset, low);
    let second = pieces.second.is_none_or(|(page, _)| M::read(&page, 0, high));
    if first && second { Ok(()) } else { Err(not_ram) }
}

/// Whether [`write`] would succeed; sets the bits that it would set.
///
/// # Errors
/// [`AccessError`].
pub fn check_write<M: PhysicalMemory>(
    memory: &M,
    state: &GuestState,
    linear: u64,
    length: usize,
) -> Result<(), AccessError> {
    locate(memory, state, linear, length, true).map(drop)
}

/// Writes up to [`MAX_BYTES`] to a linear address.
///
/// # Errors
/// [`AccessError`].
pub fn write<M: PhysicalMemory>(memory: &M, state: &GuestState, linear: u64, bytes: &[u8]) -> Result<(), AccessError> {
    let not_ram = AccessError::NotRam(Gpa::new(linear));
    let pieces = locate(memory, state, linear, bytes.len(), true)?;
    let (page, offset, count) = pieces.first;
    let (low, high) = bytes.split_at_checked(count).ok_or(not_ram)?;
    let first = M::write(&page, offset, low);
    let second = pieces.second.is_none_or(|(page, _)| M::write(&page, 0, high));
    if first && second { Ok(()) } else { Err(not_ram) }
}

#[cfg(test)]
mod tests {
    use super::super::walk::tests::{TestMemory, changed, long_mode};
    use super::*;

    fn memory() -> (TestMemory, GuestState) {
        let memory = TestMemory::default();
        memory.write_entry(0x1000, 0x2007);
        memory.write_entry(0x2000, 0x3007);
        memory.write_entry(0x3000, 0x4007);
        memory.write_entry(0x4000, 0x5003);
        memory.write_entry(0x4008, 0x7003);
        memory.write_entry(0x4010, 0xfee0_0003);
        memory.write(0x5ffe, &[1, 2]);
        memory.write(0x7000, &[3, 4]);
        (memory, long_mode(0x1000))
    }

    #[test]
    fn accesses_cross_pages_and_set_the_bits_of_the_walk() {
        let (memory, state) = memory();
        let mut out = [0; 4];
        assert_eq!(read(&memory, &state, 0xffe, &mut out), Ok(()));
        assert_eq!(out, [1, 2, 3, 4]);
        let entry = |address: u64| {
            let page = memory.page(machine::Gfn::new(address >> 12)).unwrap();
            let mut byte = [0];
            assert!(TestMemory::read(&page, (address & 0xfff) as usize, &mut byte));
            byte[0]
        };
        assert_eq!([entry(0x1000), entry(0x4000), entry(0x4008)], [0x27, 0x23, 0x23]);
        assert_eq!(write(&memory, &state, 0xfff, &[9, 8]), Ok(()));
        assert_eq!([entry(0x1000), entry(0x4000), entry(0x4008)], [0x27, 0x63, 0x63]);
        read(&memory, &state, 0xffe, &mut out).unwrap();
        assert_eq!(out, [1, 9, 8, 4]);
    }

    #[test]
    fn nothing_is_written_when_the_second_page_faults() {
        let (memory, state) = memory();
        memory.write_entry(0x4008, 0);
        let fault = PageFault { address: 0x1000, error_code: 0b10 };
        assert_eq!(write(&memory, &state, 0xffe, &[7; 4]), Err(AccessError::Fault(fault)));
        let mut out = [0; 2];
        read(&memory, &state, 0xffe, &mut out).unwrap();
        assert_eq!(out, [1, 2]);
    }

    #[test]
    fn other_ends() {
        let (memory, state) = memory();
        assert_eq!(
            read(&memory, &state, 0x2020, &mut [0; 4]),
            Err(AccessError::NotRam(Gpa::new(0xfee0_0020))),
            "device memory"
        );
        assert_eq!(read(&memory, &state, 0x8000_0000_0000, &mut [0]), Err(AccessError::NotCanonical));
        let user = changed(state, |state| state.cpl = 3);
        let fault = PageFault { address: 0x10, error_code: 0b101 };
        assert_eq!(read(&memory, &user, 0x10, &mut [0]), Err(AccessError::Fault(fault)));
    }
}

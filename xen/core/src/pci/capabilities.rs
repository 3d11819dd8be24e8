//! What a function's lists of capabilities say, as far as it concerns the hypervisor. Pure over a way to read registers, and
//! distrustful: a device's lists may end nowhere, go round, or lead into the header.
//! (PCI Local Bus Specification 3.0, 6.7 and 6.8; PCI Express Base Specification 3.0, 7.9; SR-IOV 1.1, 3.3.)

/// Reads four bytes at a multiple of four.
pub type Reader<'a> = &'a dyn Fn(u16) -> u32;

const STATUS_HAS_LIST: u32 = 1 << 20;
const LIST: u16 = 0x34;
const FIRST_PLACE: u16 = 0x40;
const LAST_PLACE: u16 = 0xfc;
const FIRST_EXTENDED: u16 = 0x100;
const LAST_EXTENDED: u16 = 0xffc;
/// More capabilities than fit do not exist: each takes four bytes at least.
const MOST: usize = 48;
const MOST_EXTENDED: usize = 480;
/// Capabilities of one kind besides the first that are kept shut.
pub const MOST_SHUT: usize = 4;

/// The number of the capability of messages.
pub const MSI: u32 = 0x05;
const MSIX: u32 = 0x11;
const VIRTUAL_FUNCTIONS: u32 = 0x10;

/// Where the capabilities are that the hypervisor watches.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Messages.
    pub msi: Option<u16>,
    /// Messages by a table.
    pub msix: Option<u16>,
    /// Virtual functions: its control register.
    pub virtual_functions: Option<u16>,
    /// Second ones of a kind that must be the only one.
    pub more: heapless::Vec<u16, MOST_SHUT>,
    /// There are more of them than have room: the function cannot be watched.
    pub is_hopeless: bool,
}

impl Capabilities {
    fn note(&mut self, id: u32, at: u16) {
        let slot = match id {
            MSI => &mut self.msi,
            MSIX => &mut self.msix,
            _ => return,
        };
        if slot.is_none() {
            *slot = Some(at);
        } else if self.more.push(at).is_err() {
            self.is_hopeless = true;
        }
    }
}

/// Reads both lists; the second only if it can be reached.
pub fn find(read: Reader<'_>, is_extended: bool) -> Capabilities {
    let mut found = Capabilities::default();
    if read(4) & STATUS_HAS_LIST != 0 {
        let mut seen = [false; 64];
        let mut next = read(LIST);
        for _ in 0..MOST {
            let at = u16::try_from(next & 0xfc).unwrap_or(0);
            let place = seen.get_mut(usize::from(at >> 2));
            if !(FIRST_PLACE..=LAST_PLACE).contains(&at) || place.is_none_or(|seen| core::mem::replace(seen, true)) {
                break;
            }
            let header = read(at);
            found.note(header & 0xff, at);
            next = header >> 8;
        }
    }
    if is_extended {
        let mut at = FIRST_EXTENDED;
        for _ in 0..MOST_EXTENDED {
            let header = read(at);
            if header == 0 || header == u32::MAX {
                break;
            }
            if header & 0xffff == VIRTUAL_FUNCTIONS && found.virtual_functions.is_none() {
                found.virtual_functions = at.checked_add(8);
            }
            at = u16::try_from(header >> 20 & 0xffc).unwrap_or(0);
            if !(FIRST_EXTENDED..=LAST_EXTENDED).contains(&at) {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn find_in(registers: &[(u16, u32)], is_extended: bool) -> Capabilities {
        let registers: HashMap<u16, u32> = registers.iter().copied().collect();
        find(&|register| registers.get(&register).copied().unwrap_or(0), is_extended)
    }

    #[test]
    fn both_lists_are_read() {
        let list = [(4, 1 << 20), (0x34, 0x43), (0x40, 0x5001), (0x50, 0x6005), (0x60, 0x0011)];
        let more = [(0x100, 0x1400_0001), (0x140, 0x0001_0010)];
        let all: std::vec::Vec<_> = list.into_iter().chain(more).collect();
        let found = find_in(&all, true);
        assert_eq!((found.msi, found.msix, found.virtual_functions), (Some(0x50), Some(0x60), Some(0x148)));
        assert_eq!(find_in(&all, false).virtual_functions, None);
        assert_eq!(find_in(&list[1..], false), Capabilities::default(), "the status register says that there is none");
    }

    #[test]
    fn lists_without_end_and_lists_that_lead_astray_do_no_harm() {
        let round = [(4, 1 << 20), (0x34, 0x50), (0x50, 0x5005)];
        assert_eq!(find_in(&round, false).msi, Some(0x50));
        assert!(find_in(&round, false).more.is_empty(), "met once");
        let into_header = [(4, 1 << 20), (0x34, 0x10), (0x10, 0x0005)];
        assert_eq!(find_in(&into_header, false), Capabilities::default());
        let extended_round = [(0x100, 0x1000_0010)];
        assert_eq!(find_in(&extended_round, true).virtual_functions, Some(0x108));
        assert_eq!(find(&|_| u32::MAX, true).msi, None);
    }

    #[test]
    fn second_ones_are_told_apart_and_too_many_are_hopeless() {
        let mut registers = std::vec![(4, 1 << 20), (0x34, 0x40)];
        registers.extend((0..6u16).map(|n| (0x40 + n * 0x10, u32::from(0x50 + n * 0x10) << 8 | 5)));
        let found = find_in(&registers, false);
        assert_eq!((found.msi, found.more.as_slice()), (Some(0x40), &[0x50, 0x60, 0x70, 0x80][..]));
        assert!(found.is_hopeless);
    }
}

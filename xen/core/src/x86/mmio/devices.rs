//! Accesses of the control domain to PCI memory that it does not reach itself: configuration space, and pages with tables of
//! messages. They are cut into pieces of at most four aligned bytes, as devices have them.

use crate::domain::Domain;
use crate::host::Host;
use crate::pci;

/// Pieces of an access: the offset in it, and 1, 2 or 4 bytes.
fn pieces(address: u64, size: u8) -> impl Iterator<Item = (u8, u8)> {
    let mut done = 0u8;
    core::iter::from_fn(move || {
        let left = size.checked_sub(done).filter(|left| *left > 0)?;
        let at = address.wrapping_add(u64::from(done));
        let piece = [4u8, 2, 1].into_iter().find(|piece| *piece <= left && at.is_multiple_of(u64::from(*piece)))?;
        let start = done;
        done = done.saturating_add(piece);
        Some((start, piece))
    })
}

/// Reads up to 8 bytes; ones where there is nothing.
pub(super) fn read(host: &Host, address: u64, size: u8) -> u64 {
    pieces(address, size).fold(0, |value, (start, piece)| {
        let at = address.wrapping_add(u64::from(start));
        let found = match host.pci.register_at(at) {
            Some((place, register)) => host.pci.read(place, register, piece),
            None => host.pci.memory_read(at, piece).unwrap_or(pci::access::ones(piece)),
        };
        value | u64::from(found).checked_shl(u32::from(start).saturating_mul(8)).unwrap_or(0)
    })
}

/// Writes up to 8 bytes.
pub(super) fn write(host: &Host, domain: &Domain, address: u64, size: u8, value: u64) {
    for (start, piece) in pieces(address, size) {
        let at = address.wrapping_add(u64::from(start));
        let part = value.checked_shr(u32::from(start).saturating_mul(8)).unwrap_or(0);
        let part = u32::try_from(part & u64::from(pci::access::ones(piece))).unwrap_or(0);
        match host.pci.register_at(at) {
            Some((place, register)) => pci::write(host, domain, place, register, piece, part),
            None => {
                // Where no table is either, nobody takes the write.
                let _is_taken = host.pci.memory_write(&host.interrupts, at, piece, part);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn accesses_are_cut_into_what_devices_take() {
        let cut = |address, size| pieces(address, size).collect::<std::vec::Vec<_>>();
        assert_eq!(cut(0x1000, 8), [(0, 4), (4, 4)]);
        assert_eq!(cut(0x1001, 4), [(0, 1), (1, 2), (3, 1)]);
        assert_eq!(cut(0x1002, 8), [(0, 2), (2, 4), (6, 2)]);
        assert_eq!(cut(0x1003, 1), [(0, 1)]);
        assert_eq!(cut(0x1003, 0), []);
    }
}

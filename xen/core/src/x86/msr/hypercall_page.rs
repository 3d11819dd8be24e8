//! The hypercall page: a guest writes a page's address to an MSR and finds the page filled with one stub per hypercall.
//! (public/arch-x86/cpuid.h; stub layout as Xen's for AMD processors.)

use crate::domain::Domain;
use crate::x86::control::Refused;
use crate::x86::guest;
use machine::Gfn;

/// Bytes of a stub's place: hypercall n is at n × 32.
const STUB_BYTES: usize = 32;
/// The hypercall that HVM guests cannot make.
const IRET: usize = 23;

/// One stub: `mov $number, %eax; vmmcall; ret`, or `ud2` for iret.
fn stub(number: usize) -> [u8; STUB_BYTES] {
    let mut stub = [0; STUB_BYTES];
    let [n0, n1, n2, n3] = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let code: &[u8] = if number == IRET { &[0x0f, 0x0b] } else { &[0xb8, n0, n1, n2, n3, 0x0f, 0x01, 0xd9, 0xc3] };
    stub.iter_mut().zip(code).for_each(|(place, byte)| *place = *byte);
    stub
}

/// The whole page.
pub fn content() -> [u8; machine::PAGE_SIZE] {
    let mut page = [0; machine::PAGE_SIZE];
    for (number, place) in page.chunks_exact_mut(STUB_BYTES).enumerate() {
        place.copy_from_slice(&stub(number));
    }
    page
}

/// Fills the page at a guest physical address. Its low 12 bits number the page, and there is only page 0.
///
/// # Errors
/// [`Refused`] for another page number, or if the page is not the guest's RAM.
pub(super) fn install(domain: &Domain, value: u64) -> Result<(), Refused> {
    if value & 0xfff != 0 {
        return Err(Refused);
    }
    let gfn = Gfn::new(value >> machine::PAGE_SHIFT);
    guest::write_page(domain, gfn, &content()).ok_or(Refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_what_linux_calls() {
        let stub_24 = stub(24);
        assert_eq!(stub_24[..9], [0xb8, 24, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3]);
        assert_eq!(stub(IRET)[..3], [0x0f, 0x0b, 0]);
    }
}

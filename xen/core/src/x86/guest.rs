//! What x86 emulation needs of a domain's memory, made from the p2m and `guest_mem`.
//!
//! `walk` and `instruction` see pages; string instructions and MMIO emulation see bytes at linear addresses. Both come
//! through here, so that this is the one file that knows how the memory modules are called.

use super::walk::PhysicalMemory;
use crate::domain::Domain;
use crate::p2m::Access;
use core::sync::atomic::Ordering;
use machine::Gfn;
use machine::frame::Pin;
use machine::memory::PinnedWord;

/// A domain's RAM, page by page.
pub struct DomainMemory<'a>(pub &'a Domain);

impl PhysicalMemory for DomainMemory<'_> {
    type Page = Pin;
    type Word = PinnedWord;

    #[inline]
    fn page(&self, gfn: Gfn) -> Option<Pin> {
        self.0.p2m.pin(gfn, Access::Read).ok()
    }

    fn page_for_writing(&self, gfn: Gfn) -> Option<Pin> {
        let page = self.0.p2m.pin(gfn, Access::Write).ok()?;
        // Marked before the write: who harvests the mark afterwards sees the bytes, or marks again.
        self.0.p2m.mark_dirty(gfn);
        Some(page)
    }

    fn word(page: Pin, offset: usize) -> Option<PinnedWord> {
        PinnedWord::new(page, offset)
    }

    #[inline]
    fn load(word: &PinnedWord) -> u64 {
        word.load()
    }

    fn write(page: &Pin, offset: usize, bytes: &[u8]) -> bool {
        machine::memory::write(page, offset, bytes)
    }

    fn set_bits(page: &Pin, offset: usize, bits: u8) {
        if let Some(byte) = machine::memory::atomic::<u8>(page, offset) {
            byte.fetch_or(bits, Ordering::Relaxed);
        }
    }

    #[inline]
    fn read(page: &Pin, offset: usize, out: &mut [u8]) -> bool {
        machine::memory::read(page, offset, out)
    }

    #[inline]
    fn epoch(&self) -> u64 {
        self.0.p2m.epoch()
    }
}

/// Fills a page of the guest's RAM. `None` if it is none, or must not be written.
pub fn write_page(domain: &Domain, gfn: Gfn, content: &[u8; machine::PAGE_SIZE]) -> Option<()> {
    let page = DomainMemory(domain).page_for_writing(gfn)?;
    machine::memory::write(&page, 0, content).then_some(())
}

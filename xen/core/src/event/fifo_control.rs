//! Switching to the FIFO ABI, and giving it pages: EVTCHNOP_init_control and EVTCHNOP_expand_array.
//!
//! The guest's pages are pinned before the table is locked, so that nothing can fail half-way.

use super::fifo::Fifo;
use super::port::index;
use super::upcall;
use crate::domain::Domain;
use crate::host::Host;
use crate::p2m::Access;
use machine::frame::Pin;
use machine::{Gfn, PAGE_SIZE};
use public_abi::Errno;
use public_abi::event_channel::{FIFO_EVENT_WORDS_PER_PAGE, FifoControlBlock};

/// The alignment of a control block in its page, which the header demands.
const ALIGNMENT: usize = 8;

/// Only the domain's own RAM will do: the pin outlives a mapping of somebody else's page.
fn pin(domain: &Domain, gfn: u64) -> Result<Pin, Errno> {
    domain.p2m.pin_for_others(Gfn::new(gfn), Access::Write).map_err(|_| Errno::EINVAL)
}

/// Gives a vCPU its control block; the first one switches the domain to the FIFO ABI.
///
/// # Errors
/// ENOENT for a vCPU that does not exist; EINVAL if the block would cross a page or is not aligned, the page is not writable
/// RAM of the guest's, or the vCPU has a block already; ENOMEM.
pub fn init_control(domain: &Domain, vcpu: u32, gfn: u64, offset: u32) -> Result<(), Errno> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let offset = index(offset);
    if offset > PAGE_SIZE - size_of::<FifoControlBlock>() || !offset.is_multiple_of(ALIGNMENT) {
        return Err(Errno::EINVAL);
    }
    let page = pin(domain, gfn)?;
    let is_first = domain.events.table().fifo.is_none();
    let fresh = if is_first { Some(Fifo::try_new(domain.vcpus().len()).map_err(|_| Errno::ENOMEM)?) } else { None };
    let mut table = domain.events.table();
    if table.fifo.is_none() {
        // Between the two looks another vCPU may have reset the table, and this call fails as one before the reset would.
        table.switch_to_fifo(domain.events.shared_info(), fresh.ok_or(Errno::EINVAL)?);
    }
    let fifo = table.fifo.as_mut().ok_or(Errno::EINVAL)?;
    if fifo.has_block(vcpu) {
        return Err(Errno::EINVAL);
    }
    fifo.set_block(vcpu, page, offset);
    Ok(())
}

/// Adds a page of event words, and raises what was raised while it was missing.
///
/// # Errors
/// EOPNOTSUPP with the two-level ABI; ENOSPC if all ports have words; EINVAL if the page is not writable RAM of the guest's;
/// ENOMEM.
pub fn expand_array(host: &Host, domain: &Domain, gfn: u64) -> Result<(), Errno> {
    if !domain.events.table().fifo.as_ref().ok_or(Errno::EOPNOTSUPP)?.has_room() {
        return Err(Errno::ENOSPC);
    }
    let page = pin(domain, gfn)?;
    let first = {
        let mut table = domain.events.table();
        let fifo = table.fifo.as_mut().ok_or(Errno::EOPNOTSUPP)?;
        if !fifo.has_room() {
            return Err(Errno::ENOSPC);
        }
        fifo.add_page(page).map_err(|_| Errno::ENOMEM)?
    };
    let end = first.saturating_add(FIFO_EVENT_WORDS_PER_PAGE);
    let mut from = first;
    loop {
        let raised = domain.events.table().raise_saved(domain.events.shared_info(), from, end);
        let Some((number, effect)) = raised else { return Ok(()) };
        upcall::apply(host, domain, effect);
        from = number.saturating_add(1);
    }
}

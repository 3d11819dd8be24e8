//! domctl for debuggers, as far as toolstacks use it: copying between the caller's memory and another domain's
//! (gdbsx_guestmemio). Our xl loads kernels by it: docs/bench.md says what it saves against mapping each page and unmapping it again.

use super::{Answer, answer, find_vcpu, parameters};
use crate::domain::destroy::Paused;
use crate::domain::lifecycle::Stage;
use crate::guest_mem::{LinearMemory, Run};
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::p2m::Access;
use machine::frame::Pin;
use machine::{Gpa, PAGE_SIZE, memory};
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_debug::GdbsxMemio;

/// Pages that are copied before anything else gets its turn.
const MOST_PAGES: usize = 32;

/// gdbsx_guestmemio: the addresses are those of the domain's vCPU 0, which has paging off until it runs, and of the caller.
/// As in Xen (arch/x86/gdbsx.c) any byte that cannot be copied is `EFAULT`, those before it have been copied, and the override of
/// the page tables counts for PV guests only. It goes on where it stopped by changing the request.
pub fn copy(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut copy: GdbsxMemio = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    let vcpu = find_vcpu(target, 0, Errno::EINVAL)?;
    if target.lifecycle.stage() != Stage::Alive {
        return Err(Errno::EFAULT.into());
    }
    let _paused = Paused::new(caller.host, target);
    let hardware = vcpu.hardware.try_lock().ok_or(Stop::Restart(None))?;
    let theirs = LinearMemory::new(target, &hardware);
    let (mut from, into) = (caller.memory.run(), theirs.run());
    while copy.len > 0 {
        let length = usize::try_from(copy.len).map_err(|_| Errno::EFAULT)?;
        let done = if copy.gwr == 0 {
            take(&theirs, copy.gva, &caller.memory, copy.uva, length)?
        } else {
            give(&mut from, copy.uva, &into, copy.gva, length)?
        };
        let count = u32::try_from(done).map_err(|_| Errno::EFAULT)?;
        copy.len = copy.len.saturating_sub(count);
        copy.gva = copy.gva.wrapping_add(count.into());
        copy.uva = copy.uva.wrapping_add(count.into());
        if copy.len > 0 && machine::cpu::must_yield() {
            answer(request, &copy)?;
            return Ok(Answer::ChangedForRestart);
        }
    }
    copy.remain = 0;
    Ok(answer(request, &copy)?)
}

/// Copies what lies in one page of each; how many bytes that was.
fn take(theirs: &LinearMemory<'_>, from: u64, ours: &LinearMemory<'_>, to: u64, length: usize) -> Result<usize, Errno> {
    let (source, start) = page(theirs, from, Access::Read)?;
    let (target, place) = page(ours, to, Access::Write)?;
    let length = length.min(PAGE_SIZE.saturating_sub(start)).min(PAGE_SIZE.saturating_sub(place));
    if memory::copy(&source, start, &target, place, length) { Ok(length) } else { Err(Errno::EFAULT) }
}

/// Copies what lies in a few of the caller's pages, which are found and kept together; how many bytes that was.
fn give(ours: &mut Run<'_>, from: u64, theirs: &Run<'_>, to: u64, length: usize) -> Result<usize, Errno> {
    let mut sources = heapless::Vec::<Pin, MOST_PAGES>::new();
    ours.pages(from, length, &mut sources)?;
    theirs.fill(to, &sources, Gpa::new(from).offset(), length)
}

/// The page of a domain's own RAM behind an address, and the address's place in it; marked as written if that is what it is for.
fn page(memory: &LinearMemory<'_>, address: u64, access: Access) -> Result<(Pin, usize), Errno> {
    let gpa = memory.translate(address, access)?;
    let p2m = &memory.domain.p2m;
    let pin = p2m.pin_for_others(gpa.frame(), access).map_err(|_| Errno::EFAULT)?;
    if access == Access::Write {
        p2m.mark_dirty(gpa.frame());
    }
    Ok((pin, gpa.offset()))
}

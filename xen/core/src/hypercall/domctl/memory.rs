//! domctl about a domain's memory: limits, memory for page tables, what its frames are, the hypercall page.

use super::{Answer, answer, parameters};
use crate::domain::Domain;
use crate::domain::lifecycle::Stage;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::p2m::Kind;
use crate::x86::msr::hypercall_page;
use core::sync::atomic::Ordering;
use machine::{Gfn, PAGE_SHIFT, PAGE_SIZE_U64, frame};
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::{
    GetPageFrameInfo3, HypercallInit, MaxMem, PFINFO_BROKEN, PFINFO_XTAB, PagingMempool, SHADOW_ENABLE_LOG_DIRTY,
    SHADOW_LOGDIRTY_FINAL, ShadowOp, ShadowOperation,
};
use public_abi::{Errno, GuestPtr};

/// Frames in one getpageframeinfo3 at the most.
const MAX_FRAMES: u64 = 1024;
/// A number of pages is 32 bits wide in Xen 4.17.
const MAX_PAGES: u64 = 0xffff_ffff;
/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// max_mem. A limit below what the domain has is allowed: it then gets no more.
pub fn set_limit(target: &Target<'_>, request: &MaxMem) -> Answer {
    let pages = request.max_memkb >> (PAGE_SHIFT.saturating_sub(10));
    target.accounting.max_pages.store(pages.min(MAX_PAGES), Ordering::Release);
    Answer::Unchanged
}

/// get_paging_mempool_size.
pub fn get_pool(target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let size = target.control.lock().paging_pool_bytes;
    Ok(answer(request, &PagingMempool { size })?)
}

/// set_paging_mempool_size.
pub fn set_pool(target: &Target<'_>, request: &PagingMempool) -> Result<Answer, Stop> {
    change_pool(target, request.size)?;
    Ok(Answer::Unchanged)
}

/// Page tables are taken from free memory as they are needed; the pool is the promise that there is enough, which a request
/// that cannot be kept is refused for.
fn change_pool(target: &Target<'_>, bytes: u64) -> Result<(), Errno> {
    if !bytes.is_multiple_of(PAGE_SIZE_U64) || bytes >> PAGE_SHIFT > MAX_PAGES {
        return Err(Errno::EINVAL);
    }
    let free = frame::free_pages().saturating_mul(PAGE_SIZE_U64);
    let mut control = target.control.lock();
    if bytes.saturating_sub(control.paging_pool_bytes) > free {
        return Err(Errno::ENOMEM);
    }
    control.paging_pool_bytes = bytes;
    Ok(())
}

/// shadow_op: the pool in MiB, as older tools ask for it. The log of dirty pages does not exist yet.
pub fn paging(target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut operation: ShadowOp = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    if target.lifecycle.stage() != Stage::Alive {
        return Ok(Answer::Changed);
    }
    if target.vcpus().is_empty() {
        return Err(Errno::EINVAL.into());
    }
    match ShadowOperation::try_from(operation.op).map_err(|_| Errno::EINVAL)? {
        ShadowOperation::Off => Ok(Answer::Unchanged),
        ShadowOperation::GetAllocation => pool_in_mib(target, &mut operation, request),
        ShadowOperation::SetAllocation => {
            change_pool(target, u64::from(operation.mb).saturating_mul(MIB))?;
            pool_in_mib(target, &mut operation, request)
        }
        ShadowOperation::EnableLogdirty => Err(Errno::EOPNOTSUPP.into()),
        ShadowOperation::Enable if operation.mode & SHADOW_ENABLE_LOG_DIRTY != 0 => Err(Errno::EOPNOTSUPP.into()),
        ShadowOperation::Clean | ShadowOperation::Peek if operation.mode & !SHADOW_LOGDIRTY_FINAL == 0 => {
            Err(Errno::EOPNOTSUPP.into())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn pool_in_mib(target: &Target<'_>, operation: &mut ShadowOp, request: &mut Domctl) -> Result<Answer, Stop> {
    let bytes = target.control.lock().paging_pool_bytes;
    operation.mb = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX);
    Ok(answer(request, operation)?)
}

/// getpageframeinfo3: which frames hold something to save. Goes on where it stopped by changing the request.
pub fn frame_types(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let frames: GetPageFrameInfo3 = parameters(request)?;
    if frames.num > MAX_FRAMES {
        return Err(Errno::E2BIG.into());
    }
    for index in 0..frames.num {
        let gfn = caller.memory.read_at(frames.array, index)?;
        let kind = u64::from(frame_type(target, gfn));
        caller.memory.write_at(frames.array, index, &kind)?;
        let done = index.saturating_add(1);
        if done < frames.num && machine::cpu::must_yield() {
            let array: GuestPtr<u64> = frames.array.element(done).ok_or(Errno::EFAULT)?;
            answer(request, &GetPageFrameInfo3 { num: frames.num.saturating_sub(done), array })?;
            return Ok(Answer::ChangedForRestart);
        }
    }
    Ok(Answer::Unchanged)
}

/// What a toolstack that saves a domain does with a frame: 0 to save it, or one of `PFINFO_*`.
fn frame_type(domain: &Domain, gfn: u64) -> u32 {
    match domain.p2m.lookup(Gfn::new(gfn)).kind {
        Kind::Broken => PFINFO_BROKEN,
        kind if kind.is_own_ram() => 0,
        _ => PFINFO_XTAB,
    }
}

/// hypercall_init: fills a frame with the code that makes hypercalls.
pub fn hypercall_page(target: &Target<'_>, request: &HypercallInit) -> Result<Answer, Stop> {
    let kind = target.p2m.lookup(Gfn::new(request.gmfn)).kind;
    if !kind.is_readable_ram() {
        return Err(Errno::EINVAL.into());
    }
    let address = request.gmfn.checked_mul(PAGE_SIZE_U64).ok_or(Errno::EINVAL)?;
    hypercall_page::install(target, address).map_err(|_| Errno::EPERM)?;
    Ok(Answer::Unchanged)
}

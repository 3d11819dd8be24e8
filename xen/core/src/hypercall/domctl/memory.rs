//! domctl about a domain's memory: limits, memory for page tables, what its frames are, the hypercall page.

use super::{Answer, answer, parameters};
use crate::domain::lifecycle::Stage;
use crate::hypercall::access::Target;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use crate::hypercall::guest_copy::GuestCopy as _;
use crate::hypercall::{Caller, neighbours};
use crate::outcome::Stop;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use machine::{PAGE_SHIFT, PAGE_SIZE, PAGE_SIZE_U64, frame};
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::{
    GetPageFrameInfo3, HypercallInit, MaxMem, PFINFO_XTAB, PagingMempool, SHADOW_ENABLE_LOG_DIRTY,
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
        let kind = if neighbours::is_saved_memory(target, gfn)? { 0 } else { u64::from(PFINFO_XTAB) };
        caller.memory.write_at(frames.array, index, &kind)?;
        let done = index.saturating_add(1);
        if done < frames.num && machine::cpu::has_work() {
            let array: GuestPtr<u64> = frames.array.element(done).ok_or(Errno::EFAULT)?;
            answer(request, &GetPageFrameInfo3 { num: frames.num.saturating_sub(done), array })?;
            return Ok(Answer::ChangedForRestart);
        }
    }
    Ok(Answer::Unchanged)
}

/// hypercall_init: fills a frame with the code that makes hypercalls.
pub fn hypercall_page(target: &Target<'_>, request: &HypercallInit) -> Result<Answer, Stop> {
    let mut content = Vec::new();
    content.try_reserve_exact(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
    content.resize(PAGE_SIZE, 0);
    let page: &mut [u8; PAGE_SIZE] = content.as_mut_slice().try_into().map_err(|_| Errno::ENOMEM)?;
    neighbours::fill_hypercall_page(page)?;
    neighbours::write_guest_page(target, request.gmfn, page)?;
    Ok(Answer::Unchanged)
}

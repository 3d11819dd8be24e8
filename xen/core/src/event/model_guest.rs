//! The guest's side of both ABIs, for the model test: it looks only where its pages tell it to.

use super::model_tests::{ARRAY_GFN, CONTROL_GFN};
use super::upcall::with_info;
use crate::domain::Domain;
use crate::p2m::Access;
use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;
use machine::{Gfn, memory};
use public_abi::event_channel::*;
use public_abi::x86::{SharedInfo, VcpuInfo};
use std::collections::BTreeMap;
use std::vec::Vec;

pub(super) fn bitmap(
    domain: &Domain,
    map: usize,
    port: u32,
    act: impl FnOnce(&core::sync::atomic::AtomicU64, u64) -> u64,
) -> u64 {
    let word =
        memory::atomic::<u64>(domain.events.shared_info(), map + usize::try_from(port / 64).unwrap() * 8).unwrap();
    act(word, 1 << (port % 64))
}

pub(super) fn take_two_level(
    target: &Domain,
    vcpu: u32,
    most: usize,
    told: &BTreeMap<u32, u32>,
    taken: &mut Vec<u32>,
) -> bool {
    let place = target.vcpu(vcpu).unwrap();
    let offset_of_selector = offset_of!(VcpuInfo, evtchn_pending_sel);
    let selector = with_info(&target.events, place, |page, offset| {
        memory::atomic::<u64>(page, offset + offset_of_selector).unwrap().swap(0, SeqCst)
    })
    .unwrap();
    let mut left = most;
    let mut again = 0u64;
    for word in (0..64u32).filter(|word| selector >> word & 1 != 0) {
        for port in word * 64..word * 64 + 64 {
            let masked = bitmap(target, offset_of!(SharedInfo, evtchn_mask), port, |word, bit| word.load(SeqCst) & bit);
            let pending =
                bitmap(target, offset_of!(SharedInfo, evtchn_pending), port, |word, bit| word.load(SeqCst) & bit);
            // Only what this vCPU was told of, so that a vCPU that was not told is noticed.
            if masked != 0 || pending == 0 || told.get(&port).is_some_and(|told| *told != vcpu) {
                continue;
            }
            if left == 0 {
                again |= 1 << word;
                break;
            }
            left -= 1;
            bitmap(target, offset_of!(SharedInfo, evtchn_pending), port, |word, bit| word.fetch_and(!bit, SeqCst));
            taken.push(port);
        }
    }
    with_info(&target.events, place, |page, offset| {
        memory::atomic::<u64>(page, offset + offset_of_selector).unwrap().fetch_or(again, SeqCst)
    });
    again == 0
}

pub(super) fn take_fifo(
    target: &Domain,
    vcpu: u32,
    most: usize,
    heads: &mut BTreeMap<(u32, u32), u32>,
    taken: &mut Vec<u32>,
) -> bool {
    let control = target.p2m.pin(Gfn::new(CONTROL_GFN), Access::Write).unwrap();
    let block = usize::try_from(vcpu).unwrap() * 72;
    let ready_word = memory::atomic::<u32>(&control, block + offset_of!(FifoControlBlock, ready)).unwrap();
    let mut ready = ready_word.swap(0, SeqCst);
    let mut left = most;
    while ready != 0 {
        let priority = ready.trailing_zeros();
        if left == 0 {
            ready_word.fetch_or(ready, SeqCst);
            return false;
        }
        let head_place = memory::atomic::<u32>(
            &control,
            block + offset_of!(FifoControlBlock, head) + usize::try_from(priority).unwrap() * 4,
        )
        .unwrap();
        let head = heads.entry((vcpu, priority)).or_insert(0);
        // The guest keeps the head itself while the queue is not empty.
        if *head == 0 {
            *head = head_place.load(SeqCst);
        }
        let port = *head;
        let array = target.p2m.pin(Gfn::new(ARRAY_GFN), Access::Write).unwrap();
        let word = memory::atomic::<u32>(&array, usize::try_from(port).unwrap() * 4).unwrap();
        let before = word.fetch_and(!(FIFO_LINKED | FIFO_LINK_MASK), SeqCst);
        *head = before & FIFO_LINK_MASK;
        if *head == 0 {
            ready &= !(1 << priority);
        }
        if before & FIFO_PENDING != 0 && before & FIFO_MASKED == 0 {
            word.fetch_and(!FIFO_PENDING, SeqCst);
            taken.push(port);
            left -= 1;
        }
        ready |= ready_word.swap(0, SeqCst);
    }
    true
}

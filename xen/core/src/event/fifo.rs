//! The FIFO ABI: an event word per port in pages of the guest, linked into 16 queues per vCPU.
//!
//! Facts from public/event_channel.h and Xen's description of the FIFO ABI: a word is PENDING, MASKED, LINKED (on a queue,
//! or not yet taken off it by the guest) and names the next port of its queue. The hypervisor appends, the guest takes from
//! the head. The guest can write all of it at any time, so nothing read here is believed further than it harms the guest.
//! The table's lock serialises the hypervisor's side.

use super::port::{Port, index};
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::boxed::OutOfMemory;
use machine::frame::Pin;
use machine::memory;
use public_abi::event_channel::{
    FIFO_BUSY, FIFO_EVENT_WORDS_PER_PAGE, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_MAX_QUEUES, FIFO_NR_CHANNELS,
    FIFO_PENDING, FifoControlBlock,
};

/// Pages of event words at the most.
const MAX_PAGES: usize = index(FIFO_NR_CHANNELS / FIFO_EVENT_WORDS_PER_PAGE);
const READY: usize = offset_of!(FifoControlBlock, ready);
const HEAD: usize = offset_of!(FifoControlBlock, head);
/// How often a word that the guest keeps changing is tried: it may set and clear MASKED, clear PENDING and clear LINKED,
/// and once the word is BUSY it may not unmask.
const TRIES: u32 = 5;

/// A vCPU's control block and the ends of its queues.
#[derive(Debug)]
struct Queues {
    /// The guest's page and the block's place in it; `None` until init_control.
    block: Option<(Pin, usize)>,
    /// The last port of each queue, 0 if the queue was never used. The guest may have taken it off since.
    tails: [u32; index(FIFO_MAX_QUEUES)],
}

/// What raising an event did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The event was not pending before.
    pub newly_pending: bool,
    /// The vCPU has a queue that was empty before.
    pub is_news: bool,
}

const NOTHING: Change = Change { newly_pending: false, is_news: false };

/// A domain's FIFO state.
#[derive(Debug)]
pub struct Fifo {
    pages: Vec<Pin>,
    queues: Vec<Queues>,
}

impl Fifo {
    /// No pages and no control blocks, for `vcpus` vCPUs.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(vcpus: usize) -> Result<Self, OutOfMemory> {
        let mut queues = Vec::new();
        queues.try_reserve_exact(vcpus).map_err(|_| OutOfMemory)?;
        queues.resize_with(vcpus, || Queues { block: None, tails: [0; index(FIFO_MAX_QUEUES)] });
        Ok(Self { pages: Vec::new(), queues })
    }

    /// Whether a vCPU has its control block.
    pub fn has_block(&self, vcpu: u32) -> bool {
        self.queues.get(index(vcpu)).is_some_and(|queues| queues.block.is_some())
    }

    /// Gives a vCPU its control block, `offset` bytes into the page.
    pub fn set_block(&mut self, vcpu: u32, page: Pin, offset: usize) {
        if let Some(queues) = self.queues.get_mut(index(vcpu)) {
            queues.block = Some((page, offset));
        }
    }

    /// Whether another page of event words fits.
    pub fn has_room(&self) -> bool {
        self.pages.len() < MAX_PAGES
    }

    /// Adds a page of event words; gives the first port that has a word in it.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn add_page(&mut self, page: Pin) -> Result<u32, OutOfMemory> {
        self.pages.try_reserve(1).map_err(|_| OutOfMemory)?;
        let first = u32::try_from(self.pages.len()).unwrap_or(u32::MAX).saturating_mul(FIFO_EVENT_WORDS_PER_PAGE);
        self.pages.push(page);
        Ok(first)
    }

    #[inline]
    fn word(&self, port: u32) -> Option<&AtomicU32> {
        let page = self.pages.get(index(port / FIFO_EVENT_WORDS_PER_PAGE))?;
        memory::atomic::<u32>(page, index(port % FIFO_EVENT_WORDS_PER_PAGE) * size_of::<u32>())
    }

    fn has_bit(&self, port: u32, bit: u32) -> Option<bool> {
        self.word(port).map(|word| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// Whether the port's event has been raised.
    pub fn is_pending(&self, port: u32) -> bool {
        self.has_bit(port, FIFO_PENDING).unwrap_or(false)
    }

    /// Whether the guest has masked the port; a port without a word counts as masked.
    pub fn is_masked(&self, port: u32) -> bool {
        self.has_bit(port, FIFO_MASKED).unwrap_or(true)
    }

    /// Whether a port is still on a queue, so that it cannot be given out anew.
    pub fn is_linked(&self, port: u32) -> bool {
        self.has_bit(port, FIFO_LINKED).unwrap_or(false)
    }

    /// Forgets a raised event. The guest passes over words that are linked but not pending.
    pub fn clear_pending(&self, port: u32) {
        if let Some(word) = self.word(port) {
            word.fetch_and(!FIFO_PENDING, Ordering::SeqCst);
        }
    }

    /// Unmasks a port; true if an event has been waiting and must be raised again.
    pub fn unmask(&self, port: u32) -> bool {
        let Some(word) = self.word(port) else { return false };
        word.fetch_and(!FIFO_MASKED, Ordering::SeqCst) & FIFO_PENDING != 0
    }

    /// Raises an event of `number`, whose record is `port`, for a vCPU.
    #[inline]
    pub fn set_pending(&mut self, number: u32, port: &mut Port, vcpu: u16) -> Change {
        let Some(word) = self.word(number) else {
            port.saved = true;
            return NOTHING;
        };
        let newly_pending = word.fetch_or(FIFO_PENDING, Ordering::SeqCst) & FIFO_PENDING == 0;
        // Without a control block there is no queue. The event stays pending; unmasking it once there is one links it.
        if !self.has_block(u32::from(vcpu)) || word.load(Ordering::SeqCst) & FIFO_MASKED != 0 {
            return Change { newly_pending, is_news: false };
        }
        if word.fetch_or(FIFO_LINKED, Ordering::SeqCst) & FIFO_LINKED != 0 {
            return Change { newly_pending, is_news: false };
        }
        Change { newly_pending, is_news: self.append(number, port, vcpu) }
    }

    /// Puts a port, whose word says LINKED already, at the end of its queue. True if the vCPU must hear of it.
    fn append(&mut self, number: u32, port: &mut Port, vcpu: u16) -> bool {
        // Where it was the last one before, the queue is empty now, or ends elsewhere; linking behind it would mix queues.
        let old = self.queues.get_mut(usize::from(port.queue_vcpu));
        if let Some(tail) = old.and_then(|queues| queues.tails.get_mut(usize::from(port.queue_priority)))
            && *tail == number
        {
            *tail = 0;
        }
        let priority = port.priority;
        (port.queue_vcpu, port.queue_priority) = (vcpu, priority);
        let Some(queues) = self.queues.get(usize::from(vcpu)) else { return false };
        let tail = queues.tails.get(usize::from(priority)).copied().unwrap_or(0);
        let is_linked = tail != 0 && self.word(tail).is_some_and(|word| link(word, number));
        let is_news = !is_linked && queues.set_head(priority, number);
        if let Some(place) =
            self.queues.get_mut(usize::from(vcpu)).and_then(|queues| queues.tails.get_mut(usize::from(priority)))
        {
            *place = number;
        }
        is_news
    }
}

impl Queues {
    /// Begins an empty queue with a port; true if the guest had no notice of the queue yet.
    fn set_head(&self, priority: u8, number: u32) -> bool {
        let Some((page, offset)) = &self.block else { return false };
        let head = memory::atomic::<u32>(page, offset + HEAD + usize::from(priority) * size_of::<u32>());
        let ready = memory::atomic::<u32>(page, offset + READY);
        let (Some(head), Some(ready)) = (head, ready) else { return false };
        head.store(number, Ordering::SeqCst);
        let bit = 1 << priority;
        ready.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }
}

/// Makes a word name the next port of its queue, if it is still on the queue; false if the guest has taken it off.
fn link(word: &AtomicU32, next: u32) -> bool {
    let mut seen = word.load(Ordering::SeqCst);
    for attempt in 0..TRIES {
        if seen & FIFO_LINKED == 0 {
            if attempt > 0 {
                word.fetch_and(!FIFO_BUSY, Ordering::SeqCst);
            }
            return false;
        }
        let wanted = seen & !(FIFO_BUSY | FIFO_LINK_MASK) | next;
        match word.compare_exchange(seen, wanted, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            // From now on the guest may not unmask the word itself, so the number of its changes is bounded.
            Err(_) if attempt == 0 => seen = word.fetch_or(FIFO_BUSY, Ordering::SeqCst) | FIFO_BUSY,
            Err(now) => seen = now,
        }
    }
    // The guest breaks the rules. It loses the rest of this queue; nobody else does.
    word.fetch_and(!FIFO_BUSY, Ordering::SeqCst);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linking_keeps_flags_and_stops_at_words_taken_off() {
        let word = AtomicU32::new(FIFO_PENDING | FIFO_LINKED | FIFO_MASKED | 77);
        assert!(link(&word, 5));
        assert_eq!(word.into_inner(), FIFO_PENDING | FIFO_LINKED | FIFO_MASKED | 5);
        let word = AtomicU32::new(FIFO_PENDING);
        assert!(!link(&word, 5));
        assert_eq!(word.into_inner(), FIFO_PENDING);
    }
}

//! The FIFO event ABI: control block, event words, taking events off the queues (public/event_channel.h).

use core::sync::atomic::{AtomicU32, Ordering};

use public_abi::event_channel::{
    EventChannelOp, ExpandArray, FIFO_EVENT_WORDS_PER_PAGE, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_MAX_QUEUES,
    FIFO_PENDING, FifoControlBlock, InitControl,
};
use rt::memory;

use crate::call;

/// Pages of event words that this library can hold: 8,192 ports.
pub const MAX_PAGES: usize = 8;

/// One vCPU's queues and the domain's event words.
#[derive(Debug)]
pub struct Fifo {
    control: u64,
    pages: [u64; MAX_PAGES],
    used: usize,
    heads: [u32; FIFO_MAX_QUEUES as usize],
}

impl Fifo {
    /// Switches the domain to this ABI for `vcpu`, with the control block `offset` bytes into a page of its own.
    ///
    /// # Errors
    /// The hypercall's result.
    pub fn new(vcpu: u32, offset: u32) -> Result<Self, i64> {
        let page = memory::take_pages(1);
        let mut request = InitControl { control_gfn: page >> 12, offset, vcpu, ..Default::default() };
        match call::event(EventChannelOp::InitControl, &mut request) {
            0 => Ok(Self { control: page + u64::from(offset), pages: [0; MAX_PAGES], used: 0, heads: [0; 16] }),
            error => Err(error),
        }
    }

    /// Adds a page of event words, all masked.
    ///
    /// # Errors
    /// The hypercall's result.
    pub fn expand(&mut self) -> Result<(), i64> {
        let page = memory::take_pages(1);
        for index in 0..u64::from(FIFO_EVENT_WORDS_PER_PAGE) {
            memory::write(page + index * 4, FIFO_MASKED);
        }
        match call::event(EventChannelOp::ExpandArray, &mut ExpandArray { array_gfn: page >> 12 }) {
            0 => {
                if let Some(slot) = self.pages.get_mut(self.used) {
                    *slot = page;
                }
                self.used += 1;
                Ok(())
            }
            error => Err(error),
        }
    }

    /// The event word of a port.
    ///
    /// # Panics
    /// When the port's page has not been added.
    #[must_use]
    pub fn word(&self, port: u32) -> &'static AtomicU32 {
        let page = self.pages.get((port / FIFO_EVENT_WORDS_PER_PAGE) as usize).copied().unwrap_or(0);
        assert!(page != 0, "no event word for port {port}");
        memory::atomic_32(page + u64::from(port % FIFO_EVENT_WORDS_PER_PAGE) * 4)
    }

    /// Clears a port's mask.
    pub fn unmask(&self, port: u32) {
        self.word(port).fetch_and(!FIFO_MASKED, Ordering::SeqCst);
    }

    /// Sets a port's mask.
    pub fn mask(&self, port: u32) {
        self.word(port).fetch_or(FIFO_MASKED, Ordering::SeqCst);
    }

    /// Which queues have events.
    #[must_use]
    pub fn ready(&self) -> &'static AtomicU32 {
        memory::atomic_32(self.control)
    }

    fn head(&self, queue: u32) -> &'static AtomicU32 {
        memory::atomic_32(self.control + core::mem::offset_of!(FifoControlBlock, head) as u64 + u64::from(queue) * 4)
    }

    /// Takes the most urgent event off its queue: the port, and whether it was pending and not masked.
    pub fn take(&mut self) -> Option<(u32, bool)> {
        let ready = self.ready().load(Ordering::SeqCst);
        let queue = ready.trailing_zeros();
        let port = match *self.heads.get(queue as usize)? {
            0 => self.first(queue),
            port => port,
        };
        if port == 0 {
            self.ready().fetch_and(!(1 << queue), Ordering::SeqCst);
            return None;
        }
        let word = self.word(port);
        let clear = |old: u32| Some(old & !(FIFO_LINKED | FIFO_LINK_MASK));
        let before = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, clear).unwrap_or_else(|same| same);
        let next = before & FIFO_LINK_MASK;
        if let Some(own) = self.heads.get_mut(queue as usize) {
            *own = next;
        }
        if next == 0 {
            self.ready().fetch_and(!(1 << queue), Ordering::SeqCst);
        }
        let fires = before & FIFO_PENDING != 0 && before & FIFO_MASKED == 0;
        if fires {
            word.fetch_and(!FIFO_PENDING, Ordering::SeqCst);
        }
        Some((port, fires))
    }

    /// The first port of a queue as the hypervisor left it.
    #[must_use]
    pub fn first(&self, queue: u32) -> u32 {
        self.head(queue).load(Ordering::SeqCst)
    }
}

//! Event channels, and the pages through which a domain and the hypervisor share small things.
//!
//! An event's way: a hypercall (`hypercall::event`), a timer or the console (`virq`) → `channel`, the steps across domains →
//! `table`, one domain's state machine, which writes the guest's bits by `two_level` or `fifo` → `upcall`, which tells the
//! vCPU, and `poll`, which wakes those that wait for one port.

pub mod channel;
mod fifo;
pub mod fifo_control;
pub mod poll;
mod port;
pub mod table;
mod two_level;
pub mod upcall;
pub mod virq;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod model_guest;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wait_tests;

pub use port::{Peer, State};
pub use upcall::{Callback, callback_line, callback_vector, has_callback, upcall_pending};
pub use virq::{VirqHandlers, send_global_virq, send_virq};

use crate::domain::Settings;
use crate::guest_mem::SharedPage;
use crate::time::VcpuTime;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use machine::boxed::OutOfMemory;
use machine::frame::Pin;
use machine::lock::{Guard, Lock, rank};
use machine::{DomId, Gfn, Mfn};
use table::EventTable;

/// A domain's event channels, and its shared_info page.
#[derive(Debug)]
pub struct DomainEvents {
    table: Lock<EventTable, { rank::EVENT }>,
    shared_info: SharedPage,
    polling: poll::Polling,
    callback: upcall::CallbackPlace,
    /// Assists that are on, one bit each (vm_assist, public/xen.h).
    assists: AtomicU64,
    /// The port that hears of a suspension instead of the control domain (domctl subscribe), or 0.
    suspend_port: AtomicU32,
}

impl DomainEvents {
    /// No channel open, and a zeroed shared_info.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(id: DomId, settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self {
            table: Lock::new(EventTable::try_new(settings.max_port)?),
            shared_info: SharedPage::try_new(id)?,
            polling: poll::Polling::new(),
            callback: upcall::CallbackPlace::new(),
            assists: AtomicU64::new(0),
            suspend_port: AtomicU32::new(0),
        })
    }

    #[inline]
    pub(crate) fn table(&self) -> Guard<'_, EventTable, { rank::EVENT }> {
        self.table.lock()
    }

    /// The shared_info page.
    #[inline]
    pub fn shared_info(&self) -> &Pin {
        self.shared_info.pin()
    }

    /// Where the domain has mapped its shared_info page last, if it ever has.
    pub fn shared_info_gfn(&self) -> Option<Gfn> {
        self.shared_info.gfn()
    }

    /// Where shared_info is, for XENMAPSPACE_shared_info.
    pub fn shared_info_mfn(&self) -> Mfn {
        self.shared_info.mfn()
    }

    /// Whether an assist is on.
    #[inline]
    pub fn has_assist(&self, assist: u32) -> bool {
        self.assists.load(Ordering::Acquire) & 1u64.checked_shl(assist).unwrap_or(0) != 0
    }

    /// Turns assists on and off, one bit each.
    pub fn change_assists(&self, on: u64, off: u64) {
        self.assists.fetch_or(on, Ordering::AcqRel);
        self.assists.fetch_and(!off, Ordering::AcqRel);
    }

    /// The port that hears of a suspension, if the toolstack subscribed one.
    pub fn suspend_port(&self) -> Option<u32> {
        Some(self.suspend_port.load(Ordering::Acquire)).filter(|port| *port != 0)
    }

    /// Chooses the port that hears of a suspension; 0 for none.
    pub fn set_suspend_port(&self, port: u32) {
        self.suspend_port.store(port, Ordering::Release);
    }
}

/// A vCPU's side of events and time.
#[derive(Debug)]
pub struct VcpuEvents {
    /// Its vcpu_info and upcall vector.
    pub(crate) upcall: upcall::VcpuUpcall,
    /// What it polls for.
    poll_port: poll::PollPort,
    /// Its clock and run state.
    pub time: VcpuTime,
}

impl VcpuEvents {
    /// Nothing registered.
    pub const fn new() -> Self {
        Self { upcall: upcall::VcpuUpcall::new(), poll_port: poll::PollPort::new(), time: VcpuTime::new() }
    }

    /// Forgets everything that the guest registered: the vCPU is reset, or the domain dies.
    pub fn reset(&self) {
        self.upcall.reset();
        self.time.reset();
    }
}

impl Default for VcpuEvents {
    fn default() -> Self {
        Self::new()
    }
}

//! How long each vCPU has been running, waiting for a CPU, blocked and offline; and the copy that the guest sees.
//!
//! public/vcpu.h, vcpu_runstate_info. Linux computes steal time from it, also of vCPUs other than the one it runs on, so the
//! copy is written at every change. With the assist `runstate_update_flag` the topmost bit of the entry time is set while
//! the copy is being written.

use super::area::Area;
use crate::domain::Domain;
use crate::vcpu::Vcpu;
use core::mem::offset_of;
use public_abi::vcpu::{RUNSTATE_UPDATE, Runstate, RunstateInfo};
use public_abi::vm_assist::VmAssistType;
use zerocopy::{FromZeros, IntoBytes};

const ENTRY_TIME: usize = offset_of!(RunstateInfo, state_entry_time);

/// The account of one vCPU.
#[derive(Debug)]
pub(crate) struct Account {
    state: Runstate,
    /// System time at which the state began, in nanoseconds.
    since: u64,
    /// Nanoseconds in each state, by its number, without the state that lasts.
    spent: [u64; 4],
    /// The guest's copy.
    pub(super) area: Option<Area>,
}

impl Account {
    /// Offline since boot, without a copy.
    pub const fn new() -> Self {
        Self { state: Runstate::Offline, since: 0, spent: [0; 4], area: None }
    }

    /// Counts from now on: the vCPU has just been made.
    pub(super) const fn begin(&mut self, now: u64) {
        self.since = now;
    }

    /// Changes the state; false if it is the same as before. A clock that stands still or goes back adds nothing.
    fn change(&mut self, state: Runstate, now: u64) -> bool {
        if state == self.state {
            return false;
        }
        if let Some(lasted) = now.checked_sub(self.since).filter(|lasted| *lasted > 0) {
            if let Some(spent) = self.spent.get_mut(usize::try_from(self.state.number()).unwrap_or(usize::MAX)) {
                *spent = spent.saturating_add(lasted);
            }
            self.since = now;
        }
        self.state = state;
        true
    }

    /// As the guest sees it: without the time of the state that lasts.
    fn info(&self) -> RunstateInfo {
        RunstateInfo {
            state: self.state.number(),
            state_entry_time: self.since,
            time: self.spent,
            ..RunstateInfo::new_zeroed()
        }
    }

    /// With the time of the state that lasts added (VCPUOP_get_runstate_info).
    pub fn info_at(&self, now: u64) -> RunstateInfo {
        let mut info = self.info();
        if let Some(spent) = info.time.get_mut(usize::try_from(self.state.number()).unwrap_or(usize::MAX)) {
            *spent = spent.saturating_add(now.saturating_sub(self.since));
        }
        info
    }

    /// Writes the guest's copy, if there is one.
    pub(super) fn publish(&self, with_flag: bool) {
        let Some(area) = &self.area else { return };
        let mut info = self.info();
        if with_flag {
            area.write(ENTRY_TIME, (info.state_entry_time | RUNSTATE_UPDATE).as_bytes());
            info.state_entry_time |= RUNSTATE_UPDATE;
        }
        area.write(0, info.as_bytes());
        if with_flag {
            area.write(ENTRY_TIME, (info.state_entry_time & !RUNSTATE_UPDATE).as_bytes());
        }
    }
}

/// Whether a domain wants the flag while its copies are written.
pub(super) fn wants_flag(domain: &Domain) -> bool {
    domain.events.has_assist(VmAssistType::RunstateUpdateFlag.number())
}

/// A vCPU's state changes at system time `now`, in nanoseconds. The scheduler calls this, holding no lock of rank
/// VCPU_AREAS or above (a run queue's is).
pub fn runstate_changed(domain: &Domain, vcpu: &Vcpu, state: Runstate, now: u64) {
    let mut account = vcpu.events.time.account.lock();
    if account.change(state, now) && account.area.is_some() {
        account.publish(wants_flag(domain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        let mut account = Account::new();
        account.begin(100);
        assert!(account.change(Runstate::Runnable, 150));
        assert!(!account.change(Runstate::Runnable, 160));
        assert!(account.change(Runstate::Running, 170));
        assert!(account.change(Runstate::Blocked, 165), "the clock went back a little");
        let info = account.info_at(200);
        assert_eq!(info.state, 2);
        assert_eq!(info.time, [0, 20, 30, 50]);
        assert_eq!(info.state_entry_time, 170);
        assert_eq!(account.info().time, [0, 20, 0, 50], "the guest's copy lacks what still lasts");
    }
}

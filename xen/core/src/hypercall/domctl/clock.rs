//! domctl about a domain's clocks: its offset from UTC, and its time stamp counter.
//!
//! Guests read the counter directly, at the host's rate: a request for another rate or for emulation is refused rather than
//! answered with a clock that runs wrong.

use super::{Answer, answer};
use crate::domain::create::Tsc;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::time;
use machine::log;
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::{SetTimeOffset, TscInfo, TscMode};

/// settimeoffset.
pub fn set_offset(caller: &Caller<'_>, target: &Target<'_>, request: &SetTimeOffset) -> Result<Answer, Stop> {
    target.control.lock().time_offset_seconds = request.time_offset_seconds;
    time::update_wall_clock(caller.host, target);
    Ok(Answer::Unchanged)
}

/// The host's rate in kHz.
fn host_khz() -> u32 {
    u32::try_from(machine::cpu::timestamp_khz()).unwrap_or(u32::MAX)
}

/// settscinfo.
pub fn set_tsc(target: &Target<'_>, request: &TscInfo) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    let tsc = accept(request, host_khz()).inspect_err(|_| {
        log!(Warning, "{}: TSC mode {} at {} kHz is refused", target.id, request.tsc_mode, request.gtsc_khz);
    })?;
    target.control.lock().records.tsc = tsc;
    Ok(Answer::Unchanged)
}

/// What to remember of a request, on a host whose counter runs at `host_khz`.
fn accept(request: &TscInfo, host_khz: u32) -> Result<Tsc, Errno> {
    match TscMode::try_from(request.tsc_mode).map_err(|_| Errno::EINVAL)? {
        TscMode::NeverEmulate => {}
        TscMode::Default if request.gtsc_khz == 0 || request.gtsc_khz == host_khz => {}
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(Tsc { mode: request.tsc_mode, incarnation: request.incarnation.wrapping_add(1), khz: request.gtsc_khz })
}

/// gettscinfo.
pub fn get_tsc(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    let tsc = target.control.lock().records.tsc;
    let ticks = caller.host.clock.scale().nanoseconds(machine::cpu::timestamp());
    Ok(answer(request, &report(tsc, host_khz(), ticks))?)
}

/// What Xen tells of a counter that is not emulated: its own rate, and its value as time.
fn report(tsc: Tsc, host_khz: u32, ticks_as_time: u64) -> TscInfo {
    let never = tsc.mode == TscMode::NeverEmulate.number();
    TscInfo {
        tsc_mode: tsc.mode,
        gtsc_khz: if never { 0 } else { host_khz },
        incarnation: tsc.incarnation,
        elapsed_nsec: if never { 0 } else { ticks_as_time },
        ..TscInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(tsc_mode: u32, gtsc_khz: u32) -> Result<Tsc, Errno> {
        accept(&TscInfo { tsc_mode, gtsc_khz, ..TscInfo::default() }, 2_000_000)
    }

    #[test]
    fn only_the_hosts_own_rate_is_accepted() {
        assert_eq!(ask(0, 0), Ok(Tsc { mode: 0, incarnation: 1, khz: 0 }));
        assert!(ask(0, 2_000_000).is_ok());
        assert_eq!(ask(0, 1_000_000), Err(Errno::EOPNOTSUPP));
        assert_eq!(ask(1, 0), Err(Errno::EOPNOTSUPP));
        assert!(ask(2, 1_000_000).is_ok(), "never emulated: the rate is only a note");
        assert_eq!(ask(3, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn a_counter_that_is_never_emulated_tells_nothing() {
        let tsc = Tsc { mode: 2, incarnation: 4, khz: 5 };
        let info = report(tsc, 2_000_000, 77);
        assert_eq!((info.tsc_mode, info.gtsc_khz, info.elapsed_nsec, info.incarnation), (2, 0, 0, 4));
        let info = report(Tsc { mode: 0, ..tsc }, 2_000_000, 77);
        assert_eq!((info.gtsc_khz, info.elapsed_nsec), (2_000_000, 77));
    }
}

//! Memory for a new domain: what the hypervisor has free, and what the control domain gives up for it (autoballoon=).
//!
//! Comes before the build, which would only find out half-way.

use std::thread::sleep;
use std::time::{Duration, Instant};

use libxc::trap::Trap;
use libxc::xenstore::Tx;

use super::{change, devices};
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::session::Session;

/// How long the control domain may take to give up memory while none comes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Sees that so much memory is free.
pub fn make<T: Trap>(session: &Session<T>, host: &HostConfig, needed_kib: u64) -> Outcome {
    let free_kib = free(session)?;
    if free_kib >= needed_kib {
        return Ok(());
    }
    // The memory of a control domain that is mapped 1:1 stays its own.
    let is_one_to_one = devices::facts(session, false)?.one_to_one;
    if is_one_to_one || !host.balloons(&session.handle.command_line()?) {
        return Err(lack(needed_kib, free_kib));
    }
    balloon(session, needed_kib)
}

/// Free memory in KiB that nobody was promised.
fn free<T: Trap>(session: &Session<T>) -> Outcome<u64> {
    let info = session.handle.phys_info()?;
    Ok((info.free_pages + info.scrub_pages).saturating_sub(info.outstanding_pages) * 4)
}

fn lack(needed_kib: u64, free_kib: u64) -> Failure {
    Failure::new(format!(
        "memory: the domain needs {} MiB (its page tables included), but the hypervisor has {} MiB free; \
         dom0_mem= on the hypervisor's command line leaves more to guests",
        needed_kib.div_ceil(1024),
        free_kib / 1024
    ))
}

/// Asks the control domain for what is missing, and waits for it.
fn balloon<T: Trap>(session: &Session<T>, needed_kib: u64) -> Outcome {
    let mut best = free(session)?;
    let target = session.store.read(Tx::NONE, "/local/domain/0/memory/target")?;
    let control = session.handle.domain_info(0)?.map_or(0, |info| info.pages * 4);
    let target = target.and_then(|text| text.parse().ok()).unwrap_or(control);
    let missing = needed_kib.saturating_sub(best);
    let wanted = target.checked_sub(missing).ok_or_else(|| lack(needed_kib, best))?;
    change::memory_target(session, 0, wanted)
        .map_err(|failure| failure.while_doing("taking memory from the control domain (autoballoon)"))?;
    let mut since = Instant::now();
    while since.elapsed() < PATIENCE {
        let now = free(session)?;
        if now >= needed_kib {
            return Ok(());
        }
        if now > best {
            (best, since) = (now, Instant::now());
        }
        sleep(PAUSE);
    }
    Err(lack(needed_kib, best))
}

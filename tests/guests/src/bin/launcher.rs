//! No test by itself: makes a guest of the ELF file that is its boot module, and shows its console as its own.
//!
//! So every tiny guest runs as an ordinary domain without any Linux (`cargo xtask guest --as-guest`, layer 2). When the guest
//! has ended, its domain is destroyed, memory must be what it was before, and this domain ends as the guest did.
//! `vcpus=N memory=MIB rounds=N` on the command line.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering::SeqCst;
    use guests::builder::{self, Guest, Wishes};
    use guests::shared::Shared;
    use guests::{Test, call, clock, environment, println, shut_down};
    use public_abi::GuestPtr;
    use public_abi::domctl::DomctlOp;
    use public_abi::domctl_domain::{DomainInfoFlags, GetDomainInfo};
    use public_abi::event_channel::{BindInterdomain, EventChannelOp};
    use public_abi::io::console::{OUT_SIZE, XenconsInterface};
    use public_abi::sched::{SchedOp, SchedPoll, ShutdownReason};
    use public_abi::sysctl::{PhysInfo, SysctlOp};
    use rt::memory;

    guests::guest!("launcher", run);

    /// How long a guest may live, in milliseconds of its own time.
    const LIFE: u64 = 300_000;
    const LINE: usize = 240;
    const FIRST_ROUND_PAGES: u64 = 16;

    fn run(test: &mut Test) {
        let Some((file, _)) = environment::module(0) else {
            return test.check("a boot module with the guest", false, "there is none");
        };
        let wishes = Wishes {
            vcpus: environment::option("vcpus").unwrap_or(1) as u32,
            mebibytes: environment::option("memory").unwrap_or(64),
        };
        let shared = Shared::map();
        let mut end = ShutdownReason::Crash;
        for round in 0..environment::option("rounds").unwrap_or(1) {
            let before = free_pages();
            match builder::build(file, wishes) {
                Ok(guest) => {
                    if round == 0 {
                        println!(
                            "GUEST-INFO made domain {}; {} pages of memory less",
                            guest.domid,
                            before - free_pages()
                        );
                    }
                    end = live(test, shared, guest);
                    let destroyed = builder::destroy(guest.domid);
                    test.check("destroyed", destroyed.is_ok(), format_args!("{destroyed:?}"));
                }
                Err((failure, domid)) => {
                    test.check("built", false, format_args!("{failure:?}"));
                    let cleared = domid.map(builder::destroy);
                    println!("GUEST-INFO cleared away: {cleared:?}");
                }
            }
            // The first time this domain gets tables for the guest's pages, and the hypervisor's heap may grow.
            let lost = before.wrapping_sub(free_pages());
            let may_be = if round == 0 { FIRST_ROUND_PAGES } else { 0 };
            test.check("as much free memory as before", lost <= may_be, format_args!("{lost} pages lost"));
        }
        test.finish_as_host();
        shut_down(end)
    }

    fn free_pages() -> u64 {
        let mut info = PhysInfo::default();
        call::sysctl(SysctlOp::PhysInfo, &mut info);
        info.free_pages
    }

    /// Lets the guest run to its end; gives the reason.
    fn live(test: &mut Test, shared: Shared, guest: Guest) -> ShutdownReason {
        let mut bind =
            BindInterdomain { remote_dom: guest.domid, remote_port: guest.console_port, ..Default::default() };
        test.succeeds("console", call::event(EventChannelOp::BindInterdomain, &mut bind));
        test.succeeds("unpause", call::domctl_plain(DomctlOp::UnpauseDomain, guest.domid));
        let mut line = Line { bytes: [0; LINE], used: 0 };
        let begin = rt::timestamp();
        let reason = loop {
            let reason = shutdown_reason(guest.domid);
            // What it has printed last is in the ring before it stops.
            line.drain(bind.local_port);
            if let Some(reason) = reason {
                break reason;
            }
            if rt::timestamp().wrapping_sub(begin) / clock::khz() > LIFE {
                test.holds("the guest comes to an end", false);
                break ShutdownReason::Watchdog.number();
            }
            wait(shared, bind.local_port);
        };
        test.succeeds("console closed", call::close(bind.local_port));
        ShutdownReason::try_from(reason).unwrap_or(ShutdownReason::Crash)
    }

    /// Waits until the guest has printed something; it may also have ended, so not for long.
    fn wait(shared: Shared, port: u32) {
        let mut ports = [port];
        let timeout = shared.vcpu(0).now() + 5_000_000;
        let ports = GuestPtr::from_address(call::address(&mut ports));
        call::sched(SchedOp::Poll, &mut SchedPoll { ports, nr_ports: 1, timeout, ..Default::default() });
        let _ = shared.take_pending(port);
    }

    fn shutdown_reason(domid: u16) -> Option<u32> {
        let mut info = GetDomainInfo::default();
        let (result, _) = call::domctl(DomctlOp::GetDomainInfo, domid, &mut info);
        let flags = DomainInfoFlags::from_bits_retain(info.flags);
        let reason = info.flags >> DomainInfoFlags::SHUTDOWN_SHIFT & 0xff;
        (result == 0 && flags.contains(DomainInfoFlags::SHUTDOWN)).then_some(reason)
    }

    /// A line of the guest's that is not complete yet.
    struct Line {
        bytes: [u8; LINE],
        used: usize,
    }

    impl Line {
        /// Takes what is in the ring.
        fn drain(&mut self, port: u32) {
            let ring = builder::console_ring();
            let produced = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_prod) as u64);
            let consumed = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_cons) as u64);
            let bytes = ring + core::mem::offset_of!(XenconsInterface, output) as u64;
            let (mut at, end) = (consumed.load(SeqCst), produced.load(SeqCst));
            if at == end {
                return;
            }
            // A guest that lies about its ring gets its bytes shown, no more than the ring has.
            at = end.wrapping_sub(end.wrapping_sub(at).min(OUT_SIZE as u32));
            while at != end {
                self.put(memory::read(bytes + u64::from(at) % OUT_SIZE as u64));
                at = at.wrapping_add(1);
            }
            consumed.store(end, SeqCst);
            call::send(port);
        }

        fn put(&mut self, byte: u8) {
            if byte == b'\n' || self.used == LINE {
                let text = core::str::from_utf8(self.bytes.get(..self.used).unwrap_or_default());
                println!("{}", text.unwrap_or("GUEST-INFO a line that is no text"));
                self.used = 0;
            }
            if byte != b'\n'
                && let Some(place) = self.bytes.get_mut(self.used)
            {
                *place = byte;
                self.used += 1;
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

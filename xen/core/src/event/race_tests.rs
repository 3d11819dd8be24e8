//! Several CPUs bind, close and send across domains at once: nothing deadlocks, and in the end both tables agree.

use super::fixture::{domain, with_host};
use super::table::Closer;
use super::{State, channel};
use crate::host::Host;
use machine::DomId;
use public_abi::Errno;
use std::vec::Vec;

const DOMAINS: u16 = 3;
const ROUNDS: u32 = 40_000;

/// A small generator, so that every CPU does something else.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 40).unwrap() % limit
    }
}

fn work(host: &Host, seed: u64) {
    let mut random = Random(seed);
    for _ in 0..ROUNDS {
        let ids = [random.below(3), random.below(3)].map(|id| u16::try_from(id).unwrap());
        let (near, far) = (domain(host, ids[0]), domain(host, ids[1]));
        let port = 1 + random.below(8);
        match random.below(5) {
            0 if near.events.table().bound() < 8 => {
                assert!(channel::alloc_unbound(&near, far.id).is_ok());
            }
            1 => {
                let answer = channel::bind_interdomain(host, &near, &far, port);
                assert!(matches!(answer, Ok(_) | Err(Errno::EINVAL)), "{answer:?}");
            }
            2 => {
                channel::close(host, &near, port, Closer::Guest).ok();
            }
            _ => {
                channel::send(host, &near, port).ok();
            }
        }
    }
}

#[test]
fn tables_agree_whatever_crosses() {
    with_host(DOMAINS, 1, |machine, host| {
        std::thread::scope(|scope| {
            for cpu in 1..3u16 {
                scope.spawn(move || machine.on_cpu(cpu, || work(host, 0x9e37 * u64::from(cpu))));
            }
            work(host, 1);
        });
        for id in 0..DOMAINS {
            let states: Vec<State> = {
                let table = domain(host, id).events.table.lock().count();
                (0..table).map(|port| domain(host, id).events.table().port(port).unwrap().state).collect()
            };
            for (port, state) in (0..).zip(states) {
                assert_ne!(state, State::Reserved, "port {port} of d{id} is left in the middle");
                if let State::Interdomain { domain: peer, port: far } = state {
                    let found = domain(host, peer.0).events.table().port(far).unwrap().state;
                    assert_eq!(found, State::Interdomain { domain: DomId(id), port }, "d{id} port {port}");
                }
            }
        }
    });
}

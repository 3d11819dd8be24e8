//! A vCPU that goes to sleep while another CPU sends it an interrupt: either it sees the request, or it is seen asleep.
//!
//! On real threads, because what is at stake is the order of a store and a load on two processors, which the model checker of
//! `sched` does not know for this hint. On one processor the test cannot fail.

use super::*;
use crate::sched::RunState;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

const ROUNDS: u32 = 100_000;
const ASLEEP: u32 = 1;
const VECTOR: u8 = 0xf3;

/// Waits until `place` has come to `round`. On a busy machine the other side may not be running at all.
fn wait(place: &AtomicU32, round: u32) {
    let mut looks = 0_u32;
    while place.load(SeqCst) < round {
        looks += 1;
        if looks.is_multiple_of(2_000) {
            thread::yield_now();
        }
        hint::spin_loop();
    }
}

/// A moment that differs from round to round.
fn dawdle(round: u32, seed: u32) {
    for _ in 0..round.wrapping_mul(seed) >> 27 {
        hint::spin_loop();
    }
}

#[test]
fn who_goes_to_sleep_sees_the_request_or_is_seen_asleep() {
    let (lapic, state) = (Vlapic::new(0, true), RunState::new(0));
    lapic.spurious.store(0x1ff, SeqCst);
    // The round that both are in, and the last one that the sleeper has ended.
    let (begun, ended) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut lost = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait(&begun, round);
                dawdle(round, 0x85eb_ca6b);
                state.add(ASLEEP);
                if lapic.pending() != Pending::Nothing {
                    state.clear(ASLEEP);
                }
                ended.store(round, SeqCst);
            }
        });
        for round in 1..=ROUNDS {
            begun.store(round, SeqCst);
            dawdle(round, 0x9e37_79b1);
            if lapic.request(VECTOR, Trigger::Edge) {
                state.end(ASLEEP);
            }
            wait(&ended, round);
            // The request is there, so nobody may sleep now.
            lost += state.reasons() & ASLEEP;
            state.clear(ASLEEP);
            lapic.requested.clear();
            assert_eq!(lapic.pending(), Pending::Nothing);
        }
    });
    assert_eq!(lost, 0, "so many of {ROUNDS} interrupts were lost");
}

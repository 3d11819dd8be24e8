//! Clients that send anything at all, over sockets and rings.

use proptest::prelude::*;
use public_abi::io::xs_wire::{ERROR_PROTO, RING_SIZE};

use super::*;
use crate::ring::Ring;
use crate::ring::tests::Page;

/// Bytes that are often nearly a request.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let paths =
        ["/\0", "/a\0", "/local/domain/3/x\0v", "x\0t\0", "@releaseDomain\0t\0", "T\0", "/a\x000\0", "n3\0", "\0", ""];
    let near = (
        0_u32..24,
        0_u32..4,
        prop::sample::select(paths.to_vec()),
        prop::sample::select(vec![0_i64, 0, 0, 0, -1, 1, 5000, 1 << 31]),
    )
        .prop_map(|(kind, tx, payload, off)| {
            let length = u32::try_from((payload.len() as i64 + off).max(0)).expect("is small");
            let words = [kind, 7, tx, length].map(u32::to_le_bytes).concat();
            [words.as_slice(), payload.as_bytes()].concat()
        });
    prop_oneof![4 => near, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

#[test]
fn a_message_that_is_too_long_ends_the_connection() {
    let mut bench = Bench::new();
    let (guest, program) = (bench.domain(3), bench.socket());
    for id in [guest, program] {
        bench.send(id, &[2, 1, 0, 4097].map(u32::to_le_bytes).concat());
        assert_eq!(bench.engine.failure(id), Some(ERROR_PROTO));
        assert!(!bench.engine.wants_input(id));
        bench.send(id, &wire::encode(XsMessage::Read, 1, 0, &[b"/\0"]).expect("is short"));
        assert!(bench.messages(id).is_empty(), "nobody listens any more");
    }
    let control = bench.socket();
    bench.ok(control, XsMessage::Introduce, 0, "3\x0077\x009\0");
    assert_eq!(bench.engine.failure(guest), None, "a new introduction is a new beginning");
}

proptest! {
    /// Whatever a domain and a program send, the daemon lives, its sums are right, and a quiet client is served.
    #[test]
    fn noise_harms_nobody_else(chunks in prop::collection::vec((any::<bool>(), noise()), 1..60)) {
        let mut bench = Bench::new();
        let (guest, program, quiet) = (bench.domain(3), bench.socket(), bench.socket());
        bench.ok(quiet, XsMessage::Write, 0, "/quiet\0v");
        bench.ok(quiet, XsMessage::SetPerms, 0, "/quiet\0n0\0");
        for (by_guest, bytes) in chunks {
            let id = if by_guest { guest } else { program };
            // A program may do anything to the store; only its noise is of interest, not its requests.
            let kind = bytes.first().copied().unwrap_or(0);
            let is_destructive = !by_guest && matches!(kind, 0 | 9 | 10 | 11 | 13 | 14 | 8 | 18 | 19);
            if !is_destructive {
                bench.send(id, &bytes);
            }
            if bytes.len() % 3 == 0 {
                bench.messages(id);
                bench.engine.proceed(&mut bench.host, id);
            }
        }
        prop_assert!(bench.engine.store.is_consistent());
        prop_assert_eq!(bench.ok(quiet, XsMessage::Read, 0, "/quiet\0"), "v");
        prop_assert!(bench.engine.output(guest).is_some());
    }

    /// A request is answered the same however its bytes are cut.
    #[test]
    fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..30, 1..40)) {
        let mut bench = Bench::new();
        let guest = bench.domain(3);
        let requests: Vec<u8> = (0_u32..8)
            .flat_map(|number| wire::encode(XsMessage::Write, number, 0, &[format!("n{number}\0v").as_bytes()]).expect("is short"))
            .collect();
        let mut rest = requests.as_slice();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            bench.send(guest, now);
            rest = later;
        }
        bench.send(guest, rest);
        let answers: Vec<u32> = bench.messages(guest).iter().map(|message| message.header.req_id).collect();
        prop_assert_eq!(answers, (0..8).collect::<Vec<u32>>());
        prop_assert_eq!(bench.engine.store.usage(3).nodes, 9);
    }

    /// A hostile ring: indices anywhere, bytes at random. The daemon lives and takes no more than a ring at a time.
    #[test]
    fn a_hostile_ring(steps in prop::collection::vec((0_usize..5, any::<u32>(), noise()), 1..60)) {
        let mut bench = Bench::new();
        let guest = bench.domain(3);
        let mut ring = Ring::fresh(Page::new());
        let mut is_listened_to = true;
        for (what, wild, bytes) in steps {
            if what < 2 {
                // Anywhere in the page's control words, the daemon's own among them.
                libxc::trap::Foreign::store(ring.page(), 2048 + 4 * (wild as usize % 7), wild);
            } else if is_listened_to && ring.take().is_ok() {
                ring.page().0[..bytes.len()].copy_from_slice(&bytes);
                bench.send(guest, &bytes);
                ring.publish();
                let waiting = bench.engine.output(guest).expect("is there").front().to_vec();
                match ring.give(&waiting) {
                    Ok(count) => {
                        prop_assert!(count <= RING_SIZE);
                        bench.engine.output(guest).expect("is there").take(count);
                    }
                    Err(_) => is_listened_to = false,
                }
            }
        }
        prop_assert!(bench.engine.store.is_consistent());
    }
}

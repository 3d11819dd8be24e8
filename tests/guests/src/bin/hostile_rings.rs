//! Everything that a guest must not do to xenstored and xenconsoled by the rings it shares with them: what is not its own is refused,
//! limits hold, nonsense on the rings hurts nobody but the guest. The scenario `xenstored` makes it, looks after the daemons meanwhile,
//! and has prepared `/secret` (nobody's but dom0's) and `/open` (everybody's).
//!
//! The errors are those of Xen 4.17's C xenstored.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::mem::offset_of;
    use core::sync::atomic::Ordering;

    use guests::store::{Message, Silence, Store, Word};
    use guests::{Test, call, clock, console};
    use public_abi::hvm_params::HvmParam;
    use public_abi::io::console::XenconsInterface;
    use public_abi::io::xs_wire::{ERROR_PROTO, ERROR_RINGIDX, XsMessage};
    use rt::memory;
    use zerocopy::IntoBytes;

    guests::guest!("hostile_rings", run);

    type Step = fn(&mut Test, &mut Store) -> Result<(), Silence>;

    fn run(test: &mut Test) {
        let Some(mut store) = Store::find() else {
            test.check("a ring", false, "there is none");
            return;
        };
        let steps: [(&str, Step); 8] = [
            ("refused", refused),
            ("small pieces", small_pieces),
            ("nonsense", nonsense),
            ("limits", limits),
            ("lengths", lengths),
            ("indices", indices),
            ("noise", noise),
            ("untaken answers", untaken_answers),
        ];
        for (name, step) in steps {
            let result = step(test, &mut store);
            test.check("an answer in time", result.is_ok(), name);
            // Whatever it was, the daemon goes on with this guest, too.
            let alive = store.ask(XsMessage::Read, 0, &[b"name\0"]);
            test.check("alive", alive.is_ok_and(|answer| answer.start() == b"hostile"), name);
        }
        console_indices();
    }

    fn fails(test: &mut Test, name: &'static str, answer: Message, wanted: &str) {
        let got = answer.error().unwrap_or("success");
        test.check(name, got == wanted, format_args!("got {got}, want {wanted}"));
    }

    /// Nodes of others, and requests for the control domain only.
    fn refused(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        use XsMessage as M;
        let requests: [(M, &[u8]); 14] = [
            (M::Read, b"/secret\0"),
            (M::Read, b"/secret/below\0"),
            (M::Directory, b"/secret\0"),
            (M::GetPerms, b"/secret\0"),
            (M::Write, b"/secret\0mine"),
            (M::Write, b"/secret/new\0mine"),
            (M::Mkdir, b"/secret/new\0"),
            (M::Rm, b"/secret\0"),
            (M::SetPerms, b"/secret\0b0\0"),
            (M::Write, b"name\0another"),
            (M::Introduce, b"7\x001\x001\0"),
            (M::Release, b"0\0"),
            (M::SetTarget, b"0\x000\0"),
            (M::Control, b"quota\0nodes\x00100000\0"),
        ];
        for (kind, payload) in requests {
            let answer = store.ask(kind, 0, &[payload])?;
            fails(test, kind.name(), answer, "EACCES");
        }
        // Neither in a transaction.
        let begun = store.ask(M::TransactionStart, 0, &[b"\0"])?;
        let number = begun.start().split_last().and_then(|(_, digits)| core::str::from_utf8(digits).ok()?.parse().ok());
        let tx: u32 = number.unwrap_or(0);
        test.holds("a transaction", tx != 0);
        let answer = store.ask(M::Write, tx, &[b"/secret\0mine"])?;
        fails(test, "a write in a transaction", answer, "EACCES");
        store.ask(M::TransactionEnd, tx, &[b"T\0"])?;
        Ok(())
    }

    /// A request byte by byte.
    fn small_pieces(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        let header = store.header(XsMessage::Read.number(), 0, 5);
        store.push(header.as_bytes(), 1)?;
        store.push(b"name\0", 1)?;
        test.holds("a request in pieces", store.answer()?.start() == b"hostile");
        Ok(())
    }

    /// Requests that are none.
    fn nonsense(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        for kind in [20, 0x7777, u32::MAX] {
            let header = store.header(kind, 0, 0);
            store.push(header.as_bytes(), 64)?;
            let answer = store.answer()?;
            fails(test, "an unknown kind", answer, "ENOSYS");
        }
        for path in [&b"\0"[..], b"name", b"/a//b\0", b"/a/\0", b"/\xff\0", b"/a\0/b\0", b""] {
            let answer = store.ask(XsMessage::Read, 0, &[path])?;
            test.check("a path that is none", answer.error().is_some(), format_args!("{path:?}"));
        }
        let answer = store.ask(XsMessage::TransactionEnd, 4711, &[b"T\0"])?;
        fails(test, "a transaction of nobody", answer, "ENOENT");
        let answer = store.ask(XsMessage::Read, 4711, &[b"name\0"])?;
        fails(test, "a read in it", answer, "ENOENT");
        Ok(())
    }

    /// As much as there may be and no more.
    fn limits(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        let answer = store.ask(XsMessage::Write, 0, &[b"/open/large\0", &[b'x'; 3000]])?;
        fails(test, "a large node", answer, "ENOSPC");
        let nodes = until_error(store, XsMessage::Mkdir, b"/open/", b"", 1200)?;
        test.check("nodes", nodes.0 == "ENOSPC" && (500..=1000).contains(&nodes.1), format_args!("{nodes:?}"));
        let watches = until_error(store, XsMessage::Watch, b"/open/", b"token\0", 200)?;
        test.check("watches", watches.0 == "E2BIG" && watches.1 <= 128, format_args!("{watches:?}"));
        store.ask(XsMessage::ResetWatches, 0, &[b"\0"])?;
        test.check("first events", store.events >= watches.1, store.events);
        let mut begun = 0;
        let answer = loop {
            let answer = store.ask(XsMessage::TransactionStart, 0, &[b"\0"])?;
            if answer.error().is_some() || begun > 20 {
                break answer;
            }
            begun += 1;
        };
        fails(test, "transactions", answer, "ENOSPC");
        test.check("some transactions", (1..=11).contains(&begun), begun);
        store.ask(XsMessage::ResetWatches, 0, &[b"\0"])?;
        store.ask(XsMessage::Rm, 0, &[b"/open/1\0"])?;
        Ok(())
    }

    /// Makes requests with numbered paths until one fails: its error, and how many did not.
    fn until_error(
        store: &mut Store,
        kind: XsMessage,
        path: &[u8],
        rest: &[u8],
        most: u32,
    ) -> Result<(&'static str, u32), Silence> {
        for count in 0..most {
            let digits = [count / 1000, count / 100 % 10, count / 10 % 10, count % 10].map(|digit| b'0' + digit as u8);
            let answer = store.ask(kind, 0, &[path, &digits, b"\0", rest])?;
            match answer.error() {
                None => {}
                Some("ENOSPC") => return Ok(("ENOSPC", count)),
                Some("E2BIG") => return Ok(("E2BIG", count)),
                Some(_) => return Ok(("another", count)),
            }
        }
        Ok(("none", most))
    }

    /// A message longer than there can be ends the connection, which may begin anew.
    fn lengths(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        for length in [4097, 65_536, 0x7fff_ffff, usize::MAX] {
            let header = store.header(XsMessage::Write.number(), 0, length);
            store.push(header.as_bytes(), 64)?;
            test.equal("the error of a length", i64::from(store.wait_for_error()), i64::from(ERROR_PROTO));
            store.reconnect()?;
        }
        Ok(())
    }

    /// Indices that make no sense.
    fn indices(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        for (word, step) in [
            (Word::RequestGiven, 1025_u32),
            (Word::RequestGiven, 0x8000_0000),
            (Word::RequestGiven, u32::MAX),
            (Word::AnswerTaken, 1),
            (Word::AnswerTaken, 0x8000_0000),
        ] {
            let index = store.word(word);
            index.store(index.load(Ordering::SeqCst).wrapping_add(step), Ordering::SeqCst);
            if matches!(word, Word::AnswerTaken) {
                // It is looked at when there is something to answer.
                let header = store.header(XsMessage::Read.number(), 0, 5);
                store.push(header.as_bytes(), 64)?;
                store.push(b"name\0", 64)?;
            }
            store.notify();
            test.equal("the error of an index", i64::from(store.wait_for_error()), i64::from(ERROR_RINGIDX));
            store.reconnect()?;
        }
        // The daemon's own indices in the page are not what it goes by.
        for word in [Word::RequestTaken, Word::AnswerGiven] {
            store.word(word).store(0x1234_5678, Ordering::SeqCst);
            store.notify();
            store.reconnect()?;
        }
        Ok(())
    }

    /// Random bytes and random indices.
    fn noise(_: &mut Test, store: &mut Store) -> Result<(), Silence> {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..200 {
            let mut bytes = [0; 96];
            for byte in &mut bytes {
                *byte = random() as u8;
            }
            if round % 2 == 0 {
                // A header that could be one.
                bytes[..4].copy_from_slice(&((random() % 24) as u32).to_le_bytes());
                bytes[8..16].copy_from_slice(&((random() % 40) << 32).to_le_bytes());
            }
            // After a bad message the daemon takes no more, but there is room for this.
            store.push(&bytes, 31)?;
            if round % 3 == 0 {
                let words = [Word::RequestGiven, Word::AnswerTaken, Word::RequestTaken, Word::AnswerGiven];
                let index = store.word(words[random() as usize % 4]);
                index.store(random() as u32, Ordering::SeqCst);
                store.notify();
            }
            store.reconnect()?;
        }
        Ok(())
    }

    /// Answers that nobody takes: the daemon reads no more than it can keep, and goes on when they are taken.
    fn untaken_answers(test: &mut Test, store: &mut Store) -> Result<(), Silence> {
        let (mut sent, mut bytes) = (0, 0);
        // As many as go on the ring while the daemon does not listen any more.
        while bytes < 1000 {
            let header = store.header(XsMessage::Directory.number(), 0, 6);
            store.push(header.as_bytes(), 64)?;
            store.push(b"/open\0", 64)?;
            sent += 1;
            bytes += 22;
        }
        test.check("answers", sent > 40, sent);
        for _ in 0..sent {
            let answer = store.receive()?;
            test.holds("a list or an error", answer.error().is_none_or(|error| error == "E2BIG"));
        }
        test.holds("no more than was asked for", !store.has_more());
        Ok(())
    }

    /// The console's ring, which must be in order again for the verdict.
    fn console_indices() {
        console::drain();
        let page = call::get_parameter(HvmParam::ConsolePfn).unwrap_or(0) << 12;
        let word = |offset: usize| memory::atomic_32(page + offset as u64);
        let indices = [
            offset_of!(XenconsInterface, in_cons),
            offset_of!(XenconsInterface, in_prod),
            offset_of!(XenconsInterface, out_cons),
            offset_of!(XenconsInterface, out_prod),
        ]
        .map(word);
        for round in 0..2000_u32 {
            let value = round.wrapping_mul(0x9e37_79b9);
            if let Some(index) = indices.get(usize::try_from(value >> 30).unwrap_or(0)) {
                index.store(value, Ordering::SeqCst);
            }
            call::send(console::port());
        }
        // The daemon may still be at what the indices said a moment ago.
        for _ in 0..10 {
            for index in indices {
                index.store(0, Ordering::SeqCst);
            }
            call::send(console::port());
            clock::delay(50);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

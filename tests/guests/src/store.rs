//! A client of xenstore on the domain's own ring, which can also break every rule of it.
//!
//! Requests wait for their answers; events of watches that come meanwhile are counted. `bin/hostile_rings` uses it.

use core::sync::atomic::{AtomicU32, Ordering};

use public_abi::hvm_params::HvmParam;
use public_abi::io::xs_wire::{CONNECTED, RECONNECT, RING_SIZE, XenstoreDomainInterface, XsMessage, XsdSockmsg};
use rt::memory;
use zerocopy::{FromBytes, IntoBytes};

use crate::{call, clock};

/// How long the daemon may take for one step, on a busy machine.
const PATIENCE_MS: u64 = 60_000;
/// Bytes of an answer that are kept.
const KEPT: usize = 64;
/// Bytes of a header.
const HEADER: usize = size_of::<XsdSockmsg>();

/// The daemon did not do its part in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence;

/// What the daemon sent: its header and the beginning of what follows.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The header.
    pub header: XsdSockmsg,
    start: [u8; KEPT],
}

impl Message {
    /// The first bytes of the payload.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        let length = usize::try_from(self.header.len).unwrap_or(KEPT).min(KEPT);
        self.start.get(..length).unwrap_or_default()
    }

    /// The name of the error that was answered; `None` for a success.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let name = core::str::from_utf8(self.start()).unwrap_or("?").trim_end_matches('\0');
        (self.header.kind == XsMessage::Error.number()).then_some(name)
    }
}

/// An index or a flag of the page.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// Requests are taken up to here.
    RequestTaken,
    /// Requests are given up to here.
    RequestGiven,
    /// Answers are taken up to here.
    AnswerTaken,
    /// Answers are given up to here.
    AnswerGiven,
    /// The state of the connection.
    Connection,
    /// Why the daemon does not listen.
    Error,
}

/// The ring.
#[derive(Debug)]
pub struct Store {
    page: u64,
    port: u32,
    last: u32,
    /// Events of watches that have come.
    pub events: u32,
}

impl Store {
    /// Finds the ring; `None` if the domain has none.
    #[must_use]
    pub fn find() -> Option<Store> {
        let frame = call::get_parameter(HvmParam::StorePfn).ok().filter(|frame| *frame != 0)?;
        let port = call::get_parameter(HvmParam::StoreEvtchn).ok()?;
        Some(Store { page: frame << 12, port: u32::try_from(port).ok()?, last: 0, events: 0 })
    }

    /// A word of the page.
    #[must_use]
    pub fn word(&self, word: Word) -> &'static AtomicU32 {
        use core::mem::offset_of;
        let offset = match word {
            Word::RequestTaken => offset_of!(XenstoreDomainInterface, req_cons),
            Word::RequestGiven => offset_of!(XenstoreDomainInterface, req_prod),
            Word::AnswerTaken => offset_of!(XenstoreDomainInterface, rsp_cons),
            Word::AnswerGiven => offset_of!(XenstoreDomainInterface, rsp_prod),
            Word::Connection => offset_of!(XenstoreDomainInterface, connection),
            Word::Error => offset_of!(XenstoreDomainInterface, error),
        };
        memory::atomic_32(self.page + offset as u64)
    }

    fn load(&self, word: Word) -> u32 {
        self.word(word).load(Ordering::SeqCst)
    }

    /// Makes the daemon look.
    pub fn notify(&self) {
        call::send(self.port);
    }

    /// Puts bytes on the ring, whatever they are, waiting for room; notifies after every `step` bytes and at the end.
    ///
    /// # Errors
    /// There is no room.
    pub fn push(&self, bytes: &[u8], step: usize) -> Result<(), Silence> {
        for (count, byte) in bytes.iter().enumerate() {
            let given = self.load(Word::RequestGiven);
            let is_full = || given.wrapping_sub(self.load(Word::RequestTaken)) >= RING_SIZE as u32;
            if is_full() {
                self.notify();
                if !clock::within(PATIENCE_MS, || !is_full()) {
                    return Err(Silence);
                }
            }
            memory::write(self.page + u64::from(given) % RING_SIZE as u64, *byte);
            self.word(Word::RequestGiven).store(given.wrapping_add(1), Ordering::SeqCst);
            if count % step == step - 1 {
                self.notify();
            }
        }
        self.notify();
        Ok(())
    }

    /// Takes the next byte that was sent.
    fn pull(&self) -> Result<u8, Silence> {
        let taken = self.load(Word::AnswerTaken);
        if !clock::within(PATIENCE_MS, || self.load(Word::AnswerGiven) != taken) {
            return Err(Silence);
        }
        let byte = memory::read(self.page + RING_SIZE as u64 + u64::from(taken) % RING_SIZE as u64);
        self.word(Word::AnswerTaken).store(taken.wrapping_add(1), Ordering::SeqCst);
        // A daemon that waits for room looks again when the ring is empty.
        if self.load(Word::AnswerGiven) == taken.wrapping_add(1) {
            self.notify();
        }
        Ok(byte)
    }

    /// Whether anything was sent that has not been taken.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.load(Word::AnswerTaken) != self.load(Word::AnswerGiven)
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// None comes.
    pub fn receive(&mut self) -> Result<Message, Silence> {
        let mut header = [0; HEADER];
        for byte in &mut header {
            *byte = self.pull()?;
        }
        let header = XsdSockmsg::read_from_bytes(&header).map_err(|_| Silence)?;
        let mut start = [0; KEPT];
        for index in 0..usize::try_from(header.len).unwrap_or(0) {
            let byte = self.pull()?;
            if let Some(place) = start.get_mut(index) {
                *place = byte;
            }
        }
        if header.kind == XsMessage::WatchEvent.number() {
            self.events += 1;
        }
        Ok(Message { header, start })
    }

    /// A header for the next request.
    pub fn header(&mut self, kind: u32, tx: u32, length: usize) -> XsdSockmsg {
        self.last = self.last.wrapping_add(1).max(1);
        XsdSockmsg { kind, req_id: self.last, tx_id: tx, len: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    /// Sends a request made of these parts.
    ///
    /// # Errors
    /// There is no room.
    pub fn send(&mut self, kind: XsMessage, tx: u32, parts: &[&[u8]]) -> Result<(), Silence> {
        let header = self.header(kind.number(), tx, parts.iter().map(|part| part.len()).sum());
        self.push(header.as_bytes(), RING_SIZE)?;
        parts.iter().try_for_each(|part| self.push(part, RING_SIZE))
    }

    /// The answer to the last request.
    ///
    /// # Errors
    /// None comes.
    pub fn answer(&mut self) -> Result<Message, Silence> {
        loop {
            let message = self.receive()?;
            if message.header.kind != XsMessage::WatchEvent.number() && message.header.req_id == self.last {
                return Ok(message);
            }
        }
    }

    /// Makes a request.
    ///
    /// # Errors
    /// No answer comes.
    pub fn ask(&mut self, kind: XsMessage, tx: u32, parts: &[&[u8]]) -> Result<Message, Silence> {
        self.send(kind, tx, parts)?;
        self.answer()
    }

    /// Waits until the daemon says why it does not listen any more.
    #[must_use]
    pub fn wait_for_error(&self) -> u32 {
        clock::within(PATIENCE_MS, || self.load(Word::Error) != 0);
        self.load(Word::Error)
    }

    /// Asks for a fresh start, and waits for it.
    ///
    /// # Errors
    /// The daemon does not listen.
    pub fn reconnect(&mut self) -> Result<(), Silence> {
        self.word(Word::Connection).store(RECONNECT, Ordering::SeqCst);
        self.notify();
        if clock::within(PATIENCE_MS, || self.load(Word::Connection) == CONNECTED) { Ok(()) } else { Err(Silence) }
    }
}

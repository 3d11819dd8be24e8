//! What a client is to be sent: a queue that does not grow without end.
//!
//! An event that waits already is not queued again. `crate::engine` fills it; the shell takes bytes from the front as the socket
//! or ring has room.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// Bytes that a message costs beside its own.
const MESSAGE_COST: usize = 160;

/// A message on its way out.
#[derive(Clone, Debug)]
struct Outgoing {
    bytes: Rc<[u8]>,
    is_answer: bool,
}

/// The queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    queue: VecDeque<Outgoing>,
    /// Events that wait, except one that has been sent in part.
    events: HashSet<Rc<[u8]>>,
    /// Bytes of the first message that have been sent.
    sent: usize,
    /// Bytes that wait.
    bytes: usize,
    answers: usize,
    /// All bytes ever taken; for a ring, its index.
    position: u32,
}

impl Output {
    /// One that begins at a ring's index.
    pub(crate) fn at(position: u32) -> Output {
        Output { position, ..Output::default() }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that it costs.
    pub(crate) fn cost(&self) -> usize {
        self.bytes + MESSAGE_COST * self.queue.len()
    }

    /// Answers that wait.
    pub(crate) fn answers(&self) -> usize {
        self.answers
    }

    /// All bytes ever taken.
    pub(crate) fn position(&self) -> u32 {
        self.position
    }

    /// Adds an answer.
    pub(crate) fn answer(&mut self, bytes: Vec<u8>) {
        self.answers += 1;
        self.push(bytes.into(), true);
    }

    /// Adds an event; `false` if the same one waits already.
    pub(crate) fn event(&mut self, bytes: Vec<u8>) -> bool {
        let bytes: Rc<[u8]> = bytes.into();
        let is_new = self.events.insert(Rc::clone(&bytes));
        if is_new {
            self.push(bytes, false);
        }
        is_new
    }

    fn push(&mut self, bytes: Rc<[u8]>, is_answer: bool) {
        self.bytes += bytes.len();
        self.queue.push_back(Outgoing { bytes, is_answer });
    }

    /// The bytes at the front, those of one message at most; empty when nothing waits.
    pub(crate) fn front(&self) -> &[u8] {
        self.queue.front().and_then(|message| message.bytes.get(self.sent..)).unwrap_or(&[])
    }

    /// Takes bytes away that were sent.
    pub(crate) fn take(&mut self, mut count: usize) {
        self.position = self.position.wrapping_add(u32::try_from(count).unwrap_or(0));
        while count > 0 {
            let Some(first) = self.queue.front() else {
                return;
            };
            // Whoever it is for has begun to read it: the same event again is news.
            self.events.remove(&first.bytes);
            let step = count.min(first.bytes.len() - self.sent);
            (self.sent, self.bytes, count) = (self.sent + step, self.bytes - step, count - step);
            if self.sent == first.bytes.len() {
                self.answers -= usize::from(first.is_answer);
                self.sent = 0;
                self.queue.pop_front();
            }
        }
    }

    /// All bytes that wait.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        let all = self.queue.iter().flat_map(|message| message.bytes.iter().copied());
        all.skip(self.sent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_waits_once() {
        let mut output = Output::at(10);
        assert!(output.event(b"event".to_vec()) && !output.event(b"event".to_vec()));
        output.answer(b"answer".to_vec());
        assert_eq!((output.len(), output.answers(), output.front()), (11, 1, &b"event"[..]));
        output.take(2);
        assert_eq!((output.front(), output.waiting()), (&b"ent"[..], b"entanswer".to_vec()));
        assert!(output.event(b"event".to_vec()), "the first is being read");
        output.take(3 + 6 + 1);
        assert_eq!((output.waiting(), output.answers(), output.position()), (b"vent".to_vec(), 0, 22));
        assert!(output.event(b"event".to_vec()));
        output.take(100);
        assert_eq!((output.len(), output.front()), (0, &b""[..]));
    }
}

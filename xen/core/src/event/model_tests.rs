//! Random sequences of requests against a model that knows only who is connected to whom and which events are raised.
//!
//! The test plays the guests: it masks, unmasks and takes events by the rules of each ABI, looking only where the ABI tells
//! it to look. So an event that was raised without its vCPU being told is found missing.

use super::fixture::{MAX_PORT, add_page, domain, with_host};
use super::model_guest::{bitmap, take_fifo, take_two_level};
use super::table::Closer;
use super::upcall::with_info;
use super::{channel, fifo_control, send_virq};
use crate::host::Host;
use crate::outcome::Stop;
use crate::p2m::Access;
use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;
use machine::frame::Pin;
use machine::{DomId, Gfn, memory};
use proptest::prelude::*;
use public_abi::Errno;
use public_abi::event_channel::*;
use public_abi::virq::Virq;
use public_abi::x86::SharedInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

const VCPUS: u32 = 2;
const DOMAINS: u16 = 3;
/// Guest frames of the FIFO pages.
pub(super) const CONTROL_GFN: u64 = 16;
pub(super) const ARRAY_GFN: u64 = 20;

#[derive(Clone, Debug)]
enum Op {
    AllocUnbound { domain: u16, remote: u16 },
    Connect { domain: u16, remote: u16, choice: usize },
    BindIpi { domain: u16, vcpu: u32 },
    BindVirq { domain: u16, vcpu: u32 },
    Move { domain: u16, choice: usize, vcpu: u32 },
    Close { domain: u16, choice: usize },
    Send { domain: u16, choice: usize },
    Virq { domain: u16, vcpu: u32 },
    Mask { domain: u16, choice: usize },
    Unmask { domain: u16, choice: usize },
    Priority { domain: u16, choice: usize, priority: u32 },
    Take { domain: u16, most: usize },
    Fifo { domain: u16 },
    Expand { domain: u16 },
    Reset { domain: u16 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let d = 0..DOMAINS;
    let v = 0..VCPUS;
    let c = 0usize..64;
    let op = prop_oneof![
        3 => (d.clone(), d.clone()).prop_map(|(domain, remote)| Op::AllocUnbound { domain, remote }),
        4 => (d.clone(), d.clone(), c.clone()).prop_map(|(domain, remote, choice)| Op::Connect { domain, remote, choice }),
        2 => (d.clone(), v.clone()).prop_map(|(domain, vcpu)| Op::BindIpi { domain, vcpu }),
        2 => (d.clone(), v.clone()).prop_map(|(domain, vcpu)| Op::BindVirq { domain, vcpu }),
        2 => (d.clone(), c.clone(), v.clone()).prop_map(|(domain, choice, vcpu)| Op::Move { domain, choice, vcpu }),
        2 => (d.clone(), c.clone()).prop_map(|(domain, choice)| Op::Close { domain, choice }),
        9 => (d.clone(), c.clone()).prop_map(|(domain, choice)| Op::Send { domain, choice }),
        3 => (d.clone(), v).prop_map(|(domain, vcpu)| Op::Virq { domain, vcpu }),
        2 => (d.clone(), c.clone()).prop_map(|(domain, choice)| Op::Mask { domain, choice }),
        4 => (d.clone(), c.clone()).prop_map(|(domain, choice)| Op::Unmask { domain, choice }),
        2 => (d.clone(), c, 0u32..16).prop_map(|(domain, choice, priority)| Op::Priority { domain, choice, priority }),
        5 => (d.clone(), 1usize..6).prop_map(|(domain, most)| Op::Take { domain, most }),
        1 => d.clone().prop_map(|domain| Op::Fifo { domain }),
        1 => d.clone().prop_map(|domain| Op::Expand { domain }),
        1 => d.prop_map(|domain| Op::Reset { domain }),
    ];
    prop::collection::vec(op, 1..120)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Bound {
    Unbound(u16),
    Connected(u16, u32),
    Ipi,
    Virq(u32),
}

#[derive(Clone, Copy, Debug)]
struct End {
    bound: Bound,
    vcpu: u32,
}

/// What a domain should be like.
#[derive(Default)]
struct Expected {
    ports: BTreeMap<u32, End>,
    /// Raised and not yet taken, with the vCPU that was told last.
    pending: BTreeMap<u32, u32>,
    masked: BTreeSet<u32>,
    is_fifo: bool,
    has_words: bool,
    /// The guest's own heads of its queues, by vCPU and priority.
    heads: BTreeMap<(u32, u32), u32>,
}

impl Expected {
    fn pick(&self, choice: usize) -> u32 {
        // Mostly bound ports, sometimes ones that are not or do not exist.
        self.ports.keys().copied().chain([0, 9, 500]).nth(choice % (self.ports.len() + 3)).unwrap()
    }

    fn raise(&mut self, port: u32, vcpu: u32) {
        // Where it is pending already, nobody is told again.
        self.pending.entry(port).or_insert(vcpu);
    }

    fn takeable(&self) -> BTreeSet<u32> {
        let has_words = !self.is_fifo || self.has_words;
        self.pending.keys().copied().filter(|port| has_words && !self.masked.contains(port)).collect()
    }
}

struct World<'a> {
    host: &'a Host,
    expected: Vec<Expected>,
}

impl World<'_> {
    fn new_port(&mut self, id: u16, answer: Result<u32, Errno>, bound: Bound, vcpu: u32) -> Option<u32> {
        let expected = &mut self.expected[usize::from(id)];
        match answer {
            Ok(port) => {
                assert!((1..=MAX_PORT).contains(&port));
                assert!(expected.ports.insert(port, End { bound, vcpu }).is_none(), "port {port} is in use");
                Some(port)
            }
            Err(errno) => {
                assert_eq!(errno, Errno::ENOSPC);
                // All in use, or free but not yet taken off a queue.
                assert!(expected.is_fifo || expected.ports.len() == usize::try_from(MAX_PORT).unwrap());
                None
            }
        }
    }

    fn forget(&mut self, id: u16, port: u32) {
        let end = self.expected[usize::from(id)].ports.remove(&port).unwrap();
        self.expected[usize::from(id)].pending.remove(&port);
        if let Bound::Connected(peer, far) = end.bound
            && let Some(end) = self.expected[usize::from(peer)].ports.get_mut(&far)
        {
            end.bound = Bound::Unbound(id);
        }
    }

    fn apply(&mut self, op: &Op) {
        let host = self.host;
        match *op {
            Op::AllocUnbound { domain: id, remote } => {
                let answer = channel::alloc_unbound(&domain(host, id), DomId(remote));
                self.new_port(id, answer, Bound::Unbound(remote), 0);
            }
            Op::Connect { domain: id, remote, choice } => self.connect(id, remote, choice),
            Op::BindIpi { domain: id, vcpu } => {
                let answer = domain(host, id).events.table().bind(super::State::Ipi, u16::try_from(vcpu).unwrap());
                self.new_port(id, answer, Bound::Ipi, vcpu);
            }
            Op::BindVirq { domain: id, vcpu } => {
                let answer = domain(host, id).events.table().bind_virq(Virq::Timer, u16::try_from(vcpu).unwrap());
                let is_bound = self.expected[usize::from(id)].ports.values().any(|end| end.bound == Bound::Virq(vcpu));
                assert_eq!(answer == Err(Errno::EEXIST), is_bound);
                if !is_bound {
                    self.new_port(id, answer, Bound::Virq(vcpu), vcpu);
                }
            }
            Op::Move { domain: id, choice, vcpu } => {
                let port = self.expected[usize::from(id)].pick(choice);
                let answer = domain(host, id).events.table().bind_vcpu(port, u16::try_from(vcpu).unwrap());
                let end = self.expected[usize::from(id)].ports.get_mut(&port);
                match end {
                    Some(end) if matches!(end.bound, Bound::Unbound(_) | Bound::Connected(..)) => {
                        end.vcpu = vcpu;
                        assert_eq!(answer, Ok(()));
                    }
                    _ => assert_eq!(answer, Err(Errno::EINVAL)),
                }
            }
            Op::Close { domain: id, choice } => {
                let port = self.expected[usize::from(id)].pick(choice);
                let answer = channel::close(host, &domain(host, id), port, Closer::Guest);
                assert_eq!(answer.is_ok(), self.expected[usize::from(id)].ports.contains_key(&port));
                if answer.is_ok() {
                    self.forget(id, port);
                }
            }
            Op::Send { domain: id, choice } => self.send(id, choice),
            Op::Virq { domain: id, vcpu } => {
                let target = domain(host, id);
                send_virq(host, &target, target.vcpu(vcpu).unwrap(), Virq::Timer);
                let expected = &mut self.expected[usize::from(id)];
                let port = expected.ports.iter().find(|(_, end)| end.bound == Bound::Virq(vcpu)).map(|(port, _)| *port);
                if let Some(port) = port {
                    expected.raise(port, vcpu);
                }
            }
            Op::Mask { domain: id, choice } => {
                let port = self.expected[usize::from(id)].pick(choice);
                if self.expected[usize::from(id)].ports.contains_key(&port) {
                    self.mask(id, port);
                }
            }
            Op::Unmask { domain: id, choice } => self.unmask(id, choice),
            Op::Priority { domain: id, choice, priority } => {
                let port = self.expected[usize::from(id)].pick(choice);
                let answer = domain(host, id).events.table().set_priority(port, priority);
                let expected = &self.expected[usize::from(id)];
                let wanted = match (expected.is_fifo, expected.ports.contains_key(&port)) {
                    _ if port == 500 => Err(Errno::EINVAL),
                    (false, _) => Err(Errno::ENOSYS),
                    (true, false) => Err(Errno::EACCES),
                    (true, true) => Ok(()),
                };
                assert_eq!(answer, wanted);
            }
            Op::Take { domain: id, most } => {
                self.take(id, most);
            }
            Op::Fifo { domain: id } => self.switch_to_fifo(id),
            Op::Expand { domain: id } => {
                let target = domain(host, id);
                let expected = &mut self.expected[usize::from(id)];
                if expected.is_fifo && !expected.has_words {
                    assert_eq!(fifo_control::expand_array(host, &target, ARRAY_GFN), Ok(()));
                    expected.has_words = true;
                } else if !expected.is_fifo {
                    assert_eq!(fifo_control::expand_array(host, &target, ARRAY_GFN), Err(Errno::EOPNOTSUPP));
                }
            }
            Op::Reset { domain: id } => self.reset(id),
        }
    }

    fn connect(&mut self, id: u16, remote: u16, choice: usize) {
        let host = self.host;
        // Mostly a port that waits for this domain, sometimes any.
        let waiting = |(number, expected): (usize, &Expected)| {
            let remote = u16::try_from(number).unwrap();
            let ports = expected.ports.iter().filter(|(_, end)| end.bound == Bound::Unbound(id));
            ports.map(|(port, _)| (remote, *port)).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.expected.iter().enumerate().flat_map(waiting).collect();
        let any = (remote, self.expected[usize::from(remote)].pick(choice));
        let (remote, far) = if choice.is_multiple_of(4) || all.is_empty() { any } else { all[choice % all.len()] };
        let is_good =
            self.expected[usize::from(remote)].ports.get(&far).map(|end| end.bound) == Some(Bound::Unbound(id));
        match channel::bind_interdomain(host, &domain(host, id), &domain(host, remote), far) {
            Err(Errno::EINVAL) => assert!(!is_good),
            answer => {
                if let Some(port) = self.new_port(id, answer, Bound::Connected(remote, far), 0) {
                    assert!(is_good);
                    self.expected[usize::from(remote)].ports.get_mut(&far).unwrap().bound = Bound::Connected(id, port);
                    self.expected[usize::from(id)].raise(port, 0);
                }
            }
        }
    }

    fn send(&mut self, id: u16, choice: usize) {
        let port = self.expected[usize::from(id)].pick(choice);
        let answer = channel::send(self.host, &domain(self.host, id), port);
        let end = self.expected[usize::from(id)].ports.get(&port).copied();
        match end.map(|end| end.bound) {
            None | Some(Bound::Virq(_)) => assert_eq!(answer, Err(Errno::EINVAL)),
            Some(Bound::Unbound(_)) => assert_eq!(answer, Ok(())),
            Some(Bound::Ipi) => {
                assert_eq!(answer, Ok(()));
                self.expected[usize::from(id)].raise(port, end.unwrap().vcpu);
            }
            Some(Bound::Connected(peer, far)) => {
                assert_eq!(answer, Ok(()));
                let far_end = self.expected[usize::from(peer)].ports[&far];
                assert_eq!(far_end.bound, Bound::Connected(id, port));
                self.expected[usize::from(peer)].raise(far, far_end.vcpu);
            }
        }
    }

    fn word(&self, id: u16, port: u32) -> (Pin, usize) {
        let page = domain(self.host, id).p2m.pin(Gfn::new(ARRAY_GFN), Access::Write).unwrap();
        (page, usize::try_from(port).unwrap() * 4)
    }

    fn mask(&mut self, id: u16, port: u32) {
        let expected = &mut self.expected[usize::from(id)];
        if expected.is_fifo && !expected.has_words {
            return;
        }
        expected.masked.insert(port);
        if self.expected[usize::from(id)].is_fifo {
            let (page, offset) = self.word(id, port);
            memory::atomic::<u32>(&page, offset).unwrap().fetch_or(FIFO_MASKED, SeqCst);
        } else {
            let target = domain(self.host, id);
            bitmap(&target, offset_of!(SharedInfo, evtchn_mask), port, |word, bit| word.fetch_or(bit, SeqCst));
        }
    }

    fn unmask(&mut self, id: u16, choice: usize) {
        let port = self.expected[usize::from(id)].pick(choice);
        let answer = channel::unmask(self.host, &domain(self.host, id), port);
        let expected = &mut self.expected[usize::from(id)];
        assert_eq!(answer.is_ok(), port != 500);
        if let Some(end) = expected.ports.get(&port) {
            let was_masked = expected.masked.remove(&port);
            // An event that waited behind the mask is raised again, for the vCPU of now.
            if was_masked && let Some(told) = expected.pending.get_mut(&port) {
                *told = end.vcpu;
            }
        }
    }

    fn switch_to_fifo(&mut self, id: u16) {
        let target = domain(self.host, id);
        let expected = &mut self.expected[usize::from(id)];
        for vcpu in 0..VCPUS {
            let offset = 72 * vcpu;
            let answer = fifo_control::init_control(&target, vcpu, CONTROL_GFN, offset);
            assert_eq!(answer, if expected.is_fifo { Err(Errno::EINVAL) } else { Ok(()) });
        }
        if !expected.is_fifo {
            expected.is_fifo = true;
            expected.masked.clear();
            expected.heads.clear();
        }
    }

    fn reset(&mut self, id: u16) {
        let target = domain(self.host, id);
        assert_eq!(channel::reset(self.host, &target), Ok(()));
        let ports: Vec<u32> = self.expected[usize::from(id)].ports.keys().copied().collect();
        for port in ports {
            self.forget(id, port);
        }
        let expected = &mut self.expected[usize::from(id)];
        if expected.is_fifo {
            // The guest begins anew with zeroed pages, and its old masks in shared_info.
            for gfn in [CONTROL_GFN, ARRAY_GFN] {
                let page = target.p2m.pin(Gfn::new(gfn), Access::Write).unwrap();
                assert!(memory::fill(&page, 0, 4096, 0));
            }
            expected.masked = (0..MAX_PORT + 1)
                .filter(|port| {
                    bitmap(&target, offset_of!(SharedInfo, evtchn_mask), *port, |word, bit| word.load(SeqCst) & bit)
                        != 0
                })
                .collect();
        }
        (expected.is_fifo, expected.has_words) = (false, false);
    }

    /// Plays the guest: takes up to `most` events where its pages tell it to look. Each must be expected.
    fn take(&mut self, id: u16, most: usize) -> usize {
        let target = domain(self.host, id);
        let mut taken = Vec::new();
        for vcpu in 0..VCPUS {
            let place = target.vcpu(vcpu).unwrap();
            let flag = |page: &Pin, offset: usize| memory::atomic::<u8>(page, offset).unwrap().swap(0, SeqCst) != 0;
            let is_told = with_info(&target.events, place, flag).unwrap();
            if !is_told {
                continue;
            }
            let left = most - taken.len().min(most);
            let is_done = if self.expected[usize::from(id)].is_fifo {
                take_fifo(&target, vcpu, left, &mut self.expected[usize::from(id)].heads, &mut taken)
            } else {
                take_two_level(&target, vcpu, left, &self.expected[usize::from(id)].pending, &mut taken)
            };
            if !is_done {
                // It will look again, as after another upcall.
                let set = |page: &Pin, offset: usize| memory::atomic::<u8>(page, offset).unwrap().store(1, SeqCst);
                with_info(&target.events, place, set).unwrap();
            }
        }
        let expected = &mut self.expected[usize::from(id)];
        for port in &taken {
            assert!(expected.takeable().contains(port), "port {port} of d{id} was taken but not raised");
            expected.pending.remove(port);
        }
        taken.len()
    }

    /// Takes all that can be taken, and nothing may be left.
    fn take_all(&mut self) {
        for id in 0..DOMAINS {
            while self.take(id, usize::MAX) > 0 {}
            let left = self.expected[usize::from(id)].takeable();
            assert!(left.is_empty(), "events {left:?} of d{id} are lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_event_is_lost_or_invented(ops in ops()) {
        with_host(DOMAINS, VCPUS, |_, host| {
            for id in 0..DOMAINS {
                for gfn in [CONTROL_GFN, ARRAY_GFN] {
                    add_page(&domain(host, id), gfn);
                }
            }
            let mut world = World { host, expected: (0..DOMAINS).map(|_| Expected::default()).collect() };
            for (step, op) in ops.iter().enumerate() {
                world.apply(op);
                if step % 16 == 15 {
                    world.take_all();
                }
            }
            world.take_all();
            for id in 0..DOMAINS {
                assert_eq!(channel::relinquish(host, &domain(host, id)), Ok::<(), Stop>(()));
            }
        });
    }
}

//! The control domain's kernel, as far as a toolstack needs one: memory for hypercalls, guest frames for other domains' pages,
//! event channels.
//!
//! It does what Linux does, with the same hypercalls: shared_info is mapped over a page of RAM, events come by the domain's
//! callback vector in the two-level ABI, foreign pages are mapped at guest frames above RAM. A process that wants something of it is the test's own thread:
//! [`Control::perform`] wakes the vCPU, as the interrupt does that made a real process run, and takes turns until the
//! instruction is done; then the vCPU waits in SCHEDOP_block again.

use crate::kernel::{self, Instruction};
use crate::processor::{Operation, Outcome, Processor, enter_long_mode};
use crate::world::World;
use core::mem::offset_of;
use machine::codec::registers::rflags;
use machine::exit::Exit;
use machine::fake::Guest;
use machine::{DomId, PAGE_SIZE_U64};
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{EventChannelOp, Port};
use public_abi::hvm_op::{HvmOp, HvmParamRequest};
use public_abi::hvm_params::HvmParam;
use public_abi::memory::{AddToPhysmap, MapSpace, MemoryOp};
use public_abi::sched::SchedOp;
use public_abi::x86::{SharedInfo, VcpuInfo};
use public_abi::{Errno, GuestPtr, Request};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xen_core::vcpu::Wait;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The guest frame of shared_info: RAM, whose place it takes.
const SHARED_INFO: u64 = 0x300;
/// Memory for hypercall arguments: guest physical addresses.
const BUFFERS: core::ops::Range<u64> = 0x40_0000..0x80_0000;
/// Guest frames for pages of others: above all RAM.
const FOREIGN: core::ops::Range<u64> = 0x10_0000..0x11_0000;
/// The vector of the event-channel callback, as Linux chooses it.
const CALLBACK_VECTOR: u8 = 0xf3;

/// Entries without the end of an instruction after which the kernel is taken to be broken.
const MOST_ENTRIES: u32 = 20_000;
/// Rounds of turns after which an instruction of the control domain's is taken to have no end.
const MOST_ROUNDS: u64 = 2000;

/// What the vCPU's program and the test's thread share.
#[derive(Default)]
struct Mail {
    operation: Option<Operation>,
    outcome: Option<Outcome>,
    /// Ports whose events were taken and not yet waited for.
    events: VecDeque<u32>,
    /// Whether shared_info is there and events are to be taken.
    has_events: bool,
}

type Mailbox = Arc<Mutex<Mail>>;

fn open(mailbox: &Mailbox) -> MutexGuard<'_, Mail> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range that is given out in pieces.
struct Room {
    /// Free pieces: start and end.
    free: BTreeMap<u64, u64>,
}

impl Room {
    fn new(range: core::ops::Range<u64>) -> Self {
        Self { free: BTreeMap::from([(range.start, range.end)]) }
    }

    /// The lowest piece that is long enough, so that places are used again.
    fn take(&mut self, length: u64) -> Option<u64> {
        let (start, end) =
            self.free.iter().map(|(start, end)| (*start, *end)).find(|(start, end)| end - start >= length)?;
        self.free.remove(&start);
        if start + length < end {
            self.free.insert(start + length, end);
        }
        Some(start)
    }

    fn give(&mut self, start: u64, length: u64) {
        let (mut start, mut end) = (start, start + length);
        if let Some((before, _)) = self.free.range(..start).next_back().filter(|(_, stop)| **stop == start) {
            start = *before;
        }
        if let Some(after) = self.free.remove(&end) {
            end = after;
        }
        self.free.insert(start, end);
    }
}

/// The control domain.
pub struct Control {
    world: Rc<World>,
    mailbox: Mailbox,
    buffers: RefCell<Room>,
    frames: RefCell<Room>,
    /// A page for the kernel's own arguments.
    scratch: u64,
}

impl Control {
    /// Boots the kernel.
    pub fn boot(world: &Rc<World>) -> Rc<Self> {
        let mailbox = Mailbox::default();
        world.machine.program_vcpu(DomId::CONTROL, 0, program(mailbox.clone()));
        let (mut buffers, frames) = (Room::new(BUFFERS), Room::new(FOREIGN));
        let scratch = buffers.take(PAGE_SIZE_U64).expect("there is room");
        let control = Self { world: world.clone(), mailbox, buffers: buffers.into(), frames: frames.into(), scratch };
        control.set_up();
        Rc::new(control)
    }

    fn set_up(&self) {
        self.stretch(|guest| {
            enter_long_mode(guest);
            guest.vmcb.guest.rflags |= rflags::IF;
            Ok(())
        });
        let shared_info = AddToPhysmap {
            domid: DOMID_SELF,
            space: MapSpace::SharedInfo.number(),
            gpfn: SHARED_INFO,
            ..AddToPhysmap::default()
        };
        let cmd = u64::from(MemoryOp::AddToPhysmap.number());
        self.exchange(&mut { shared_info }, |arg| Request::MemoryOp { cmd, arg }).expect("shared_info is mapped");
        // All events are masked until somebody wants them, as in Linux.
        let place = SHARED_INFO * PAGE_SIZE_U64;
        self.write(place + offset_of!(SharedInfo, evtchn_mask) as u64, &[0xff; 512]);
        let callback = HvmParamRequest {
            domid: DOMID_SELF,
            index: HvmParam::CallbackIrq.number(),
            value: 2 << 56 | u64::from(CALLBACK_VECTOR),
            ..HvmParamRequest::default()
        };
        let cmd = HvmOp::SetParam.number().into();
        self.exchange(&mut { callback }, |arg| Request::HvmOp { cmd, arg }).expect("the callback is set");
        open(&self.mailbox).has_events = true;
    }

    /// The host.
    pub fn world(&self) -> &Rc<World> {
        &self.world
    }

    /// Lets the control domain's vCPU execute something.
    pub fn perform(&self, operation: Operation) -> Outcome {
        {
            let mut mail = open(&self.mailbox);
            assert!(mail.operation.is_none() && mail.outcome.is_none(), "two processes at a time");
            mail.operation = Some(operation);
        }
        let domain = self.world.domain(0);
        let vcpu = domain.vcpu(0).expect("has a vCPU");
        let mut outcome = None;
        let mut rounds = 0;
        let is_done = self.world.run_until(|| {
            // Beside threads a round is but a look: how many there are depends on what else this host does.
            rounds += u64::from(!self.world.has_threads());
            assert!(rounds < MOST_ROUNDS, "the control domain's instruction has no end: {:?}", vcpu.wait());
            outcome = open(&self.mailbox).outcome.take();
            if outcome.is_none() {
                // Again and again, because the vCPU may have looked into its mailbox just before, and be about to block.
                xen_core::sched::wake(self.world.host, &domain, vcpu, Wait::BLOCKED);
            }
            outcome.is_some()
        });
        assert!(is_done, "the control domain waits for ever: {:?}, {:?}", vcpu.wait(), vcpu.sched);
        outcome.unwrap_or_else(|| unreachable!("it is done"))
    }

    fn stretch(&self, work: impl FnMut(&mut Guest<'_>) -> Result<(), Exit> + Send + 'static) {
        assert_eq!(self.perform(Operation::Stretch(Box::new(work))), Outcome::Done);
    }

    /// Makes a hypercall; what is in RAX afterwards.
    pub fn hypercall(&self, number: u64, arguments: [u64; 6]) -> i64 {
        match self.perform(Operation::Hypercall(number, arguments)) {
            Outcome::Word(value) => value.cast_signed(),
            other => panic!("hypercall {number}: {other:?}"),
        }
    }

    /// Makes a hypercall whose pointers are in order already.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn request(&self, request: &Request) -> Result<u64, Errno> {
        let (number, arguments) = request.encode();
        crate::guest::answer(self.hypercall(number, arguments))
    }

    /// Makes a hypercall of the kernel's own, with a structure.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn exchange<T: FromBytes + IntoBytes + Immutable>(
        &self,
        value: &mut T,
        request: impl FnOnce(GuestPtr<()>) -> Request,
    ) -> Result<u64, Errno> {
        self.write(self.scratch, value.as_bytes());
        let result = self.request(&request(GuestPtr::from_address(self.scratch)));
        *value =
            T::read_from_bytes(&self.read(self.scratch, size_of::<T>())).unwrap_or_else(|_| unreachable!("its size"));
        result
    }

    /// Reads memory.
    pub fn read(&self, gpa: u64, length: usize) -> Vec<u8> {
        match self.perform(Operation::Read(gpa, length)) {
            Outcome::Bytes(bytes) => bytes,
            other => panic!("reading {gpa:#x}: {other:?}"),
        }
    }

    /// Writes memory.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        assert_eq!(self.perform(Operation::Write(gpa, bytes.to_vec())), Outcome::Done);
    }

    /// Takes memory for hypercall arguments, zeroed, in whole pages; `None` if there is none.
    pub fn take_buffer(&self, bytes: u64) -> Option<u64> {
        let length = bytes.max(1).next_multiple_of(PAGE_SIZE_U64);
        let place = self.buffers.borrow_mut().take(length)?;
        self.write(place, &vec![0; length as usize]);
        Some(place)
    }

    /// Gives it back.
    pub fn give_buffer(&self, place: u64, bytes: u64) {
        self.buffers.borrow_mut().give(place, bytes.max(1).next_multiple_of(PAGE_SIZE_U64));
    }

    /// Takes guest frames for pages of others; `None` if there are no more.
    pub fn take_frames(&self, count: u64) -> Option<u64> {
        self.frames.borrow_mut().take(count)
    }

    /// Gives them back.
    pub fn give_frames(&self, gfn: u64, count: u64) {
        self.frames.borrow_mut().give(gfn, count);
    }

    /// Lets a port's events come.
    pub fn unmask(&self, port: u32) {
        let cmd = EventChannelOp::Unmask.number();
        self.exchange(&mut Port { port }, |arg| Request::EventChannelOp { cmd, arg }).expect("the port exists");
    }

    /// Keeps a port's events away, and forgets those that came.
    pub fn mask(&self, port: u32) {
        let word = SHARED_INFO * PAGE_SIZE_U64 + offset_of!(SharedInfo, evtchn_mask) as u64 + u64::from(port / 64) * 8;
        let bit = 1 << (port % 64);
        self.stretch(move |guest| guest.update_u64(word, |before| before | bit).map(drop));
        open(&self.mailbox).events.retain(|event| *event != port);
    }

    /// The next event that has come, if one has.
    pub fn take_event(&self) -> Option<u32> {
        open(&self.mailbox).events.pop_front()
    }

    /// Waits for an event; `None` if none will ever come.
    pub fn wait_event(&self) -> Option<u32> {
        let mut event = None;
        let came = self.world.run_until(|| {
            event = self.take_event();
            event.is_some()
        });
        if came { event } else { None }
    }
}

/// What the vCPU does at each entry.
fn program(mailbox: Mailbox) -> impl FnMut(&mut Guest<'_>) -> Exit + Send + 'static {
    let mut processor = Processor::new();
    // Events that were announced by an interrupt and not yet looked for.
    let mut upcall = false;
    // A call that is given an address in the kernel as a place for its answer changes the kernel. Real processors would go astray then;
    // this one cannot go on, and gets its kernel back.
    let mut kernel = Vec::new();
    let mut entries = 0;
    move |guest| {
        let mut mail = open(&mailbox);
        entries += 1;
        if entries > MOST_ENTRIES {
            entries = 0;
            if let Err(exit) = guest.write(kernel::BASE, &kernel) {
                return exit;
            }
        }
        if let Some(outcome) = processor.enter(guest) {
            mail.outcome = Some(outcome);
        }
        upcall |= processor.interrupts.drain(..).any(|vector| vector == CALLBACK_VECTOR);
        if upcall && mail.has_events {
            if let Err(exit) = take_events(guest, &mut mail.events) {
                return exit;
            }
            upcall = false;
        }
        if processor.is_idle()
            && let Some(operation) = mail.operation.take()
        {
            processor.begin(operation);
            entries = 0;
            if kernel.is_empty() {
                kernel.resize((kernel::SCRATCH - kernel::BASE) as usize, 0);
                if let Err(exit) = guest.read(kernel::BASE, &mut kernel) {
                    return exit;
                }
            }
        }
        if !processor.is_idle() {
            match processor.go_on(guest) {
                Ok(outcome) => mail.outcome = Some(outcome),
                Err(exit) => return exit,
            }
        }
        // Nothing to do (any more).
        guest.vmcb.guest.rip = Instruction::Vmmcall.address();
        guest.hypercall(SCHED_OP, &[u64::from(SchedOp::Block.number()), 0])
    }
}

/// Number of sched_op (public/xen.h).
const SCHED_OP: u64 = 29;

/// Handles an upcall of vCPU 0 as the two-level ABI wants it: the flag first, then the selector, then the words.
fn take_events(guest: &mut Guest<'_>, events: &mut VecDeque<u32>) -> Result<(), Exit> {
    let page = SHARED_INFO * PAGE_SIZE_U64;
    let info = page + offset_of!(SharedInfo, vcpu_info) as u64;
    let pending_flag = info + offset_of!(VcpuInfo, evtchn_upcall_pending) as u64;
    let selector = info + offset_of!(VcpuInfo, evtchn_pending_sel) as u64;
    // The flag is the first byte of its word; the mask beside it stays.
    guest.update_u64(pending_flag, |word| word & !0xff)?;
    let words = guest.update_u64(selector, |_| 0)?;
    for word in (0..64).filter(|word| words >> word & 1 != 0) {
        let mask = guest.read_u64(page + offset_of!(SharedInfo, evtchn_mask) as u64 + word * 8)?;
        let place = page + offset_of!(SharedInfo, evtchn_pending) as u64 + word * 8;
        let pending = guest.update_u64(place, |bits| bits & mask)? & !mask;
        events.extend((0..64).filter(|bit| pending >> bit & 1 != 0).map(|bit| word as u32 * 64 + bit));
    }
    Ok(())
}

const _: () = assert!(kernel::END < BUFFERS.start && SHARED_INFO * PAGE_SIZE_U64 >= kernel::END);

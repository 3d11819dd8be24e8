//! Random hypercalls, and other things that a hostile guest does, from a seed.
//!
//! What a call points at is made of numbers that mean something to the hypervisor: domain ids, frames that exist and that do
//! not, addresses of more such numbers, sizes at the limits. Control hypercalls mostly carry the right interface version, so
//! that what is behind is reached. The generator knows no more of any call: whoever adds one need not come here.

use crate::kernel;
use crate::processor::{Operation, Outcome, Processor, enter_long_mode};
use crate::tally::Tally;
use crate::templates;
use machine::codec::registers::rflags;
use machine::codec::vmcb::exit;
use machine::exit::Exit;
use machine::fake::Guest;
use public_abi::hypercall::TABLE;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers from a seed: xorshift64* (Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers from this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// One time in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// Where a caller keeps what its calls point at, and how much there is.
pub const ARENA: u64 = kernel::SCRATCH;
/// Bytes of the arena.
pub const ARENA_BYTES: u64 = 0x1000;

/// What calls are made of.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The caller's domain.
    pub domain: u16,
    /// Another domain that may be there; so may be the two next ones.
    pub neighbour: u16,
    /// Frames of its RAM.
    pub ram_frames: u64,
    /// Whether it may ask for everything; then calls that end the machine are left out.
    pub is_control: bool,
}

impl Subject {
    /// A number as structures hold it.
    fn value(&self, random: &mut Random) -> u64 {
        const DOMAINS: [u64; 6] = [0, 1, 0x7ff0, 0x7ff1, 0x7ff4, 0x7fff];
        match random.below(16) {
            0..=3 => random.below(16),
            4 => random.below(256),
            5 => random.below(5000),
            6 if random.once_in(2) => u64::from(self.neighbour) + random.below(3),
            6 => random.pick(&DOMAINS),
            7 => u64::from(self.domain),
            8 => ARENA + random.below(ARENA_BYTES),
            9 => ARENA + random.below(32) * 64,
            10 => random.below(self.ram_frames + 8),
            // Frames above RAM: special pages, those that others chose, the last ones that tables translate.
            11 => random.pick(&[0xf_c000, 0xf_eff8, 0xf_eeff, 0x10_0000, 0x10_0001, (1 << 36) - 1, 1 << 36, 1 << 40]),
            12 => u64::MAX >> random.below(64),
            13 => 1 << random.below(64),
            14 => random.below(16) << 32 | random.below(16),
            _ => random.number(),
        }
    }

    /// What the arena holds at a call.
    fn arena(&self, random: &mut Random, call: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        while bytes.len() < 512 {
            let value = self.value(random);
            match random.below(4) {
                0 => bytes.extend((value as u16).to_le_bytes()),
                1 => bytes.extend((value as u32).to_le_bytes()),
                _ => {
                    bytes.resize(bytes.len().next_multiple_of(8), 0);
                    bytes.extend(value.to_le_bytes());
                }
            }
        }
        bytes.truncate(512);
        // A version that is right, and a domain that may be there.
        let version: u32 = match call {
            DOMCTL | SYSCTL => 0x15,
            PLATFORM_OP => 0x0300_0001,
            _ => return bytes,
        };
        if !random.once_in(16) {
            bytes[..4].copy_from_slice(&(random.below(92) as u32).to_le_bytes());
            bytes[4..8].copy_from_slice(&version.to_le_bytes());
        }
        if call == DOMCTL && !random.once_in(4) {
            let domain = if random.once_in(16) { 0 } else { self.neighbour + random.below(3) as u16 };
            bytes[8..10].copy_from_slice(&domain.to_le_bytes());
        }
        bytes
    }

    /// A hypercall: its number, its arguments, what the arena holds.
    pub fn hypercall(&self, random: &mut Random) -> (u64, [u64; 6], Vec<u8>) {
        let number = match random.below(24) {
            0 => random.below(64),
            1..=3 => random.pick(TABLE).number,
            _ if self.is_control => random.pick(&OF_THE_CONTROL_DOMAIN),
            _ => random.pick(&OF_GUESTS),
        };
        let arena = self.arena(random, number);
        let most = COMMANDS.iter().find(|(call, _)| *call == number).map_or(48, |(_, most)| *most);
        let command = if random.once_in(24) { random.number() } else { random.below(most) };
        let pointer = match random.below(24) {
            0 => 0,
            1 => self.value(random),
            2 => ARENA + ARENA_BYTES - random.below(64),
            3 => ARENA + random.below(64),
            _ => ARENA,
        };
        let count = if random.once_in(32) { self.value(random) & 0xffff } else { random.below(8) };
        let mut arguments = [command, pointer, count, pointer, self.value(random), self.value(random)];
        match number {
            // The structure comes first.
            PLATFORM_OP | MULTICALL | SYSCTL | DOMCTL => {
                arguments[0] = pointer;
                arguments[1] = random.below(8);
            }
            // Command, count, buffer; and command, vCPU, structure.
            CONSOLE_IO | VCPU_OP => {
                arguments[1] = random.below(4);
                arguments[2] = pointer;
            }
            _ => {}
        }
        if number == MEMORY_OP && !random.once_in(8) {
            // Mostly without a cursor in the upper bits.
            arguments[0] &= 63;
        }
        let known = if random.once_in(4) { None } else { templates::argument(self, random, number, arguments[0]) };
        let Some(known) = known else { return (number, arguments, arena) };
        let mut arena = arena;
        arena[..known.len()].copy_from_slice(&known);
        if random.once_in(3) {
            // One field is something else.
            let at = random.below(known.len() as u64 / 2) as usize * 2;
            let value = self.value(random).to_le_bytes();
            let length = (known.len() - at).min(random.pick(&[2, 4, 8]));
            arena[at..at + length].copy_from_slice(&value[..length]);
        }
        arena.resize((templates::LISTS - ARENA) as usize, 0);
        arena.extend(templates::lists(self, random));
        arguments[if matches!(number, CONSOLE_IO | VCPU_OP) { 2 } else { 1 }] = ARENA;
        (number, arguments, arena)
    }
}

/// Numbers of hypercalls (public/xen.h).
pub(crate) const PLATFORM_OP: u64 = 7;
pub(crate) const MEMORY_OP: u64 = 12;
pub(crate) const MULTICALL: u64 = 13;
pub(crate) const CONSOLE_IO: u64 = 18;
pub(crate) const GRANT_TABLE_OP: u64 = 20;
pub(crate) const VCPU_OP: u64 = 24;
pub(crate) const SCHED_OP: u64 = 29;
pub(crate) const EVENT_CHANNEL_OP: u64 = 32;
pub(crate) const HVM_OP: u64 = 34;
pub(crate) const SYSCTL: u64 = 35;
pub(crate) const DOMCTL: u64 = 36;

/// What is called most, some more than others.
const OF_GUESTS: [u64; 12] = [12, 12, 12, 20, 20, 20, 32, 32, 24, 34, 13, 29];
const OF_THE_CONTROL_DOMAIN: [u64; 12] = [36, 36, 36, 36, 36, 36, 35, 35, 7, 12, 34, 32];

/// How many commands families have, and a few more.
const COMMANDS: [(u64, u64); 9] =
    [(12, 30), (17, 12), (18, 3), (20, 14), (21, 6), (24, 16), (29, 10), (32, 15), (34, 27)];

/// What a caller has done, for its test.
#[derive(Debug, Default)]
pub struct Progress {
    /// Operations that are still to be done.
    pub left: AtomicU64,
    /// The answers to hypercalls.
    pub calls: Mutex<Tally>,
    /// Whether the caller has given up: its code is not there any more, or its registers are beyond repair.
    pub is_stuck: AtomicBool,
    /// The last operation, for the message of a failure.
    pub last: Mutex<Last>,
}

/// An operation, as it becomes text when somebody wants to read it.
#[derive(Clone, Debug, Default)]
pub enum Last {
    /// There was none.
    #[default]
    Nothing,
    /// A hypercall: number, arguments, the beginning of what they point at.
    Hypercall(u64, [u64; 6], [u8; 96]),
    /// Something else.
    Other(String),
}

impl Last {
    /// A hypercall.
    pub fn hypercall(number: u64, arguments: &[u64; 6], arena: &[u8]) -> Self {
        Self::Hypercall(number, *arguments, arena.first_chunk().copied().unwrap_or([0; 96]))
    }
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Hypercall(number, arguments, arena) => {
                write!(f, "hypercall {number} {arguments:x?}, arena")?;
                arena.as_chunks::<8>().0.iter().try_for_each(|word| write!(f, " {:x}", u64::from_le_bytes(*word)))
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Entries without end of an operation after which a caller gives up.
const MOST_ENTRIES: u32 = 20_000;

/// What the next operation is, with what it leaves in the arena.
fn next_operation(subject: &Subject, random: &mut Random) -> (Operation, Option<Vec<u8>>, Last) {
    if !subject.is_control && random.once_in(4) {
        let operation = other_operation(subject, random);
        let text = describe(&operation);
        return (operation, None, Last::Other(text));
    }
    let (number, arguments, arena) = subject.harmless_hypercall(random);
    let last = Last::hypercall(number, &arguments, &arena);
    (Operation::Hypercall(number, arguments), Some(arena), last)
}

/// What a hypercall asks for.
pub fn command(number: u64, arguments: &[u64; 6], arena: &[u8]) -> u32 {
    match number {
        PLATFORM_OP | SYSCTL | DOMCTL => arena.first_chunk().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes)),
        // The upper bits are a cursor.
        MEMORY_OP => (arguments[0] & 63) as u32,
        _ => arguments[0] as u32,
    }
}

/// The number of a hypercall and of what it asks for.
fn name(operation: &Operation, arena: Option<&[u8]>) -> Option<(u64, u32)> {
    let Operation::Hypercall(number, arguments) = operation else { return None };
    Some((*number, command(*number, arguments, arena.unwrap_or_default())))
}

fn describe(operation: &Operation) -> String {
    match operation {
        Operation::Load(gpa) => format!("load {gpa:#x}"),
        Operation::Store(gpa, value) => format!("store {gpa:#x} {value:#x}"),
        Operation::Cpuid(leaf, subleaf) => format!("cpuid {leaf:#x} {subleaf:#x}"),
        Operation::ReadMsr(number) => format!("rdmsr {number:#x}"),
        Operation::WriteMsr(number, value) => format!("wrmsr {number:#x} {value:#x}"),
        Operation::In(port, size) => format!("in {port:#x} {size}"),
        Operation::Out(port, size, value) => format!("out {port:#x} {size} {value:#x}"),
        _ => "something else".into(),
    }
}

/// What needs no hypercall.
fn other_operation(subject: &Subject, random: &mut Random) -> Operation {
    const MSRS: [u32; 20] = [
        0x10,
        0x1b,
        0x8b,
        0x174,
        0x179,
        0x200,
        0x250,
        0x277,
        0x2ff,
        0x400,
        0x6e0,
        0x800,
        0x808,
        0x80b,
        0x80d,
        0x832,
        0x83e,
        0xc000_0080,
        0xc000_0103,
        0x4000_0000,
    ];
    let msr = |random: &mut Random| match random.below(3) {
        0 => random.pick(&MSRS),
        1 => random.pick(&[0, 0x800, 0xc000_0000, 0xc001_0000, 0x4000_0000]) + random.below(0x400) as u32,
        _ => random.number() as u32,
    };
    // The kernel's own page and tables stay.
    let address = |random: &mut Random| match random.below(4) {
        0 => 0xfee0_0000 + random.below(0x1000),
        1 => kernel::END + random.below((subject.ram_frames << 12) - kernel::END),
        2 => random.below(1 << 40).max(kernel::END),
        _ => (subject.value(random) << 12 & 0xff_ffff_f000).max(kernel::END),
    };
    let size = |random: &mut Random| random.pick(&[1u8, 2, 4]);
    match random.below(8) {
        0 | 1 => Operation::Load(address(random)),
        2 => Operation::Store(address(random), random.number()),
        3 => Operation::Cpuid(
            random.pick(&[0, 0x4000_0000, 0x8000_0000]) + random.below(0x24) as u32,
            random.below(4) as u32,
        ),
        4 => Operation::ReadMsr(msr(random)),
        5 => Operation::WriteMsr(msr(random), subject.value(random)),
        6 => Operation::In(random.number() as u16, size(random)),
        _ => Operation::Out(random.number() as u16, size(random), random.number() as u32),
    }
}

/// A program for a vCPU that does random things until `progress` says that it is enough; then it blocks.
pub fn hammer(
    subject: Subject,
    seed: u64,
    progress: Arc<Progress>,
) -> impl FnMut(&mut Guest<'_>) -> Exit + Send + 'static {
    let mut random = Random::new(seed);
    let mut processor = Processor::new();
    let mut arena: Option<Vec<u8>> = None;
    let mut entries = 0;
    // The hypercall that is under way, as the statistics call it.
    let mut call = None;
    move |guest| {
        let _exception = processor.enter(guest);
        processor.interrupts.clear();
        entries += 1;
        if entries > MOST_ENTRIES {
            progress.is_stuck.store(true, Ordering::Relaxed);
            return guest.exit(exit::SHUTDOWN, 0, 0);
        }
        loop {
            if processor.is_idle() {
                if progress.left.load(Ordering::Relaxed) == 0 {
                    // Blocked for good, unless an interrupt comes.
                    guest.vmcb.guest.rip = kernel::Instruction::Vmmcall.address();
                    return guest.hypercall(SCHED_OP, &[1, 0]);
                }
                progress.left.fetch_sub(1, Ordering::Relaxed);
                entries = 0;
                // Whatever the last one has done to the paging mode.
                enter_long_mode(guest);
                guest.vmcb.guest.rflags |= rflags::IF;
                let (operation, contents, last) = next_operation(&subject, &mut random);
                *progress.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
                call = name(&operation, contents.as_deref());
                arena = contents;
                processor.begin(operation);
            }
            if let Some(bytes) = &arena {
                if let Err(exit) = guest.write(ARENA, bytes) {
                    return exit;
                }
                arena = None;
            }
            match processor.go_on(guest) {
                Ok(Outcome::Word(rax)) => {
                    if let Some((number, command)) = call.take() {
                        let mut calls = progress.calls.lock().unwrap_or_else(PoisonError::into_inner);
                        calls.count(number, command, rax.cast_signed());
                    }
                }
                Ok(_) => {}
                Err(exit) => return exit,
            }
        }
    }
}

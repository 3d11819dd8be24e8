//! IOMMUs of the fake machine, and the devices' accesses that go through them.
//!
//! A unit forgets nothing by itself: device table entries, pointers to tables and finished translations are kept until a command
//! makes it forget them. A device that reaches a freed page through a stale translation, and a walk that reads a freed table,
//! end the test. (AMD I/O Virtualization Technology Specification 48882, by which the levels and rights are read here; nothing
//! is shared with `crate::iommu` but the names of registers.)

use super::devices::FakeFunction;
use super::machine::{FakeMachine, State, with_current};
use crate::codec::amd_iommu::{control, feature, register, status};
use crate::frame::Kind;
use crate::units::{Maddr, Mfn, PAGE_SIZE};
use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::vec::Vec;

/// A device's access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Where the function's capabilities are: the unit's own, then messages.
const CAPABILITY: usize = 0x40;
const MESSAGES: usize = 0x54;

/// A finished translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) mfn: Mfn,
    /// Bit 0: read; bit 1: write.
    pub(super) rights: u64,
}

/// What a unit remembers of tables.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// By domain and page.
    pub(super) leaves: HashMap<(u16, u64), Leaf>,
    /// By domain, level of the table, and what of the address led there: the table, and the rights on the way.
    pub(super) tables: HashMap<(u16, u64, u64), (Mfn, u64)>,
}

impl Cache {
    pub(super) fn forget_page(&mut self, domain: u16, page: u64, are_tables_meant: bool) {
        self.leaves.remove(&(domain, page));
        if are_tables_meant {
            let leads_there = |level: u64, prefix: u64| page >> (9 * level) == prefix;
            self.tables.retain(|(of, level, prefix), _| *of != domain || !leads_there(*level, *prefix));
        }
    }

    pub(super) fn forget_domain(&mut self, domain: u16, are_tables_meant: bool) {
        self.leaves.retain(|(of, _), _| *of != domain);
        if are_tables_meant {
            self.tables.retain(|(of, _, _), _| *of != domain);
        }
    }
}

/// A unit.
#[derive(Debug, Default)]
pub(super) struct Unit {
    base: u64,
    place: u16,
    registers: HashMap<u64, u32>,
    entries: HashMap<u16, [u64; 4]>,
    cache: Cache,
    is_stuck: bool,
    commands: Vec<[u64; 2]>,
    /// Events, logged or not.
    events: usize,
}

impl Unit {
    fn register(&self, at: u64) -> u64 {
        let half = |at: u64| u64::from(self.registers.get(&at).copied().unwrap_or(0));
        half(at) | half(at + 4) << 32
    }

    fn set_register(&mut self, at: u64, value: u64) {
        self.registers.insert(at, value as u32);
        self.registers.insert(at + 4, (value >> 32) as u32);
    }

    fn is_on(&self) -> bool {
        self.register(register::CONTROL) & control::ENABLE != 0
    }

    /// Bytes of a ring, by its base register.
    fn ring(&self, base: u64) -> (u64, u64) {
        let value = self.register(base);
        (value & ADDRESS, 16 << (value >> 56 & 15))
    }

    fn write(&mut self, state: &State, at: u64, value: u32) {
        if at == register::STATUS {
            let old = self.register(at);
            return self.set_register(at, old & !u64::from(value));
        }
        self.registers.insert(at, value);
        if matches!(at & !7, register::COMMAND_TAIL | register::CONTROL) {
            self.run_commands(state);
        }
    }

    fn run_commands(&mut self, state: &State) {
        let wanted = control::ENABLE | control::COMMANDS;
        if self.register(register::CONTROL) & wanted != wanted || self.is_stuck {
            return;
        }
        let (base, length) = self.ring(register::COMMAND_BASE);
        let tail = self.register(register::COMMAND_TAIL);
        let mut head = self.register(register::COMMAND_HEAD);
        while head != tail {
            let words = [0, 8].map(|offset| read_word(state, base + head + offset));
            self.commands.push(words);
            self.run(state, words);
            head = (head + 16) % length;
        }
        self.set_register(register::COMMAND_HEAD, head);
    }

    fn run(&mut self, state: &State, [first, second]: [u64; 2]) {
        let domain = (first >> 32 & 0xffff) as u16;
        match first >> 60 {
            1 => {
                assert_eq!(first & 7, 1, "store, and no interrupt");
                let place = Maddr::new(first & 0x000f_ffff_ffff_fff8);
                state.ram.word(place).expect("RAM").store(second, Ordering::Release);
            }
            2 => drop(self.entries.remove(&((first & 0xffff) as u16))),
            3 if second & 1 == 0 => self.cache.forget_page(domain, second >> 12, second & 2 != 0),
            3 => {
                assert_eq!(second & !3, 0x7fff_ffff_ffff_f000, "all pages");
                self.cache.forget_domain(domain, second & 2 != 0);
            }
            8 => {
                self.entries.clear();
                self.cache = Cache::default();
            }
            other => panic!("command {other} is not known"),
        }
    }

    fn log(&mut self, state: &State, device: u16, address: u64, is_write: bool) {
        self.events += 1;
        if self.register(register::CONTROL) & control::EVENT_LOG == 0 {
            return;
        }
        let (base, length) = self.ring(register::EVENT_BASE);
        let (head, tail) = (self.register(register::EVENT_HEAD), self.register(register::EVENT_TAIL));
        let next = (tail + 16) % length;
        let mut happened = status::EVENT_INTERRUPT;
        if next == head {
            happened |= status::EVENT_OVERFLOW;
        } else if self.register(register::STATUS) & status::EVENT_OVERFLOW == 0 {
            let first = 2 << 60 | u64::from(is_write) << 53 | u64::from(device);
            for (offset, value) in [(8, address), (0, first)] {
                state.ram.word(Maddr::new(base + tail + offset)).expect("RAM").store(value, Ordering::Release);
            }
            self.set_register(register::EVENT_TAIL, next);
        }
        let status = self.register(register::STATUS) | happened;
        self.set_register(register::STATUS, status);
    }

    fn entry(&mut self, state: &State, device: u16) -> [u64; 4] {
        let base = self.register(register::DEVICE_TABLE);
        assert!(u64::from(device) * 32 < ((base & 0x1ff) + 1) * 4096, "device {device:#x} is beyond the table");
        let place = (base & ADDRESS) + u64::from(device) * 32;
        *self.entries.entry(device).or_insert_with(|| [0, 8, 16, 24].map(|word| read_word(state, place + word)))
    }

    /// The page behind an address, if the device may do that.
    fn translate(&mut self, state: &State, device: u16, address: u64, is_write: bool) -> Option<Mfn> {
        let wanted = if is_write { 2 } else { 1 };
        let [first, second, ..] = self.entry(state, device);
        assert_eq!(first & 3, 3, "an entry that lets devices pass");
        let domain = (second & 0xffff) as u16;
        let page = address >> 12;
        let leaf = match self.cache.leaves.get(&(domain, page)) {
            Some(leaf) => *leaf,
            None => self.walk(state, first, domain, address)?,
        };
        self.cache.leaves.insert((domain, page), leaf);
        (leaf.rights & wanted != 0).then_some(leaf.mfn)
    }

    fn walk(&mut self, state: &State, entry: u64, domain: u16, address: u64) -> Option<Leaf> {
        let mut rights = entry >> 61 & 3;
        let mut level = entry >> 9 & 7;
        let mut table = Mfn::new((entry & ADDRESS) >> 12);
        if level == 0 || address >> (12 + 9 * level) != 0 {
            return None;
        }
        loop {
            let kind = state.frames.info(table).map(|info| info.state().kind);
            assert_eq!(kind, Some(Kind::Table), "the IOMMU walks {table:?}, which is no table (any more)");
            let index = address >> (3 + 9 * level) & 511;
            let bits = read_word(state, table.address().number() + index * 8);
            if bits & 1 == 0 {
                return None;
            }
            assert_eq!(bits >> 52 & 0x7f, 0, "reserved bits of {bits:#x}");
            rights &= bits >> 61 & 3;
            let next = bits >> 9 & 7;
            let target = Mfn::new((bits & ADDRESS) >> 12);
            if next == 0 {
                let offset = page_in_block(address, level);
                assert_eq!(target.number() & (block_pages(level) - 1), 0, "{bits:#x} is not aligned for level {level}");
                return Some(Leaf { mfn: target.saturating_add(offset), rights });
            }
            assert_eq!(next, level - 1, "{bits:#x} in a table of level {level}");
            let prefix = address >> (12 + 9 * next);
            (table, rights) = *self.cache.tables.entry((domain, next, prefix)).or_insert((target, rights));
            level = next;
        }
    }
}

pub(super) fn block_pages(level: u64) -> u64 {
    1 << (9 * (level - 1))
}

pub(super) fn page_in_block(address: u64, level: u64) -> u64 {
    address >> 12 & (block_pages(level) - 1)
}

pub(super) fn read_word(state: &State, address: u64) -> u64 {
    state.ram.word(Maddr::new(address)).expect("RAM").load(Ordering::Acquire)
}

/// A register's content, if a unit has one there.
pub(super) fn register_read(maddr: Maddr, size: u8) -> Option<u32> {
    super::allocation::exempt(|| {
        with_current(|state, _| {
            let desk = state.desk();
            if let Some(value) = super::iommu_intel::register_read(&desk.devices.intel_iommus, maddr, size) {
                return Some(value);
            }
            let (unit, at) = desk.devices.iommus.iter().find_map(|unit| Some((unit, offset(unit, maddr)?)))?;
            assert_eq!(size, 4, "registers are read by 4 bytes here");
            Some(unit.registers.get(&at).copied().unwrap_or(0))
        })
    })
}

pub(super) fn register_write(maddr: Maddr, size: u8, value: u32) {
    super::allocation::exempt(|| {
        with_current(|state, _| {
            let mut desk = state.desk();
            super::iommu_intel::register_write(&mut desk.devices, state, maddr, size, value);
            let found = desk.devices.iommus.iter_mut().find_map(|unit| Some((offset(unit, maddr)?, unit)));
            if let Some((at, unit)) = found {
                assert_eq!(size, 4, "registers are written by 4 bytes here");
                unit.write(state, at, value);
            }
        });
    });
}

fn offset(unit: &Unit, maddr: Maddr) -> Option<u64> {
    maddr.number().checked_sub(unit.base).filter(|offset| *offset < register::BYTES)
}

impl FakeMachine {
    /// Puts an IOMMU there, with its registers and its function. All devices are behind the first one.
    pub fn add_iommu(&self, base: u64, place: u16) {
        let function = FakeFunction::new(0x1419_1022, 0x0806_0000)
            .with_capabilities(CAPABILITY as u32)
            .with(CAPABILITY, 0x0c0b_000f | (MESSAGES as u32) << 8, 0)
            .with(MESSAGES, 0x0080_0005, 0x0001_0000)
            .with(MESSAGES + 4, 0, 0xffff_fffc)
            .with(MESSAGES + 8, 0, u32::MAX)
            .with(MESSAGES + 12, 0, 0xffff);
        self.add_function(place, function);
        let mut unit = Unit { base, place, ..Unit::default() };
        unit.set_register(register::FEATURES, feature::INVALIDATE_ALL);
        self.with_devices(|devices| devices.iommus.push(unit));
    }

    /// Lets the units do nothing any more of what they are told, or again.
    pub fn set_iommu_stuck(&self, is_stuck: bool) {
        self.with_devices(|devices| {
            devices.iommus.iter_mut().for_each(|unit| unit.is_stuck = is_stuck);
            devices.intel_iommus.iter_mut().for_each(|unit| unit.is_stuck = is_stuck);
        });
    }

    /// Takes away that a unit can forget all by one command.
    pub fn make_iommu_old(&self) {
        self.with_devices(|devices| {
            devices.iommus.iter_mut().for_each(|unit| unit.set_register(register::FEATURES, 0));
        });
    }

    /// How many accesses the first unit has refused.
    pub fn iommu_events(&self) -> usize {
        self.with_devices(|devices| {
            devices.iommus.first().map_or_else(|| devices.intel_iommus[0].events, |unit| unit.events)
        })
    }

    /// The commands that the first unit has carried out.
    pub fn iommu_commands(&self) -> Vec<[u64; 2]> {
        self.with_devices(|devices| devices.iommus[0].commands.clone())
    }

    /// A device reads memory, inside of a page.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn dma_read(&self, device: u16, address: u64, out: &mut [u8]) -> Result<(), Refused> {
        let place = self.reach(device, address, false)?;
        self.with_state(|state| if state.ram.read(place, out) { Ok(()) } else { Err(Refused) })
    }

    /// A device writes memory, inside of a page.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn dma_write(&self, device: u16, address: u64, bytes: &[u8]) -> Result<(), Refused> {
        let place = self.reach(device, address, true)?;
        self.with_state(|state| if state.ram.write(place, bytes) { Ok(()) } else { Err(Refused) })
    }

    /// Where a device's access really goes.
    fn reach(&self, device: u16, address: u64, is_write: bool) -> Result<Maddr, Refused> {
        let (place, message) = self.with_state(|state| {
            let mut desk = state.desk();
            let devices = &mut desk.devices;
            if let Some(result) = super::iommu_intel::reach(devices, state, device, address, is_write) {
                return result;
            }
            let Some(unit) = devices.iommus.first_mut().filter(|unit| unit.is_on()) else {
                return (Some(Maddr::new(address)), None);
            };
            if let Some(mfn) = unit.translate(state, device, address, is_write) {
                return (Some(place_in(state, device, mfn, address)), None);
            }
            unit.log(state, device, address, is_write);
            let interrupts = unit.register(register::CONTROL) & control::EVENT_INTERRUPT != 0;
            let function = unit.place;
            (None, interrupts.then(|| devices.message(function, MESSAGES)).flatten())
        });
        if let Some((address, data)) = message {
            self.send_message(address, data);
        }
        place.ok_or(Refused)
    }
}

/// The address inside of a page that a device was led to, which must be a guest's, or no RAM.
pub(super) fn place_in(state: &State, device: u16, mfn: Mfn, address: u64) -> Maddr {
    let kind = state.frames.info(mfn).map(|info| info.state().kind);
    assert!(
        kind.is_none_or(|kind| kind == Kind::Guest),
        "device {device:#x} reaches {mfn:?}, which is {kind:?}, by a stale or wrong translation"
    );
    Maddr::new(mfn.address().number() + (address & (PAGE_SIZE as u64 - 1)))
}

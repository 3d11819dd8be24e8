//! Intel's IOMMUs of the fake machine. Like AMD's (`iommu`) they forget nothing by themselves; and they read tables past the caches:
//! what was not written back they see as it was before, and what never was ends the test.
//! (Intel VT-d, revision 4.1, by which entries are read here; nothing is shared with `crate::iommu` but the names of registers.)

use super::devices::Devices;
use super::iommu::{Cache, Leaf, block_pages, page_in_block, place_in, read_word};
use super::machine::{FakeMachine, State, with_current};
use crate::codec::intel_iommu::{command, fault, register};
use crate::frame::Kind;
use crate::units::{Maddr, Mfn};
use core::sync::atomic::Ordering;
use std::collections::HashMap;
use std::vec::Vec;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Four levels, large pages, single pages forgotten, draining, one record at 0x220; protected memory that firmware uses.
const CAPABILITY: u64 = 0x00c0_008c_2200_0460;
/// A queue; tables are not read through caches.
const EXTENDED: u64 = 0x0000_f002;
const RECORD: u64 = 0x220;

/// A unit.
#[derive(Debug, Default)]
pub(super) struct Unit {
    base: u64,
    registers: HashMap<u64, u32>,
    /// The root table that it was told to take.
    root: u64,
    head: u64,
    /// By device: what of the context entry counts.
    contexts: HashMap<u16, [u64; 2]>,
    cache: Cache,
    pub(super) is_stuck: bool,
    descriptors: Vec<[u64; 2]>,
    pub(super) events: usize,
}

/// Where a device's access goes, and the message that is to be sent.
type Reached = (Option<Maddr>, Option<(u64, u32)>);

impl Unit {
    fn get(&self, at: u64) -> u32 {
        self.registers.get(&at).copied().unwrap_or(0)
    }

    fn wide(&self, at: u64) -> u64 {
        u64::from(self.get(at)) | u64::from(self.get(at + 4)) << 32
    }

    fn set_wide(&mut self, at: u64, value: u64) {
        self.registers.insert(at, value as u32);
        self.registers.insert(at + 4, (value >> 32) as u32);
    }

    fn is_on(&self) -> bool {
        self.get(register::STATUS) & command::TRANSLATE != 0
    }

    fn write(&mut self, state: &State, at: u64, value: u32) {
        match at {
            _ if self.is_stuck => {}
            register::COMMAND => self.command(value),
            register::PROTECTED => drop(self.registers.insert(at, value & 1 << 31 | value >> 31)),
            register::FAULT_STATUS => drop(self.registers.insert(at, self.get(at) & !value)),
            _ if at == RECORD + 12 => drop(self.registers.insert(at, self.get(at) & !(value & fault::RECORDED))),
            _ => drop(self.registers.insert(at, value)),
        }
        self.run_queue(state);
    }

    fn command(&mut self, value: u32) {
        let old = self.get(register::STATUS);
        let lasting = command::TRANSLATE | command::QUEUE | command::REMAP;
        let mut status = value & lasting | old & command::SET_ROOT;
        assert!((value & lasting ^ old & lasting).count_ones() <= 1, "one thing at a time: {old:#x} to {value:#x}");
        if value & command::SET_ROOT != 0 {
            self.root = self.wide(register::ROOT) & ADDRESS;
            status |= command::SET_ROOT;
        }
        if value & command::QUEUE != 0 && old & command::QUEUE == 0 {
            self.head = 0;
        }
        self.registers.insert(register::STATUS, status);
    }

    fn run_queue(&mut self, state: &State) {
        if self.get(register::STATUS) & command::QUEUE == 0 || self.is_stuck {
            return;
        }
        let base = self.wide(register::QUEUE_BASE);
        assert_eq!(base & 0xfff, 0, "a queue of one page, with descriptors of 16 bytes");
        let tail = self.wide(register::QUEUE_TAIL);
        while self.head != tail {
            let words = [0, 8].map(|offset| read_word(state, base + self.head + offset));
            self.descriptors.push(words);
            self.run(state, words);
            self.head = (self.head + 16) % 4096;
        }
    }

    fn run(&mut self, state: &State, [first, second]: [u64; 2]) {
        let (kind, scope, domain) = (first & 0xf, first >> 4 & 3, (first >> 16 & 0xffff) as u16);
        match (kind, scope) {
            (1, 1) => self.contexts.clear(),
            (2, 1) => self.cache = Cache::default(),
            (2, 2) => self.cache.forget_domain(domain, true),
            (2, 3) => {
                assert_eq!(second & 0xfff, 0, "one page, and the tables on the way");
                self.cache.forget_page(domain, second >> 12, true);
            }
            (5, _) => {
                assert_eq!(first & 0x70, 0x20, "store, and no interrupt");
                let word = state.ram.word(Maddr::new(second & !7)).expect("RAM");
                assert_eq!(second & 7, 0, "the low half is meant");
                word.store(word.load(Ordering::Acquire) & !0xffff_ffff | first >> 32, Ordering::Release);
            }
            other => panic!("descriptor {other:?} is not known"),
        }
    }

    fn context(&mut self, memory: &HashMap<u64, u64>, device: u16) -> Option<[u64; 2]> {
        if let Some(found) = self.contexts.get(&device) {
            return Some(*found);
        }
        let bus = see(memory, self.root + u64::from(device >> 8) * 16);
        let place = (bus & ADDRESS) + u64::from(device & 0xff) * 16;
        assert_eq!(bus & 0xffe, 0, "reserved bits of a root entry");
        let words = [0, 8].map(|offset| see(memory, place + offset));
        // What is not present is not remembered (6.1, caching mode 0).
        if bus & 1 == 0 || words[0] & 1 == 0 {
            return None;
        }
        assert_eq!((words[0] & 0xffc, words[1] & 0x87), (0, 2), "only translated, by four levels");
        self.contexts.insert(device, words);
        Some(words)
    }

    /// The page behind an address, or the reason why the device may not do that.
    fn translate(
        &mut self,
        state: &State,
        memory: &HashMap<u64, u64>,
        device: u16,
        address: u64,
        is_write: bool,
    ) -> Result<Mfn, u8> {
        let [first, second] = self.context(memory, device).ok_or(2)?;
        let domain = (second >> 8 & 0xffff) as u16;
        let leaf = match self.cache.leaves.get(&(domain, address >> 12)) {
            Some(leaf) => Some(*leaf),
            None => self.walk(state, memory, Mfn::new((first & ADDRESS) >> 12), domain, address),
        };
        let refused = if is_write { 5 } else { 6 };
        let leaf = leaf.ok_or(refused)?;
        self.cache.leaves.insert((domain, address >> 12), leaf);
        let wanted = if is_write { 2 } else { 1 };
        if leaf.rights & wanted != 0 { Ok(leaf.mfn) } else { Err(refused) }
    }

    fn walk(
        &mut self,
        state: &State,
        memory: &HashMap<u64, u64>,
        root: Mfn,
        domain: u16,
        address: u64,
    ) -> Option<Leaf> {
        if address >> 48 != 0 {
            return None;
        }
        let (mut table, mut rights) = (root, 3);
        for level in (1..=4u64).rev() {
            let kind = state.frames.info(table).map(|info| info.state().kind);
            assert_eq!(kind, Some(Kind::Table), "the IOMMU walks {table:?}, which is no table (any more)");
            let index = address >> (3 + 9 * level) & 511;
            let bits = see(memory, table.address().number() + index * 8);
            if bits & 3 == 0 {
                return None;
            }
            let is_large = bits >> 7 & 1 != 0;
            assert_eq!(bits >> 62 & 1 | bits >> 11 & 1, 0, "reserved bits of {bits:#x}");
            assert!(level < 4 || !is_large, "{bits:#x} in a root");
            rights &= bits & 3;
            let target = Mfn::new((bits & ADDRESS) >> 12);
            if level == 1 || is_large {
                let offset = page_in_block(address, level);
                assert_eq!(target.number() & (block_pages(level) - 1), 0, "{bits:#x} is not aligned for level {level}");
                return Some(Leaf { mfn: target.saturating_add(offset), rights });
            }
            let prefix = address >> (12 + 9 * (level - 1));
            (table, rights) = *self.cache.tables.entry((domain, level - 1, prefix)).or_insert((target, rights));
        }
        None
    }

    /// Records a fault, if there is room. Gives the message that is to be sent.
    fn record(&mut self, device: u16, address: u64, is_write: bool, reason: u8) -> Option<(u64, u32)> {
        self.events += 1;
        if self.get(RECORD + 12) & fault::RECORDED != 0 {
            let status = self.get(register::FAULT_STATUS);
            self.registers.insert(register::FAULT_STATUS, status | fault::OVERFLOW);
            return None;
        }
        self.set_wide(RECORD, address & !0xfff);
        let high = u32::from(reason) | fault::RECORDED | if is_write { 0 } else { 1 << 30 };
        self.set_wide(RECORD + 8, u64::from(device) | u64::from(high) << 32);
        let is_masked = self.get(register::FAULT_CONTROL) & fault::MASKED != 0;
        (!is_masked).then(|| (self.wide(register::FAULT_ADDRESS), self.get(register::FAULT_DATA)))
    }
}

/// What a unit sees in memory.
fn see(memory: &HashMap<u64, u64>, address: u64) -> u64 {
    *memory.get(&address).unwrap_or_else(|| panic!("{address:#x} is read past the caches, and was never written back"))
}

/// What processors have written reaches memory.
pub(super) fn write_back(start: Maddr, bytes: u64) {
    super::allocation::exempt(|| {
        with_current(|state, _| {
            let mut desk = state.desk();
            if desk.devices.intel_iommus.is_empty() {
                return;
            }
            for address in (start.number()..start.number() + bytes).step_by(8) {
                desk.devices.memory.insert(address, read_word(state, address));
            }
        });
    });
}

fn offset(unit: &Unit, maddr: Maddr) -> Option<u64> {
    maddr.number().checked_sub(unit.base).filter(|offset| *offset < register::BYTES)
}

/// A register's content, if a unit has one there.
pub(super) fn register_read(units: &[Unit], maddr: Maddr, size: u8) -> Option<u32> {
    let (unit, at) = units.iter().find_map(|unit| Some((unit, offset(unit, maddr)?)))?;
    assert_eq!(size, 4, "registers are read by 4 bytes here");
    Some(unit.get(at))
}

pub(super) fn register_write(devices: &mut Devices, state: &State, maddr: Maddr, size: u8, value: u32) {
    let found = devices.intel_iommus.iter_mut().find_map(|unit| Some((offset(unit, maddr)?, unit)));
    if let Some((at, unit)) = found {
        assert_eq!(size, 4, "registers are written by 4 bytes here");
        unit.write(state, at, value);
    }
}

/// What becomes of a device's access, if there is a unit and it is on.
pub(super) fn reach(
    devices: &mut Devices,
    state: &State,
    device: u16,
    address: u64,
    is_write: bool,
) -> Option<Reached> {
    let unit = devices.intel_iommus.first_mut().filter(|unit| unit.is_on())?;
    Some(match unit.translate(state, &devices.memory, device, address, is_write) {
        Ok(mfn) => (Some(place_in(state, device, mfn, address)), None),
        Err(reason) => (None, unit.record(device, address, is_write, reason)),
    })
}

impl FakeMachine {
    /// Puts an IOMMU of Intel's there, as firmware may leave it: on, with protected memory. All devices are behind the first one.
    pub fn add_intel_iommu(&self, base: u64) {
        let mut unit = Unit { base, ..Unit::default() };
        unit.set_wide(register::CAPABILITY, CAPABILITY);
        unit.set_wide(register::EXTENDED, EXTENDED);
        unit.registers.insert(register::STATUS, command::TRANSLATE | command::REMAP);
        unit.registers.insert(register::PROTECTED, 1 << 31 | 1);
        self.with_devices(|devices| devices.intel_iommus.push(unit));
    }

    /// Changes what the first unit says that it can do: the capability register, and the extended one.
    pub fn set_intel_capabilities(&self, change: impl FnOnce(u64, u64) -> (u64, u64)) {
        self.with_devices(|devices| {
            let unit = &mut devices.intel_iommus[0];
            let (capability, extended) = change(unit.wide(register::CAPABILITY), unit.wide(register::EXTENDED));
            unit.set_wide(register::CAPABILITY, capability);
            unit.set_wide(register::EXTENDED, extended);
        });
    }

    /// The descriptors that the first unit has carried out.
    pub fn intel_descriptors(&self) -> Vec<[u64; 2]> {
        self.with_devices(|devices| devices.intel_iommus[0].descriptors.clone())
    }

    /// Whether the first unit lets no device reach protected memory.
    pub fn is_memory_protected(&self) -> bool {
        self.with_devices(|devices| devices.intel_iommus[0].get(register::PROTECTED) & 1 != 0)
    }
}

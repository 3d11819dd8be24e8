//! AMD's IOMMU: units that share one table of devices, with an entry for each.
//! (AMD I/O Virtualization Technology Specification 48882; docs/design/0009.)
//!
//! Before this: `iommu`. After it: `queue` and `codec::amd_iommu`.

use super::queue::{Queue, RECORD_BYTES, RECORDS, allocate, page_words, tell_all, word};
use super::{DOMAIN, Forget, MAX_UNITS, Refusal, Stuck};
use crate::boxed::OutOfMemory;
use crate::codec::amd_iommu::{
    self as codec, Command, ENTRIES, ENTRY_BYTES, ENTRY_WORDS, Event, Settings, control, feature, register, status,
};
use crate::frame;
use crate::lock::{Lock, rank};
use crate::platform::{device_read, device_write};
use crate::table::IoRoot;
use crate::units::{Maddr, Mfn, PAGE_SIZE_U64};
use core::sync::atomic::Ordering;

/// log2 of the pages of the device table.
const TABLE_ORDER: u32 = (ENTRIES * ENTRY_BYTES / PAGE_SIZE_U64).trailing_zeros();
const ENTRIES_IN_PAGE: u64 = PAGE_SIZE_U64 / ENTRY_BYTES;
/// log2 of the records of a ring, as registers have it from bit 56 on.
const RING_LENGTH: u64 = (RECORDS.trailing_zeros() as u64) << 56;

/// What a unit needs to be told at its start: flags of the firmware's table (48882, IVHD block flags).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnitFlags(pub u8);

impl UnitFlags {
    /// The bits of the control register that they ask for.
    const fn control(self) -> u64 {
        let pairs = [
            (1 << 0, control::TUNNEL),
            (1 << 1, control::PASS_WRITES),
            (1 << 2, control::RESPONSES_PASS_WRITES),
            (1 << 3, control::ISOCHRONOUS),
        ];
        let (mut bits, mut at) = (0, 0);
        while at < pairs.len() {
            if self.0 & pairs[at].0 != 0 {
                bits |= pairs[at].1;
            }
            at += 1;
        }
        bits
    }
}

/// One unit.
#[derive(Debug)]
struct Unit {
    registers: Maddr,
    control: u64,
    commands: Queue,
    events: Mfn,
    /// Held while the log of events is read.
    log: Lock<(), { rank::IOMMU }>,
}

impl Unit {
    fn try_new(registers: Maddr, flags: UnitFlags, table: Mfn) -> Result<Self, Refusal> {
        if registers.number() == 0 || !registers.number().is_multiple_of(register::BYTES) {
            return Err(Refusal::Registers);
        }
        let commands = Queue::try_new().ok_or(Refusal::OutOfMemory)?;
        let Some(events) = allocate(0) else {
            commands.free();
            return Err(Refusal::OutOfMemory);
        };
        let on = control::ENABLE | control::COMMANDS | control::EVENT_LOG | control::EVENT_INTERRUPT;
        let unit =
            Self { registers, control: on | control::COHERENT | flags.control(), commands, events, log: Lock::new(()) };
        let table_pages = ENTRIES * ENTRY_BYTES / PAGE_SIZE_U64;
        // Firmware may have left it on. While it is off devices pass, as they did when the machine started.
        let set_up = unit.write(register::CONTROL, 0)
            && unit.write(register::DEVICE_TABLE, table.address().number() | (table_pages - 1))
            && unit.write(register::COMMAND_BASE, unit.commands.base() | RING_LENGTH)
            && unit.write(register::EVENT_BASE, events.address().number() | RING_LENGTH)
            && [register::COMMAND_HEAD, register::COMMAND_TAIL, register::EVENT_HEAD, register::EVENT_TAIL]
                .into_iter()
                .all(|at| unit.write(at, 0));
        if set_up {
            return Ok(unit);
        }
        unit.free();
        Err(Refusal::Registers)
    }

    /// Writes a register, the low half first: units take any aligned access (48882, 3.4).
    fn write(&self, at: u64, value: u64) -> bool {
        let place = self.registers.number() + at;
        device_write(Maddr::new(place), 4, value as u32) && device_write(Maddr::new(place + 4), 4, (value >> 32) as u32)
    }

    /// Reads the low half of a register.
    fn read(&self, at: u64) -> u64 {
        device_read(Maddr::new(self.registers.number() + at), 4).map_or(0, u64::from)
    }

    /// Hands commands over, and gives the number that the unit stores when it has done them.
    fn begin(&self, commands: &[Command]) -> u32 {
        let tail = Maddr::new(self.registers.number() + register::COMMAND_TAIL);
        let wait = |address, value| Command::Wait { address, value: u64::from(value) }.encode();
        let records: heapless::Vec<_, { super::queue::MOST_RECORDS }> =
            commands.iter().map(|command| command.encode()).collect();
        self.commands.begin(&records, wait, tail)
    }

    fn wait(&self, number: u32) -> Result<(), Stuck> {
        self.commands.wait(number)
    }

    fn enable(&self) -> Result<(), Stuck> {
        if !self.write(register::CONTROL, self.control) {
            return Err(Stuck);
        }
        if self.read(register::FEATURES) & feature::INVALIDATE_ALL != 0 {
            return self.wait(self.begin(&[Command::ForgetAll]));
        }
        for device in 0..=u16::MAX {
            self.wait(self.begin(&[Command::ForgetDevice(device)]))?;
        }
        self.wait(self.begin(&[Command::ForgetDomain(DOMAIN)]))
    }

    /// Takes logged events out, at most a log full.
    fn take_events(&self, each: &mut impl FnMut(Event)) {
        let guard = self.log.lock();
        self.write(register::STATUS, status::EVENT_INTERRUPT);
        let mut head = self.read(register::EVENT_HEAD) % PAGE_SIZE_U64;
        let tail = self.read(register::EVENT_TAIL) % PAGE_SIZE_U64;
        for _ in 0..RECORDS {
            if head == tail {
                break;
            }
            let place = self.events.address().number() + head;
            let words = [word(Maddr::new(place)), word(Maddr::new(place + 8))];
            let [first, second] = words.map(|word| word.load(Ordering::Acquire));
            let Some(event) = Event::decode([first, second]) else {
                // The tail was ahead of the content: the rest comes with the next interrupt.
                break;
            };
            words[0].store(0, Ordering::Release);
            each(event);
            head = (head + RECORD_BYTES) % PAGE_SIZE_U64;
        }
        self.write(register::EVENT_HEAD, head);
        if self.read(register::STATUS) & status::EVENT_OVERFLOW != 0 {
            self.write(register::CONTROL, self.control & !control::EVENT_LOG);
            self.write(register::EVENT_HEAD, 0);
            self.write(register::EVENT_TAIL, 0);
            self.write(register::STATUS, status::EVENT_OVERFLOW);
            self.write(register::CONTROL, self.control);
        }
        drop(guard);
    }

    fn free(self) {
        self.commands.free();
        frame::free(self.events, 0);
    }
}

/// All units, and the device table that they share.
#[derive(Debug)]
pub(super) struct Units {
    table: Mfn,
    settings: alloc::vec::Vec<(u16, u16, Settings)>,
    units: heapless::Vec<Unit, MAX_UNITS>,
}

impl Units {
    /// Without units, and with all devices blocked.
    pub(super) fn try_new(settings: alloc::vec::Vec<(u16, u16, Settings)>) -> Result<Self, OutOfMemory> {
        let table = allocate(TABLE_ORDER).ok_or(OutOfMemory)?;
        let all = Self { table, settings, units: heapless::Vec::new() };
        all.set_entries(None);
        Ok(all)
    }

    /// Sets a unit up; it stays off.
    pub(super) fn add(&mut self, registers: Maddr, flags: UnitFlags) -> Result<(), Refusal> {
        if self.units.is_full() {
            return Err(Refusal::TooMany);
        }
        let unit = Unit::try_new(registers, flags, self.table)?;
        self.units.push(unit).map_err(|unit| {
            unit.free();
            Refusal::TooMany
        })
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    fn settings_of(&self, device: u16) -> Settings {
        let of_device = |(first, last, _): &&(u16, u16, Settings)| (*first..=*last).contains(&device);
        self.settings.iter().rev().find(of_device).map_or_else(Settings::default, |found| found.2)
    }

    /// All devices go through the tables at `root`, or reach nothing.
    pub(super) fn set_entries(&self, root: Option<IoRoot>) {
        let entry = |settings| match root {
            Some(root) => codec::translated_entry(root.mfn().address().number(), DOMAIN, settings),
            None => codec::blocked_entry(settings),
        };
        let usual = entry(Settings::default());
        for page in 0..1u64 << TABLE_ORDER {
            let words = page_words(self.table.saturating_add(page));
            for (device, words) in (page * ENTRIES_IN_PAGE..).zip(words.as_chunks::<ENTRY_WORDS>().0) {
                let settings = self.settings_of(device as u16);
                let values = if settings == Settings::default() { usual } else { entry(settings) };
                // The first word, which gives the rights, comes last. What the others say does not depend on it, so that also
                // taking rights away is safe in this order.
                for (word, value) in words.iter().zip(values).rev() {
                    word.store(value, Ordering::Release);
                }
            }
        }
    }

    pub(super) fn enable(&self) -> Result<(), Stuck> {
        self.units.iter().try_for_each(Unit::enable)
    }

    pub(super) fn disable(&self) {
        for unit in &self.units {
            unit.write(register::CONTROL, 0);
        }
    }

    /// What a unit forgets when it is turned on is everything, which suits here, too.
    pub(super) fn forget_devices(&self) -> Result<(), Stuck> {
        self.enable()
    }

    pub(super) fn forget(&self, what: Forget) -> Result<(), Stuck> {
        let command = match what {
            Forget::Page(gfn) => Command::ForgetPage { domain: DOMAIN, address: gfn.address().number() },
            Forget::All => Command::ForgetDomain(DOMAIN),
        };
        tell_all(&self.units, |unit| &unit.commands, |unit| unit.begin(&[command]))
    }

    pub(super) fn take_events(&self, each: &mut impl FnMut(Event)) {
        for unit in &self.units {
            unit.take_events(each);
        }
    }

    /// Turns all units off, and gives all pages back.
    pub(super) fn free(&mut self) {
        self.disable();
        for unit in core::mem::take(&mut self.units) {
            unit.free();
        }
        frame::free(self.table, TABLE_ORDER);
    }
}

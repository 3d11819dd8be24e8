//! AMD's IOMMU: units that translate what devices read and write, all by one table of devices.
//! (AMD I/O Virtualization Technology Specification 48882; docs/design/0009.)
//!
//! The core decides which tables of a domain devices go through and when something must be forgotten; how that is said to a
//! unit stands here. An [`Iommu`] begins with all devices blocked, and no state in between lets a device pass untranslated:
//! entries are always valid. The code is the same on the real machine and on the fake one, which plays the units' side.
//!
//! What comes before: `xen-core`'s `iommu` (which units there are, by the firmware's table) and `p2m` (what changes). What
//! comes after: `codec::amd_iommu`, the formats.

use crate::arch;
use crate::boxed::OutOfMemory;
use crate::codec::amd_iommu::{
    self as codec, Command, ENTRIES, ENTRY_BYTES, ENTRY_WORDS, Event, RECORD_BYTES, Settings, control, feature,
    register, status,
};
use crate::cpu;
use crate::frame::{self, Fill, Kind};
use crate::lock::{Lock, rank};
use crate::platform::{device_read, device_write};
use crate::table::IoRoot;
use crate::units::{DomId, Gfn, Maddr, Mfn, PAGE_SIZE_U64};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Units at the most.
pub const MAX_UNITS: usize = 16;
/// log2 of the pages of the device table.
const TABLE_ORDER: u32 = (ENTRIES * ENTRY_BYTES / PAGE_SIZE_U64).trailing_zeros();
const ENTRIES_IN_PAGE: u64 = PAGE_SIZE_U64 / ENTRY_BYTES;
/// Records of a ring that takes a page, and log2 of their number, as registers have it from bit 56 on.
const RING_RECORDS: u64 = PAGE_SIZE_U64 / RECORD_BYTES;
const RING_LENGTH: u64 = (RING_RECORDS.trailing_zeros() as u64) << 56;
/// Commands that go into a ring in one go. All CPUs together cannot fill a ring: each has one batch in it, and waits.
const MOST_COMMANDS: usize = 3;
const _: () = assert!(MOST_COMMANDS * crate::platform::MAX_CPUS < RING_RECORDS as usize);
/// How long a unit may take for a command, in milliseconds. What a healthy one takes are microseconds.
const PATIENCE: u64 = 1000;
/// The number under which translations are cached. There is one view, so there is one number.
const DOMAIN: u16 = 1;

/// A unit does not do what it is told. Nobody knows what it still remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was to be forgotten may still be reached by devices"]
pub struct Stuck;

/// Why a unit cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There are too many.
    TooMany,
    /// Its registers cannot be where they are said to be.
    Registers,
    /// No memory for its rings.
    OutOfMemory,
}

/// What is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// The translation of one page.
    Page(Gfn),
    /// All translations.
    All,
}

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

/// A word of the hypervisor's memory that a unit reads or writes, too.
fn word(maddr: Maddr) -> &'static AtomicU64 {
    let place = arch::page_address(maddr.frame()).wrapping_add(maddr.offset() & !7).cast::<AtomicU64>();
    // SAFETY: all callers pass addresses inside of pages that this module has allocated and never frees while it uses them;
    // they are reached by atomics and by the units only.
    unsafe { &*place }
}

/// As [`word`], all of a page.
fn page_words(mfn: Mfn) -> &'static [AtomicU64] {
    let place = arch::page_address(mfn).cast::<AtomicU64>();
    // SAFETY: as in `word`; a page has 512 words and is aligned to its size.
    unsafe { core::slice::from_raw_parts(place, (PAGE_SIZE_U64 / 8) as usize) }
}

fn allocate(order: u32) -> Option<Mfn> {
    frame::allocate(order, Kind::Hypervisor, DomId(0), Fill::Zero)
}

/// The commands under way.
#[derive(Debug, Default)]
struct Ring {
    /// Where the next command goes, in bytes.
    tail: u64,
    /// The number that the last batch stores.
    last: u64,
}

/// One unit.
#[derive(Debug)]
struct Unit {
    registers: Maddr,
    control: u64,
    commands: Mfn,
    events: Mfn,
    /// Where the unit stores the number of a batch that it has done.
    done: Mfn,
    ring: Lock<Ring, { rank::IOMMU }>,
    /// Held while the log of events is read.
    log: Lock<(), { rank::IOMMU }>,
}

impl Unit {
    fn try_new(registers: Maddr, flags: UnitFlags, table: Mfn) -> Result<Self, Refusal> {
        if registers.number() == 0 || !registers.number().is_multiple_of(register::BYTES) {
            return Err(Refusal::Registers);
        }
        let pages = [allocate(0), allocate(0), allocate(0)];
        let [Some(commands), Some(events), Some(done)] = pages else {
            pages.into_iter().flatten().for_each(|page| frame::free(page, 0));
            return Err(Refusal::OutOfMemory);
        };
        let on = control::ENABLE | control::COMMANDS | control::EVENT_LOG | control::EVENT_INTERRUPT;
        let unit = Self {
            registers,
            control: on | control::COHERENT | flags.control(),
            commands,
            events,
            done,
            ring: Lock::new(Ring::default()),
            log: Lock::new(()),
        };
        let table_pages = ENTRIES * ENTRY_BYTES / PAGE_SIZE_U64;
        // Firmware may have left it on. While it is off devices pass, as they did when the machine started.
        let set_up = unit.write(register::CONTROL, 0)
            && unit.write(register::DEVICE_TABLE, table.address().number() | (table_pages - 1))
            && unit.write(register::COMMAND_BASE, commands.address().number() | RING_LENGTH)
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
    fn begin(&self, commands: &[Command]) -> u64 {
        let mut ring = self.ring.lock();
        ring.last += 1;
        let number = ring.last;
        let wait = Command::Wait { address: self.done.address().number(), value: number };
        for command in commands.iter().take(MOST_COMMANDS - 1).chain([&wait]) {
            let place = self.commands.address().number() + ring.tail;
            for (offset, value) in [0, 8].into_iter().zip(command.encode()) {
                word(Maddr::new(place + offset)).store(value, Ordering::Relaxed);
            }
            ring.tail = (ring.tail + RECORD_BYTES) % PAGE_SIZE_U64;
        }
        // Volatile after the stores above, which the unit sees in this order (48882, 2.4: the tail is written last).
        core::sync::atomic::fence(Ordering::SeqCst);
        // It was mapped when the unit was set up, so this cannot fail; if it did, `wait` would say so.
        let _written = device_write(Maddr::new(self.registers.number() + register::COMMAND_TAIL), 4, ring.tail as u32);
        number
    }

    /// Waits until a batch is done.
    fn wait(&self, number: u64) -> Result<(), Stuck> {
        let done = word(self.done.address());
        let start = cpu::timestamp();
        while done.load(Ordering::Acquire) < number {
            if cpu::timestamp().wrapping_sub(start) > cpu::timestamp_khz().saturating_mul(PATIENCE) {
                return Err(Stuck);
            }
            cpu::relax();
        }
        Ok(())
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
        for _ in 0..RING_RECORDS {
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
        [self.commands, self.events, self.done].into_iter().for_each(|page| frame::free(page, 0));
    }
}

/// All units of the machine, and the device table that they share.
#[derive(Debug)]
pub struct Iommu {
    table: Mfn,
    settings: alloc::vec::Vec<(u16, u16, Settings)>,
    units: heapless::Vec<Unit, MAX_UNITS>,
    is_on: AtomicBool,
    is_stuck: AtomicBool,
}

impl Iommu {
    /// Without units, and with all devices blocked. `settings` are what firmware wants for devices: first, last, and what.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(settings: alloc::vec::Vec<(u16, u16, Settings)>) -> Result<Self, OutOfMemory> {
        let table = allocate(TABLE_ORDER).ok_or(OutOfMemory)?;
        let (is_on, is_stuck) = (AtomicBool::new(false), AtomicBool::new(false));
        let iommu = Self { table, settings, units: heapless::Vec::new(), is_on, is_stuck };
        iommu.set_entries(codec::blocked_entry);
        Ok(iommu)
    }

    /// Sets a unit up; it stays off. Its registers are at an address that no RAM has and that the unit answers at.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn add(&mut self, registers: Maddr, flags: UnitFlags) -> Result<(), Refusal> {
        if self.units.is_full() {
            return Err(Refusal::TooMany);
        }
        let unit = Unit::try_new(registers, flags, self.table)?;
        self.units.push(unit).map_err(|unit| {
            unit.free();
            Refusal::TooMany
        })
    }

    /// Units that were added.
    pub fn units(&self) -> usize {
        self.units.len()
    }

    fn settings_of(&self, device: u16) -> Settings {
        let of_device = |(first, last, _): &&(u16, u16, Settings)| (*first..=*last).contains(&device);
        self.settings.iter().rev().find(of_device).map_or_else(Settings::default, |found| found.2)
    }

    fn set_entries(&self, entry: impl Fn(Settings) -> [u64; ENTRY_WORDS]) {
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

    /// Lets all devices go through the tables at `root`, and through nothing else.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn translate(&self, root: IoRoot) -> Result<(), Stuck> {
        let root = root.mfn().address().number();
        self.set_entries(|settings| codec::translated_entry(root, DOMAIN, settings));
        self.forget_devices()
    }

    /// Lets no device reach anything.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn block(&self) -> Result<(), Stuck> {
        self.set_entries(codec::blocked_entry);
        self.forget_devices()
    }

    /// Turns all units on. Before that, devices pass.
    ///
    /// # Errors
    /// [`Stuck`], with all units off again.
    pub fn enable(&self) -> Result<(), Stuck> {
        let result = self.units.iter().try_for_each(Unit::enable);
        self.is_on.store(result.is_ok(), Ordering::Release);
        if result.is_err() {
            for unit in &self.units {
                unit.write(register::CONTROL, 0);
            }
        }
        result
    }

    /// Whether devices are translated.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Entries of devices have changed.
    fn forget_devices(&self) -> Result<(), Stuck> {
        if self.is_stuck.load(Ordering::Acquire) {
            return Err(Stuck);
        }
        if !self.is_on() {
            return Ok(());
        }
        self.units.iter().try_for_each(Unit::enable).inspect_err(|_| self.is_stuck.store(true, Ordering::Release))
    }

    /// Makes all units forget translations, and waits until they have: from then on no device uses them.
    ///
    /// # Errors
    /// [`Stuck`], also at each call after one that has failed: what devices may still reach must not be used again.
    pub fn forget(&self, what: Forget) -> Result<(), Stuck> {
        if self.is_stuck.load(Ordering::Acquire) {
            return Err(Stuck);
        }
        if !self.is_on() {
            return Ok(());
        }
        let command = match what {
            Forget::Page(gfn) => Command::ForgetPage { domain: DOMAIN, address: gfn.address().number() },
            Forget::All => Command::ForgetDomain(DOMAIN),
        };
        // All are told before the first is waited for.
        let numbers: heapless::Vec<u64, MAX_UNITS> = self.units.iter().map(|unit| unit.begin(&[command])).collect();
        for (unit, number) in self.units.iter().zip(numbers) {
            unit.wait(number).inspect_err(|_| self.is_stuck.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// Takes out what units have logged.
    pub fn take_events(&self, mut each: impl FnMut(Event)) {
        for unit in &self.units {
            unit.take_events(&mut each);
        }
    }
}

impl Drop for Iommu {
    /// Turned off, units read none of their pages any more.
    fn drop(&mut self) {
        for unit in core::mem::take(&mut self.units) {
            unit.write(register::CONTROL, 0);
            unit.free();
        }
        frame::free(self.table, TABLE_ORDER);
    }
}

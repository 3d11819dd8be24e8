//! Intel's IOMMU (VT-d) in legacy mode: a root table with an entry for each bus, tables of contexts with an entry for each function.
//! As all devices go through the same tables, all buses share one table of contexts.
//! (Intel Virtualization Technology for Directed I/O, revision 4.1; docs/design/0009.)
//!
//! Units may read tables past the processors' caches (extended capability C), so whatever they walk is written back to memory
//! before they are told: here, and in `table` for trees of this format.
//!
//! Before this: `iommu`. After it: `queue` and `codec::intel_iommu`.

use super::queue::{MOST_RECORDS, Queue, allocate, page_words, tell_all, within_patience};
use super::{DOMAIN, Forget, MAX_UNITS, Refusal, Stuck};
use crate::arch;
use crate::boxed::OutOfMemory;
use crate::codec::amd_iommu::{Event, EventKind};
use crate::codec::intel_iommu::{
    self as codec, Capability, Descriptor, ENTRY_WORDS, Extended, Fault, command, fault, register,
};
use crate::frame;
use crate::lock::{Lock, rank};
use crate::platform::{device_read, device_write};
use crate::table::IoRoot;
use crate::units::{Maddr, Mfn};
use core::sync::atomic::Ordering;

/// Bit 31 turns protected memory on, bit 0 says that it is.
const PROTECTION: (u32, u32) = (1 << 31, 1);

/// One unit.
#[derive(Debug)]
struct Unit {
    registers: Maddr,
    capability: Capability,
    queue: Queue,
    /// Held while records of faults are read, and while the command register is changed.
    log: Lock<(), { rank::IOMMU }>,
}

impl Unit {
    fn try_new(registers: Maddr) -> Result<Self, Refusal> {
        if registers.number() == 0 || !registers.number().is_multiple_of(register::BYTES) {
            return Err(Refusal::Registers);
        }
        let read = |at: u64| device_read(Maddr::new(registers.number() + at), 4).map(u64::from);
        let wide = |at: u64| Some(read(at)? | read(at + 4)? << 32);
        let capability = Capability(wide(register::CAPABILITY).ok_or(Refusal::Registers)?);
        let extended = Extended(wide(register::EXTENDED).ok_or(Refusal::Registers)?);
        if capability.0 == u64::MAX {
            return Err(Refusal::Registers);
        }
        needs(capability, extended)?;
        let queue = Queue::try_new().ok_or(Refusal::OutOfMemory)?;
        let unit = Self { registers, capability, queue, log: Lock::new(()) };
        if unit.quieten().is_err() {
            // It knows nothing of the queue yet.
            unit.queue.free();
            return Err(Refusal::Stuck);
        }
        Ok(unit)
    }

    /// Firmware may have left it on. While it is off devices pass, as they did when the machine started.
    fn quieten(&self) -> Result<(), Stuck> {
        self.write(register::FAULT_CONTROL, fault::MASKED);
        for bit in [command::TRANSLATE, command::REMAP, command::QUEUE] {
            self.turn(bit, false)?;
        }
        if self.capability.has_protected_memory() {
            self.write(register::PROTECTED, self.read(register::PROTECTED) & !PROTECTION.0);
            within_patience(|| self.read(register::PROTECTED) & PROTECTION.1 == 0)?;
        }
        Ok(())
    }

    /// Tells a quiet unit where the root table and the queue are.
    fn set_up(&self, root: Mfn) -> Result<(), Stuck> {
        self.write_wide(register::ROOT, root.address().number());
        self.write(register::COMMAND, self.lasting() | command::SET_ROOT);
        within_patience(|| self.read(register::STATUS) & command::SET_ROOT != 0)?;
        self.write_wide(register::QUEUE_TAIL, 0);
        self.write_wide(register::QUEUE_BASE, self.queue.base());
        self.turn(command::QUEUE, true)?;
        self.forget_all()
    }

    /// Writes a register of 32 bits.
    fn write(&self, at: u64, value: u32) {
        // It was mapped when its capabilities were read, so this cannot fail; if it did, waiting for its effect would say so.
        let _written = device_write(Maddr::new(self.registers.number() + at), 4, value);
    }

    /// Writes a register of 64 bits, the low half first: units take both (11.2).
    fn write_wide(&self, at: u64, value: u64) {
        self.write(at, value as u32);
        self.write(at + 4, (value >> 32) as u32);
    }

    /// Reads a register of 32 bits.
    fn read(&self, at: u64) -> u32 {
        device_read(Maddr::new(self.registers.number() + at), 4).unwrap_or(u32::MAX)
    }

    /// What is on, as the command register wants it repeated.
    fn lasting(&self) -> u32 {
        self.read(register::STATUS) & command::LASTING
    }

    /// Turns one thing on or off, and waits until it is.
    fn turn(&self, bit: u32, is_wanted: bool) -> Result<(), Stuck> {
        let guard = self.log.lock();
        let lasting = self.lasting();
        if (lasting & bit != 0) != is_wanted {
            self.write(register::COMMAND, lasting & !bit | if is_wanted { bit } else { 0 });
        }
        drop(guard);
        within_patience(|| (self.read(register::STATUS) & bit != 0) == is_wanted)
    }

    /// Hands descriptors over, and gives the number that the unit stores when it has done them.
    fn begin(&self, descriptors: &[Descriptor]) -> u32 {
        let encode = |descriptor: &Descriptor| descriptor.encode(self.capability);
        let records: heapless::Vec<_, MOST_RECORDS> = descriptors.iter().map(encode).collect();
        let wait = |address, value| Descriptor::Wait { address, value }.encode(self.capability);
        self.queue.begin(&records, wait, Maddr::new(self.registers.number() + register::QUEUE_TAIL))
    }

    /// Entries of devices before translations, or those would come back by the old entries (6.5.2.9).
    fn forget_all(&self) -> Result<(), Stuck> {
        self.queue.wait(self.begin(&[Descriptor::ForgetDevices, Descriptor::ForgetAll]))
    }

    fn enable(&self) -> Result<(), Stuck> {
        self.forget_all()?;
        self.turn(command::TRANSLATE, true)
    }

    fn disable(&self) -> Result<(), Stuck> {
        self.turn(command::TRANSLATE, false)?;
        self.turn(command::QUEUE, false)
    }

    /// Takes recorded faults out, at most as many as there is room for.
    fn take_events(&self, each: &mut impl FnMut(Event)) {
        let guard = self.log.lock();
        for number in 0..self.capability.fault_count() {
            let at = self.capability.fault_records() + number * fault::RECORD_BYTES;
            let words = [0, 4, 8, 12].map(|word| self.read(at + word));
            if let Some(found) = Fault::decode(words) {
                self.write(at + 12, fault::RECORDED);
                each(event(found));
            }
        }
        // A queue that has come to a bad descriptor stays as it is: whoever waits for it gives up.
        self.write(register::FAULT_STATUS, fault::OVERFLOW);
        drop(guard);
    }
}

/// Whether a unit can do what is needed.
fn needs(capability: Capability, extended: Extended) -> Result<(), Refusal> {
    let wanted = [
        (capability.has_four_levels(), "tables of four levels"),
        (capability.has_large_pages(), "pages of 2 MiB and 1 GiB"),
        (extended.has_queue(), "a queue of invalidations"),
        (!capability.needs_write_buffer_flush(), "a chipset that writes by itself what it buffers"),
        (
            capability.fault_records() + capability.fault_count() * fault::RECORD_BYTES <= register::BYTES,
            "records of faults in its first page",
        ),
    ];
    wanted.into_iter().find(|(is_there, _)| !is_there).map_or(Ok(()), |(_, what)| Err(Refusal::Lacks(what)))
}

/// As the event of whichever maker.
fn event(Fault { device, address, is_write, reason }: Fault) -> Event {
    // No entry for the bus, none for the device, or no right in the tables (table 34).
    let kind =
        if matches!(reason, 1 | 2 | 5 | 6) { EventKind::PageFault { is_write } } else { EventKind::Other(reason) };
    Event { kind, device, address }
}

/// All units, and the tables that they share.
#[derive(Debug)]
pub(super) struct Units {
    root: Mfn,
    contexts: Mfn,
    units: heapless::Vec<Unit, MAX_UNITS>,
}

impl Units {
    /// Without units, and with all devices blocked.
    pub(super) fn try_new() -> Result<Self, OutOfMemory> {
        let root = allocate(0).ok_or(OutOfMemory)?;
        let Some(contexts) = allocate(0) else {
            frame::free(root, 0);
            return Err(OutOfMemory);
        };
        let all = Self { root, contexts, units: heapless::Vec::new() };
        fill(root, codec::root_entry(contexts.address().number()));
        all.set_entries(None);
        Ok(all)
    }

    /// Sets a unit up; it stays off.
    pub(super) fn add(&mut self, registers: Maddr) -> Result<(), Refusal> {
        if self.units.is_full() {
            return Err(Refusal::TooMany);
        }
        let unit = Unit::try_new(registers)?;
        let result = unit.set_up(self.root);
        // It knows of our pages now, whatever came of it, so it is kept for `free`.
        self.units.push(unit).map_err(|_| Refusal::TooMany)?;
        result.map_err(|Stuck| Refusal::Stuck)
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// All devices go through the tables at `root`, or reach nothing.
    pub(super) fn set_entries(&self, root: Option<IoRoot>) {
        let entry = root.map_or(codec::blocked_entry(), |root| {
            arch::write_back(root.mfn());
            codec::translated_entry(root.mfn().address().number(), DOMAIN)
        });
        fill(self.contexts, entry);
    }

    pub(super) fn enable(&self) -> Result<(), Stuck> {
        self.units.iter().try_for_each(Unit::enable)
    }

    /// One that does not answer stays as it is: its caller knows by then.
    pub(super) fn disable(&self) {
        for unit in &self.units {
            let _ignored = unit.disable();
        }
    }

    pub(super) fn forget_devices(&self) -> Result<(), Stuck> {
        self.units.iter().try_for_each(Unit::forget_all)
    }

    pub(super) fn forget(&self, what: Forget) -> Result<(), Stuck> {
        let descriptor = match what {
            Forget::Page(gfn) => Descriptor::ForgetPage { domain: DOMAIN, address: gfn.address().number() },
            Forget::All => Descriptor::ForgetDomain(DOMAIN),
        };
        tell_all(&self.units, |unit| &unit.queue, |unit| unit.begin(&[descriptor]))
    }

    /// Lets faults of a unit interrupt. False if there is no such unit.
    pub(super) fn give_message(&self, unit: usize, address: u32, data: u32) -> bool {
        let Some(unit) = self.units.get(unit) else { return false };
        unit.write(register::FAULT_DATA, data);
        unit.write(register::FAULT_ADDRESS, address);
        unit.write(register::FAULT_UPPER, 0);
        unit.write(register::FAULT_CONTROL, 0);
        true
    }

    pub(super) fn take_events(&self, each: &mut impl FnMut(Event)) {
        for unit in &self.units {
            unit.take_events(each);
        }
    }

    /// Turns all units off, and gives all pages back but for those of a unit that does not answer: it may reach them yet (INV-2).
    pub(super) fn free(&mut self) {
        let mut are_all_off = true;
        for unit in core::mem::take(&mut self.units) {
            if unit.disable().is_ok() {
                unit.queue.free();
            } else {
                are_all_off = false;
            }
        }
        if are_all_off {
            [self.root, self.contexts].into_iter().for_each(|page| frame::free(page, 0));
        }
    }
}

/// Makes all entries of a table the same. The word that makes an entry valid comes last.
fn fill(table: Mfn, entry: [u64; ENTRY_WORDS]) {
    for words in page_words(table).as_chunks::<ENTRY_WORDS>().0 {
        for (word, value) in words.iter().zip(entry).rev() {
            word.store(value, Ordering::Release);
        }
    }
    arch::write_back(table);
}

//! What AMD's IOMMU reads and writes in memory, and its registers: device table entries, commands, events. Pure.
//! (AMD I/O Virtualization Technology Specification 48882, revision 3.10: 2.2.2 device table, 2.4 commands, 2.5 event log,
//! 3.4 registers.)
//!
//! Before this: `iommu`, which composes and takes apart. After it: the hardware, or `fake::iommu`, which plays it.

/// Registers, as offsets from the unit's base.
pub mod register {
    /// Where the device table is, and its pages less one.
    pub const DEVICE_TABLE: u64 = 0x00;
    /// Where the commands are, and log2 of their number from bit 56 on.
    pub const COMMAND_BASE: u64 = 0x08;
    /// The same for events.
    pub const EVENT_BASE: u64 = 0x10;
    /// What is turned on: [`super::control`].
    pub const CONTROL: u64 = 0x18;
    /// What the unit can do: [`super::feature`].
    pub const FEATURES: u64 = 0x30;
    /// The next command that the unit fetches, in bytes.
    pub const COMMAND_HEAD: u64 = 0x2000;
    /// Behind the last command, in bytes.
    pub const COMMAND_TAIL: u64 = 0x2008;
    /// The next event that software reads, in bytes.
    pub const EVENT_HEAD: u64 = 0x2010;
    /// Behind the last event, in bytes.
    pub const EVENT_TAIL: u64 = 0x2018;
    /// What has happened: [`super::status`].
    pub const STATUS: u64 = 0x2020;
    /// Bytes from the base to behind the last register that is used here; units are aligned to as many.
    pub const BYTES: u64 = 0x4000;
}

/// Bits of the control register.
pub mod control {
    /// Accesses of devices are translated.
    pub const ENABLE: u64 = 1 << 0;
    /// Also those through a HyperTransport tunnel.
    pub const TUNNEL: u64 = 1 << 1;
    /// Events are logged.
    pub const EVENT_LOG: u64 = 1 << 2;
    /// Events interrupt.
    pub const EVENT_INTERRUPT: u64 = 1 << 3;
    /// Requests may pass posted writes.
    pub const PASS_WRITES: u64 = 1 << 8;
    /// Responses may, too.
    pub const RESPONSES_PASS_WRITES: u64 = 1 << 9;
    /// The unit's own reads see what is in caches.
    pub const COHERENT: u64 = 1 << 10;
    /// The unit's own requests are isochronous.
    pub const ISOCHRONOUS: u64 = 1 << 11;
    /// Commands are fetched.
    pub const COMMANDS: u64 = 1 << 12;
}

/// Bits of the feature register.
pub mod feature {
    /// There is a command that forgets everything.
    pub const INVALIDATE_ALL: u64 = 1 << 6;
}

/// Bits of the status register; writing 1 clears them.
pub mod status {
    /// An event did not fit into the log.
    pub const EVENT_OVERFLOW: u64 = 1 << 0;
    /// An event was logged.
    pub const EVENT_INTERRUPT: u64 = 1 << 1;
}

/// Words of a device table entry, of 64 bits.
pub const ENTRY_WORDS: usize = 4;
/// Bytes of a device table entry.
pub const ENTRY_BYTES: u64 = 32;
/// Entries of a table that has one for every device of a segment.
pub const ENTRIES: u64 = 0x1_0000;

const VALID: u64 = 1 << 0;
const TRANSLATION_VALID: u64 = 1 << 1;
const MODE_SHIFT: u32 = 9;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;
/// Levels of the tables that this hypervisor makes.
const LEVELS: u64 = 4;

/// Settings of a device that firmware asks for (IVHD, data of a device entry; 48882, table 90): which special interrupts and
/// system messages of the device are let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings(pub u8);

impl Settings {
    /// Bits of the entry's second word: system management messages (bits 105:104 of the entry).
    const fn second(self) -> u64 {
        ((self.0 >> 4 & 3) as u64) << 40
    }

    /// Bits of the entry's third word: INIT, external interrupts, NMI, LINT0 and LINT1 pass (bits 186:184 and 191:190).
    const fn third(self) -> u64 {
        ((self.0 & 7) as u64) << 56 | ((self.0 >> 6 & 3) as u64) << 62
    }
}

/// The entry of a device that may reach nothing. Interrupts are not remapped: they pass, as all entries here let them.
pub const fn blocked_entry(settings: Settings) -> [u64; ENTRY_WORDS] {
    // Without a right in the entry nothing below it is looked at.
    [VALID | TRANSLATION_VALID, settings.second(), settings.third(), 0]
}

/// The entry of a device whose accesses go through the four-level tables at `root` (a multiple of 4096 below 2^52), cached
/// under the number `domain`.
pub const fn translated_entry(root: u64, domain: u16, settings: Settings) -> [u64; ENTRY_WORDS] {
    let first = VALID | TRANSLATION_VALID | LEVELS << MODE_SHIFT | root | READ | WRITE;
    [first, domain as u64 | settings.second(), settings.third(), 0]
}

/// What a unit is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// When everything before this is done, store `value` at `address` (a multiple of 8).
    Wait {
        /// Where.
        address: u64,
        /// What.
        value: u64,
    },
    /// Forget a device's entry.
    ForgetDevice(u16),
    /// Forget one page of a domain, and pointers to the tables on the way to it.
    ForgetPage {
        /// Of which domain.
        domain: u16,
        /// Where the page begins.
        address: u64,
    },
    /// Forget everything of a domain, pointers to tables included.
    ForgetDomain(u16),
    /// Forget everything.
    ForgetAll,
}

const STORE: u64 = 1;
/// The address that stands for all, together with the bit that says that more than a page is meant.
const ALL_PAGES: u64 = 0x7fff_ffff_ffff_f000;
const MORE_THAN_A_PAGE: u64 = 1 << 0;
const TABLES_TOO: u64 = 1 << 1;

impl Command {
    /// Its two words.
    pub const fn encode(self) -> [u64; 2] {
        const fn code(number: u64) -> u64 {
            number << 60
        }
        match self {
            Self::Wait { address, value } => [code(1) | address & 0x000f_ffff_ffff_fff8 | STORE, value],
            Self::ForgetDevice(device) => [code(2) | device as u64, 0],
            Self::ForgetPage { domain, address } => [code(3) | (domain as u64) << 32, address & !0xfff | TABLES_TOO],
            Self::ForgetDomain(domain) => [code(3) | (domain as u64) << 32, ALL_PAGES | TABLES_TOO | MORE_THAN_A_PAGE],
            Self::ForgetAll => [code(8), 0],
        }
    }
}

/// What a unit has logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// The device, if the kind has one: bus in bits 15:8, device in 7:3, function in 2:0.
    pub device: u16,
    /// The address that the device used, or where the unit had trouble.
    pub address: u64,
}

/// Kinds of events (48882, table 60).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// The device's entry makes no sense.
    IllegalEntry,
    /// The device may not do this.
    PageFault {
        /// It wanted to write, or else to read.
        is_write: bool,
    },
    /// The device table could not be read.
    TableError,
    /// A page table could not be read.
    PageTableError,
    /// A command makes no sense.
    IllegalCommand,
    /// A command could not be read.
    CommandError,
    /// A device did not answer an invalidation in time.
    Timeout,
    /// The device asked for something that no device may.
    InvalidRequest,
    /// Another code.
    Other(u8),
}

impl Event {
    /// From its two words; `None` while the unit has not written it (48882, 2.5: the code is 0 then).
    pub const fn decode([first, address]: [u64; 2]) -> Option<Self> {
        let kind = match (first >> 60) as u8 {
            0 => return None,
            1 => EventKind::IllegalEntry,
            // Bits 63:48 hold the code and flags; RW is flag 5 of them.
            2 => EventKind::PageFault { is_write: first >> 53 & 1 != 0 },
            3 => EventKind::TableError,
            4 => EventKind::PageTableError,
            5 => EventKind::IllegalCommand,
            6 => EventKind::CommandError,
            7 => EventKind::Timeout,
            8 => EventKind::InvalidRequest,
            other => EventKind::Other(other),
        };
        Some(Self { kind, device: (first & 0xffff) as u16, address })
    }
}

impl core::fmt::Display for EventKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::IllegalEntry => write!(f, "its entry makes no sense"),
            Self::PageFault { is_write: true } => write!(f, "it may not write"),
            Self::PageFault { is_write: false } => write!(f, "it may not read"),
            Self::TableError => write!(f, "the device table cannot be read"),
            Self::PageTableError => write!(f, "a page table cannot be read"),
            Self::IllegalCommand => write!(f, "a command makes no sense"),
            Self::CommandError => write!(f, "a command cannot be read"),
            Self::Timeout => write!(f, "it does not answer"),
            Self::InvalidRequest => write!(f, "no device may ask for that"),
            Self::Other(code) => write!(f, "event {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_the_manual_says() {
        assert_eq!(translated_entry(0x1234_5000, 7, Settings(0)), [0x6000_0000_1234_5803, 7, 0, 0]);
        assert_eq!(blocked_entry(Settings(0)), [3, 0, 0, 0]);
        // INIT, external, NMI; system management; LINT0, LINT1.
        assert_eq!(translated_entry(0, 1, Settings(0xff))[1], 1 | 3 << 40);
        assert_eq!(translated_entry(0, 1, Settings(0xff))[2], 0xc700_0000_0000_0000);
        assert_eq!(blocked_entry(Settings(0x42))[2], 1 << 57 | 1 << 62);
    }

    #[test]
    fn commands_are_what_the_manual_says() {
        let wait = Command::Wait { address: 0x1_2345_6788, value: 9 };
        assert_eq!(wait.encode(), [0x1000_0001_2345_6789, 9]);
        assert_eq!(Command::ForgetDevice(0x0108).encode(), [0x2000_0000_0000_0108, 0]);
        let page = Command::ForgetPage { domain: 3, address: 0x7777_7123 };
        assert_eq!(page.encode(), [0x3000_0003_0000_0000, 0x7777_7002]);
        assert_eq!(Command::ForgetDomain(3).encode(), [0x3000_0003_0000_0000, 0x7fff_ffff_ffff_f003]);
        assert_eq!(Command::ForgetAll.encode(), [0x8000_0000_0000_0000, 0]);
    }

    #[test]
    fn events_are_read_as_the_manual_says() {
        assert_eq!(Event::decode([0, 0x1000]), None);
        let fault = Event::decode([0x2 << 60 | 1 << 53 | 0x0018, 0xdead_b000]).unwrap();
        let kind = EventKind::PageFault { is_write: true };
        assert_eq!(fault, Event { kind, device: 0x18, address: 0xdead_b000 });
        for code in 1..16u64 {
            assert!(Event::decode([code << 60, 0]).is_some());
        }
        assert_eq!(Event::decode([0xf << 60, 0]).unwrap().kind, EventKind::Other(15));
    }
}

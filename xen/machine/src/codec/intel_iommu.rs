//! What Intel's IOMMU reads and writes in memory, and its registers: root and context entries, queued invalidations, recorded
//! faults. Pure.
//! (Intel Virtualization Technology for Directed I/O, revision 4.1, legacy mode: 9.1 and 9.3 entries, 6.5.2 queued invalidation,
//! 7.2 faults, 11.4 registers.)
//!
//! Before this: `iommu::intel`, which composes and takes apart. After it: the hardware, or `fake::iommu_intel`, which plays it.

/// Registers, as offsets from the unit's base.
pub mod register {
    /// What the unit can do: [`super::Capability`].
    pub const CAPABILITY: u64 = 0x08;
    /// What else: [`super::Extended`].
    pub const EXTENDED: u64 = 0x10;
    /// What is to be done or turned on: [`super::command`], 32 bits.
    pub const COMMAND: u64 = 0x18;
    /// What has been done or is on: the same bits, 32 of them.
    pub const STATUS: u64 = 0x1c;
    /// Where the root table is.
    pub const ROOT: u64 = 0x20;
    /// What has gone wrong: [`super::fault`], 32 bits.
    pub const FAULT_STATUS: u64 = 0x34;
    /// Whether that interrupts, 32 bits.
    pub const FAULT_CONTROL: u64 = 0x38;
    /// The interrupt's message: its data.
    pub const FAULT_DATA: u64 = 0x3c;
    /// The low half of its address.
    pub const FAULT_ADDRESS: u64 = 0x40;
    /// The high half.
    pub const FAULT_UPPER: u64 = 0x44;
    /// Memory that no device reaches, 32 bits: bit 31 turns it on, bit 0 says that it is.
    pub const PROTECTED: u64 = 0x64;
    /// Behind the last descriptor of the queue, in bytes.
    pub const QUEUE_TAIL: u64 = 0x88;
    /// Where the queue is, and log2 of its pages.
    pub const QUEUE_BASE: u64 = 0x90;
    /// Bytes to behind the last register at a fixed place; units are aligned to as many.
    pub const BYTES: u64 = 0x1000;
}

/// Bits of the command register. Those of what is on have to be repeated at each write; the others do something once.
pub mod command {
    /// Accesses of devices are translated.
    pub const TRANSLATE: u32 = 1 << 31;
    /// Once: take the root table's address.
    pub const SET_ROOT: u32 = 1 << 30;
    /// Descriptors are fetched from the queue.
    pub const QUEUE: u32 = 1 << 26;
    /// Interrupts are remapped.
    pub const REMAP: u32 = 1 << 25;
    /// What the status register has that is not done once: all but the pointers' and the buffers' bits (11.4.4.1).
    pub const LASTING: u32 = 0x96ff_ffff;
}

/// Bits of the fault registers.
pub mod fault {
    /// Status: a fault found no room. Writing 1 clears it.
    pub const OVERFLOW: u32 = 1 << 0;
    /// Control: faults do not interrupt.
    pub const MASKED: u32 = 1 << 31;
    /// The word of a record that holds this bit says whether there is a record; writing 1 clears it.
    pub const RECORDED: u32 = 1 << 31;
    /// Bytes of a record.
    pub const RECORD_BYTES: u64 = 16;
}

/// The capability register (11.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability(pub u64);

impl Capability {
    /// Whether changes in memory have to be pushed out of the unit's chipset by hand.
    pub const fn needs_write_buffer_flush(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    /// Whether there is memory that no device reaches while that is turned on.
    pub const fn has_protected_memory(self) -> bool {
        self.0 >> 5 & 3 != 0
    }

    /// Whether it walks tables of four levels.
    pub const fn has_four_levels(self) -> bool {
        self.0 >> 10 & 1 != 0
    }

    /// Where the records of faults are.
    pub const fn fault_records(self) -> u64 {
        (self.0 >> 24 & 0x3ff) * 16
    }

    /// How many there are.
    pub const fn fault_count(self) -> u64 {
        (self.0 >> 40 & 0xff) + 1
    }

    /// Whether entries can stand for 2 MiB and for 1 GiB.
    pub const fn has_large_pages(self) -> bool {
        self.0 >> 34 & 3 == 3
    }

    /// Whether single pages can be forgotten.
    pub const fn forgets_pages(self) -> bool {
        self.0 >> 39 & 1 != 0
    }

    /// Whether it can wait for writes, and for reads, that are under way: the bits of a descriptor that ask for it.
    const fn drain(self) -> u64 {
        let (writes, reads) = (self.0 >> 54 & 1, self.0 >> 55 & 1);
        writes << 6 | reads << 7
    }
}

/// The extended capability register (11.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extended(pub u64);

impl Extended {
    /// Whether invalidations can be queued.
    pub const fn has_queue(self) -> bool {
        self.0 >> 1 & 1 != 0
    }
}

/// Words of a root and of a context entry, of 64 bits.
pub const ENTRY_WORDS: usize = 2;
const PRESENT: u64 = 1 << 0;
/// Four levels.
const ADDRESS_WIDTH: u64 = 2;

/// The entry of a bus, whose devices have their entries in the table at `contexts` (a multiple of 4096 below 2^52).
pub const fn root_entry(contexts: u64) -> [u64; ENTRY_WORDS] {
    [contexts | PRESENT, 0]
}

/// The entry of a device that may reach nothing.
pub const fn blocked_entry() -> [u64; ENTRY_WORDS] {
    [0, 0]
}

/// The entry of a device whose accesses go through the four-level tables at `root` (a multiple of 4096 below 2^52), cached
/// under the number `domain`.
pub const fn translated_entry(root: u64, domain: u16) -> [u64; ENTRY_WORDS] {
    [root | PRESENT, (domain as u64) << 8 | ADDRESS_WIDTH]
}

/// Bytes of a descriptor in the queue.
pub const DESCRIPTOR_BYTES: u64 = 16;

/// What a unit is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descriptor {
    /// When everything before this is done, store `value` at `address` (a multiple of 4).
    Wait {
        /// Where.
        address: u64,
        /// What.
        value: u32,
    },
    /// Forget all entries of devices.
    ForgetDevices,
    /// Forget one page of a domain, and pointers to the tables on the way to it.
    ForgetPage {
        /// Of which domain.
        domain: u16,
        /// Where the page begins.
        address: u64,
    },
    /// Forget everything of a domain, pointers to tables included.
    ForgetDomain(u16),
    /// Forget all translations.
    ForgetAll,
}

impl Descriptor {
    /// Its two words, for a unit with these capabilities.
    pub const fn encode(self, capability: Capability) -> [u64; 2] {
        const CONTEXT: u64 = 1;
        const TRANSLATIONS: u64 = 2;
        const WAIT: u64 = 5;
        const GLOBAL: u64 = 1 << 4;
        const OF_DOMAIN: u64 = 2 << 4;
        const OF_PAGE: u64 = 3 << 4;
        const STORE: u64 = 1 << 5;
        let translations = TRANSLATIONS | capability.drain();
        match self {
            Self::Wait { address, value } => [(value as u64) << 32 | STORE | WAIT, address & !3],
            Self::ForgetDevices => [CONTEXT | GLOBAL, 0],
            Self::ForgetPage { domain, address } if capability.forgets_pages() => {
                [translations | OF_PAGE | (domain as u64) << 16, address & !0xfff]
            }
            Self::ForgetPage { domain, .. } | Self::ForgetDomain(domain) => {
                [translations | OF_DOMAIN | (domain as u64) << 16, 0]
            }
            Self::ForgetAll => [translations | GLOBAL, 0],
        }
    }
}

/// An access that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The device: bus in bits 15:8, device in 7:3, function in 2:0.
    pub device: u16,
    /// The page that it wanted.
    pub address: u64,
    /// Whether it wanted to write, or else to read.
    pub is_write: bool,
    /// Why (7.2.3, table 34).
    pub reason: u8,
}

impl Fault {
    /// From the four words of a record; `None` if there is none in it.
    pub const fn decode(words: [u32; 4]) -> Option<Self> {
        if words[3] & fault::RECORDED == 0 {
            return None;
        }
        let address = (words[0] as u64 | (words[1] as u64) << 32) & !0xfff;
        let (device, reason) = ((words[2] & 0xffff) as u16, (words[3] & 0xff) as u8);
        Some(Self { device, address, is_write: words[3] >> 30 & 1 == 0, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU's unit says of itself.
    const CAPABILITY: Capability = Capability(0x00d2_008c_222f_0686);

    #[test]
    fn entries_are_what_the_manual_says() {
        assert_eq!(root_entry(0x1234_5000), [0x1234_5001, 0]);
        assert_eq!(translated_entry(0x1234_5000, 7), [0x1234_5001, 0x702]);
        assert_eq!(blocked_entry()[0] & 1, 0);
    }

    #[test]
    fn capabilities_are_read_as_the_manual_says() {
        assert!(CAPABILITY.has_four_levels() && CAPABILITY.has_large_pages() && CAPABILITY.forgets_pages());
        assert!(!CAPABILITY.needs_write_buffer_flush() && !CAPABILITY.has_protected_memory());
        assert_eq!((CAPABILITY.fault_records(), CAPABILITY.fault_count()), (0x220, 1));
        assert!(Capability(1 << 4).needs_write_buffer_flush());
        assert!(Capability(1 << 5).has_protected_memory() && Capability(1 << 6).has_protected_memory());
        assert!(!Capability(1 << 9).has_four_levels(), "39 bits are three levels");
        assert!(!Capability(1 << 34).has_large_pages());
        assert!(Extended(0xf0_0f4a).has_queue() && !Extended(1).has_queue());
    }

    #[test]
    fn descriptors_are_what_the_manual_says() {
        let encode = |descriptor: Descriptor| descriptor.encode(CAPABILITY);
        assert_eq!(encode(Descriptor::Wait { address: 0x1_2345_6784, value: 9 }), [0x9_0000_0025, 0x1_2345_6784]);
        assert_eq!(encode(Descriptor::ForgetDevices), [0x11, 0]);
        let page = Descriptor::ForgetPage { domain: 3, address: 0x7777_7123 };
        assert_eq!(encode(page), [0x3_00f2, 0x7777_7000]);
        assert_eq!(encode(Descriptor::ForgetDomain(3)), [0x3_00e2, 0]);
        assert_eq!(encode(Descriptor::ForgetAll), [0xd2, 0]);
        // What a unit cannot do is not asked of it.
        let plain = Capability(0);
        assert_eq!(page.encode(plain), [0x3_0022, 0]);
        assert_eq!(Descriptor::ForgetAll.encode(plain), [0x12, 0]);
    }

    #[test]
    fn faults_are_read_as_the_manual_says() {
        assert_eq!(Fault::decode([0x1000, 0, 0x18, 5]), None);
        let read = Fault::decode([0xdead_bfff, 1, 0x18, 0xc000_0006]).unwrap();
        assert_eq!(read, Fault { device: 0x18, address: 0x1_dead_b000, is_write: false, reason: 6 });
        assert!(Fault::decode([0, 0, 0, 0x8000_0005]).unwrap().is_write);
    }
}

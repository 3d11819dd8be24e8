//! What a guest frame is: the neutral entry, of which the hardware's entries are encodings.
//!
//! Every rule of the form "which kinds may …" is a method here and nowhere else. What comes before: nothing. What comes
//! after: the formats, which turn an [`Entry`] into bits and back, and the verbs of `memory`, which change entries.

use machine::Mfn;

/// What a guest frame is (memory-engine.md, 6.2). The numbers are stored in page-table entries; 0 must be `Hole`, so that
/// an empty table means nothing but holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Nothing. An access is emulated, or brings a mapping about in the domain that owns the hardware.
    Hole = 0,
    /// Ordinary RAM of the domain.
    RamRw = 1,
    /// RAM whose next write shall be noticed.
    RamLogDirty = 2,
    /// RAM that the guest may not write; its writes are dropped.
    RamRo = 3,
    /// RAM on its way out: readable until its content is saved.
    PagingOut = 4,
    /// The content is with the pager.
    Paged = 5,
    /// The content was asked back from the pager.
    PagingIn = 6,
    /// RAM that comes into being at the first access.
    PopulateOnDemand = 7,
    /// RAM that several domains read; a write makes a copy.
    CopyOnWrite = 8,
    /// A page of another domain.
    Foreign = 9,
    /// A page that another domain granted for reading and writing.
    GrantRw = 10,
    /// A page that another domain granted for reading.
    GrantRo = 11,
    /// Device memory.
    MmioDirect = 12,
    /// Memory that a device of the domain needs at equal guest and machine addresses.
    IdentityRdm = 13,
    /// As `IdentityRdm`, while no device of the domain needs it: nothing may be put here.
    RdmHole = 14,
    /// RAM whose content was lost to an error.
    Broken = 15,
    /// A hole of a 1:1 domain whose machine frame is kept for the same guest frame.
    Reserved = 16,
    /// Emulated device memory: never filled by a fault.
    MmioDm = 17,
    /// A page of the hypervisor that the domain shares with it: shared_info, grant table.
    SharedPage = 18,
    /// A page of another domain that may not be written.
    ForeignRo = 19,
}

bitflags::bitflags! {
    /// What an access may do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Rights: u8 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Fetch instructions.
        const EXECUTE = 1 << 2;
    }
}

impl Kind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 20] = [
        Self::Hole,
        Self::RamRw,
        Self::RamLogDirty,
        Self::RamRo,
        Self::PagingOut,
        Self::Paged,
        Self::PagingIn,
        Self::PopulateOnDemand,
        Self::CopyOnWrite,
        Self::Foreign,
        Self::GrantRw,
        Self::GrantRo,
        Self::MmioDirect,
        Self::IdentityRdm,
        Self::RdmHole,
        Self::Broken,
        Self::Reserved,
        Self::MmioDm,
        Self::SharedPage,
        Self::ForeignRo,
    ];

    /// The number in table entries, below 32.
    #[inline]
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The kind with a number; numbers that no kind has are holes, because nothing writes them.
    #[inline]
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::RamRw,
            2 => Self::RamLogDirty,
            3 => Self::RamRo,
            4 => Self::PagingOut,
            5 => Self::Paged,
            6 => Self::PagingIn,
            7 => Self::PopulateOnDemand,
            8 => Self::CopyOnWrite,
            9 => Self::Foreign,
            10 => Self::GrantRw,
            11 => Self::GrantRo,
            12 => Self::MmioDirect,
            13 => Self::IdentityRdm,
            14 => Self::RdmHole,
            15 => Self::Broken,
            16 => Self::Reserved,
            17 => Self::MmioDm,
            18 => Self::SharedPage,
            19 => Self::ForeignRo,
            _ => Self::Hole,
        }
    }

    /// What the guest may do with it directly.
    #[inline]
    pub const fn rights(self) -> Rights {
        match self {
            Self::RamRw | Self::MmioDirect => Rights::all(),
            Self::RamLogDirty | Self::RamRo | Self::PagingOut | Self::CopyOnWrite => {
                Rights::READ.union(Rights::EXECUTE)
            }
            Self::Foreign | Self::GrantRw | Self::IdentityRdm | Self::SharedPage => Rights::READ.union(Rights::WRITE),
            Self::GrantRo | Self::ForeignRo => Rights::READ,
            Self::Hole
            | Self::Paged
            | Self::PagingIn
            | Self::PopulateOnDemand
            | Self::RdmHole
            | Self::Broken
            | Self::Reserved
            | Self::MmioDm => Rights::empty(),
        }
    }

    /// Whether a machine frame belongs to it.
    #[inline]
    pub const fn has_frame(self) -> bool {
        self.holds_reference() || matches!(self, Self::MmioDirect | Self::IdentityRdm)
    }

    /// Whether the entry holds a reference to a counted frame.
    #[inline]
    pub const fn holds_reference(self) -> bool {
        matches!(
            self,
            Self::RamRw
                | Self::RamLogDirty
                | Self::RamRo
                | Self::PagingOut
                | Self::CopyOnWrite
                | Self::Foreign
                | Self::ForeignRo
                | Self::GrantRw
                | Self::GrantRo
                | Self::Broken
                | Self::Reserved
                | Self::SharedPage
        )
    }

    /// Whether it is the domain's own RAM, which its account is charged for and which others may be given access to.
    #[inline]
    pub const fn is_own_ram(self) -> bool {
        matches!(self, Self::RamRw | Self::RamLogDirty | Self::RamRo | Self::PagingOut)
    }

    /// Whether it is a page of another domain.
    #[inline]
    pub const fn is_of_others(self) -> bool {
        matches!(self, Self::Foreign | Self::ForeignRo | Self::GrantRw | Self::GrantRo)
    }

    /// Whether it is a page that another domain granted: the right to it ends when its granter is told so.
    #[inline]
    pub const fn is_granted(self) -> bool {
        matches!(self, Self::GrantRw | Self::GrantRo)
    }

    /// Whether the hypervisor can read it for the domain or others.
    #[inline]
    pub const fn is_readable_ram(self) -> bool {
        self.is_own_ram() || self.is_of_others() || matches!(self, Self::CopyOnWrite | Self::SharedPage)
    }

    /// Whether the hypervisor may write it for the domain. A write to `RamLogDirty` marks the frame dirty.
    #[inline]
    pub const fn is_writable_ram(self) -> bool {
        matches!(self, Self::RamRw | Self::RamLogDirty | Self::Foreign | Self::GrantRw | Self::SharedPage)
    }

    /// Whether only assigning and taking away devices may change it (INV-4).
    #[inline]
    pub const fn is_pinned_by_devices(self) -> bool {
        matches!(self, Self::IdentityRdm | Self::RdmHole)
    }
}

/// How introspection has narrowed a frame's rights; the numbers are those of `XENMEM_access_*` (public/memory.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
#[expect(missing_docs, reason = "named after the rights: r, w, x")]
pub enum MemoryAccess {
    N = 0,
    R = 1,
    W = 2,
    Rw = 3,
    X = 4,
    Rx = 5,
    Wx = 6,
    #[default]
    Rwx = 7,
    /// Read and execute; the first write makes it read and write.
    Rx2rw = 8,
    /// None; the first access makes it all.
    N2rwx = 9,
}

impl MemoryAccess {
    /// The number in table entries: 0 for no restriction.
    #[inline]
    pub const fn code(self) -> u64 {
        let number = self as u64;
        if number < 8 { number ^ 7 } else { number }
    }

    /// What a number in a table entry means.
    #[inline]
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Wx,
            2 => Self::Rx,
            3 => Self::X,
            4 => Self::Rw,
            5 => Self::W,
            6 => Self::R,
            7 => Self::N,
            8 => Self::Rx2rw,
            9 => Self::N2rwx,
            _ => Self::Rwx,
        }
    }

    /// The rights that it leaves.
    #[inline]
    pub const fn rights(self) -> Rights {
        match self {
            Self::Rx2rw => Rights::READ.union(Rights::EXECUTE),
            Self::N2rwx => Rights::empty(),
            other => Rights::from_bits_truncate(other as u8),
        }
    }
}

/// log2 of the pages that an entry of each level spans: 4 KiB, 2 MiB, 1 GiB; holes also 512 GiB.
pub const ORDER_4K: u32 = 0;
/// As [`ORDER_4K`], for 2 MiB.
pub const ORDER_2M: u32 = 9;
/// As [`ORDER_4K`], for 1 GiB.
pub const ORDER_1G: u32 = 18;

/// What a range of `1 << order` guest frames is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What the frames are.
    pub kind: Kind,
    /// How introspection has narrowed their rights.
    pub access: MemoryAccess,
    /// log2 of the frames: 0, 9 or 18; 27 for holes only.
    pub order: u32,
    /// The first machine frame, if the kind has one; else 0.
    pub mfn: Mfn,
}

impl Entry {
    /// A hole of `1 << order` frames.
    pub const fn hole(order: u32) -> Self {
        Self::without_frame(Kind::Hole, order)
    }

    /// An entry of a kind that has no machine frame.
    pub const fn without_frame(kind: Kind, order: u32) -> Self {
        Self { kind, access: MemoryAccess::Rwx, order, mfn: Mfn::new(0) }
    }

    /// An entry of a kind that has a machine frame.
    pub const fn with_frame(kind: Kind, order: u32, mfn: Mfn) -> Self {
        Self { kind, access: MemoryAccess::Rwx, order, mfn }
    }

    /// What the guest may do with the frames directly. Without the right to read there are no others, because not every
    /// format can express that.
    #[inline]
    pub const fn rights(&self) -> Rights {
        let rights = self.kind.rights().intersection(self.access.rights());
        if rights.contains(Rights::READ) { rights } else { Rights::empty() }
    }

    /// The machine frame behind guest frame number `gfn`, which the entry covers.
    #[inline]
    pub const fn frame_at(&self, gfn: machine::Gfn) -> Mfn {
        self.mfn.saturating_add(gfn.number() & ((1 << self.order) - 1))
    }

    /// The part of the entry that covers `1 << order` frames with `gfn` among them; the entry itself if it is no larger.
    #[inline]
    pub const fn part_covering(&self, gfn: machine::Gfn, order: u32) -> Self {
        if self.order <= order {
            return *self;
        }
        self.part((gfn.number() & ((1 << self.order) - 1)) >> order, order)
    }

    /// The part of the entry for one of its frames or blocks: number `index` of those with `order`.
    pub const fn part(&self, index: u64, order: u32) -> Self {
        let mfn = if self.kind.has_frame() { self.mfn.saturating_add(index << order) } else { self.mfn };
        Self { order, mfn, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_accesses_survive_their_numbers() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(kind.number(), number);
            assert_eq!(Kind::from_number(number), kind);
        }
        assert_eq!(Kind::from_number(31), Kind::Hole);
        for number in 0..16 {
            let access = MemoryAccess::from_code(number);
            assert!(number > 9 || access.code() == number, "{access:?}");
        }
        assert_eq!(MemoryAccess::default().code(), 0, "an empty entry is unrestricted");
    }

    #[test]
    fn what_hardware_gives_is_what_the_kind_allows() {
        for kind in Kind::ALL {
            let entry = Entry::with_frame(kind, 0, Mfn::new(5));
            assert_eq!(entry.rights(), kind.rights());
            assert!(kind.rights().is_empty() || kind.has_frame(), "{kind:?} gives rights to nothing");
            assert!(!kind.is_writable_ram() || kind.is_readable_ram());
            assert!(!kind.is_own_ram() || kind.holds_reference());
            assert!(!kind.is_pinned_by_devices() || !kind.holds_reference());
        }
        let execute_only = Entry { access: MemoryAccess::X, ..Entry::with_frame(Kind::RamRw, 0, Mfn::new(5)) };
        assert_eq!(execute_only.rights(), Rights::empty(), "not every format can express it");
    }

    #[test]
    fn parts_keep_their_place() {
        let block = Entry::with_frame(Kind::RamRw, ORDER_1G, Mfn::new(1 << 18));
        assert_eq!(block.part(3, ORDER_2M).mfn, Mfn::new((1 << 18) + 3 * 512));
        assert_eq!(block.frame_at(machine::Gfn::new((7 << 18) + 77)), Mfn::new((1 << 18) + 77));
        assert_eq!(Entry::without_frame(Kind::Paged, ORDER_2M).part(3, ORDER_4K).mfn, Mfn::new(0));
    }
}

//! Pages of the tables that hardware walks for a guest (nested page tables, stage 2).
//!
//! The core composes attribute bits, but never an address: it names a child table or a target that this module has checked
//! against the frame table. So a wrong decision of the core can harm guests, never the hypervisor.
//!
//! Which entries point to tables is this module's own knowledge, too: it marks them with a bit that hardware ignores and that
//! nobody else can set. So going down a tree needs no look at the frame table. It also counts the entries of a table that are
//! in use, in the table's own record, so that an emptied one is found without a look at its 512 entries.

use crate::arch;
use crate::frame::{self, Fill, FrameInfo, Kind};
use crate::units::{DomId, Mfn};
use core::sync::atomic::{AtomicU64, Ordering};

/// Entries in a table.
pub const ENTRIES: usize = 512;

/// What the entries of a format look like, as far as safety depends on it. A tree keeps to one format.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The bits of which at least one is set in an entry that hardware follows.
    present: u64,
    /// The bits that hold an address.
    address: u64,
    /// The bits of which at least one is set in an entry that points to a table, and nowhere else.
    table: u64,
    /// Which of them, for a table of level 0 and, added to that, for each level above it.
    table_of_level: [u64; 2],
    /// Whether hardware may read entries past the processors' caches: what it shall see is written back to memory.
    is_written_back: bool,
}

impl Format {
    /// AMD's nested page tables (APM volume 2, 5.3.3): bits 58:52 are software's.
    pub const NPT: Self = Self::marked(1, 0x000f_ffff_ffff_f000, 1 << 58);
    /// Intel's extended page tables (SDM volume 3C, tables 29-1 to 29-6): bits 63:52 of an entry that points to a table are
    /// ignored.
    pub const EPT: Self = Self::marked(0b111, 0x000f_ffff_ffff_f000, 1 << 58);
    /// Arm's stage 2 (Arm ARM DDI 0487, D8.3.1): bits 58:51 of a table descriptor are ignored.
    pub const STAGE_2: Self = Self::marked(1, 0x0000_ffff_ffff_f000, 1 << 52);
    /// Tables of AMD's IOMMU (48882, 2.2.3): an entry says in bits 11:9 of which level the table is that it points to, counted
    /// from 1, or 0 if it is a page, as large as its place in the tree makes it.
    pub const AMD_IO: Self = Self {
        present: 1,
        address: 0x000f_ffff_ffff_f000,
        table: 7 << 9,
        table_of_level: [1 << 9, 1 << 9],
        is_written_back: false,
    };
    /// Second-level tables of Intel's IOMMU (VT-d revision 4.1, 9.8): bits 61:52 are ignored. Units may walk them past the caches
    /// (extended capability C).
    pub const INTEL_IO: Self = Self { is_written_back: true, ..Self::marked(0b11, 0x000f_ffff_ffff_f000, 1 << 58) };

    const fn marked(present: u64, address: u64, mark: u64) -> Self {
        Self { present, address, table: mark, table_of_level: [mark, 0], is_written_back: false }
    }

    /// Whether hardware follows an entry with these bits.
    #[inline]
    pub const fn is_present(&self, bits: u64) -> bool {
        bits & self.present != 0
    }

    /// Whether an entry with these bits points to a table.
    #[inline]
    pub const fn is_table(&self, bits: u64) -> bool {
        bits & self.table != 0
    }

    /// What an entry that points to a table of a level (0 to 3) has of the bits that say so.
    fn table_bits(&self, level: u32) -> u64 {
        let [first, step] = self.table_of_level;
        first + u64::from(level.min(3)) * step
    }

    /// The bits that this module alone decides.
    const fn own(&self) -> u64 {
        self.address | self.table
    }
}

/// What an entry is on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It points to this table.
    Table(TableRef<'a>),
    /// It does not: its bits.
    Other(u64),
}

/// A table page. Not `Copy`: whoever holds it owns the page, until it is put into an entry or freed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a table that is dropped is lost: free it or install it"]
pub struct Table(Mfn);

/// The top of a tree: the page at which the processor begins to walk. Only who owns a table that is in no other one can say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root(Mfn);

impl Root {
    /// Where hardware finds it.
    pub fn mfn(self) -> Mfn {
        self.0
    }
}

/// As [`Root`], for a tree of an IOMMU's format, at which its units begin to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoRoot(Mfn);

impl IoRoot {
    /// Where hardware finds it.
    pub fn mfn(self) -> Mfn {
        self.0
    }
}

/// A table page borrowed from the tree that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRef<'a>(Mfn, core::marker::PhantomData<&'a Table>);

/// What a leaf may point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// RAM that a guest owns or that is shared with guests (`Kind::Guest`, `Kind::Shared`).
    Ram(Mfn),
    /// Addresses that are no RAM: device memory, or what firmware keeps reserved.
    Device(Mfn),
}

/// A leaf could not be installed: its target is not what it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongTarget(pub Mfn);

impl Table {
    /// A page of empty entries, for a table of `owner`. `None` when memory is out.
    pub fn allocate(owner: DomId) -> Option<Self> {
        let mfn = frame::allocate(0, Kind::Table, owner, Fill::Zero)?;
        arch::with_frames(|frames| frames.info(mfn).map(|info| info.set_used(0)));
        Some(Self(mfn))
    }

    /// Where hardware finds it.
    pub fn mfn(&self) -> Mfn {
        self.0
    }

    /// The table as the top of a tree. It must stay one, and be freed only after all that translate through it.
    pub fn as_root(&self) -> Root {
        Root(self.0)
    }

    /// Gives the page back. Its children, if any, must have been taken out before.
    pub fn free(self) {
        frame::free(self.0, 0);
    }

    /// The table as the top of a tree through which devices go. As for [`Table::as_root`].
    pub fn as_io_root(&self) -> IoRoot {
        IoRoot(self.0)
    }

    /// Access to the entries.
    pub fn borrow(&self) -> TableRef<'_> {
        TableRef(self.0, core::marker::PhantomData)
    }
}

impl<'a> TableRef<'a> {
    #[inline]
    fn entry(self, index: usize) -> &'a AtomicU64 {
        let place = arch::page_address(self.0).cast::<AtomicU64>().wrapping_add(index % ENTRIES);
        // SAFETY: the page is a table's (`Table::allocate`), alive for 'a, and reached by atomics and the walker only.
        unsafe { &*place }
    }

    /// The entry's bits. `index` counts modulo 512.
    #[inline]
    pub fn get(self, index: usize) -> u64 {
        self.entry(index).load(Ordering::Relaxed)
    }

    /// Whether all entries are 0.
    #[inline]
    pub fn is_empty(self) -> bool {
        arch::with_frames(|frames| frames.info(self.0).is_none_or(|info| info.used() == 0))
    }

    /// Stores an entry, and counts the entries in use. Gives the old bits.
    #[inline]
    fn put(self, index: usize, bits: u64, format: &Format) -> u64 {
        let old = self.entry(index).swap(bits, Ordering::AcqRel);
        if format.is_written_back {
            arch::write_back_word(self.0, index % ENTRIES);
        }
        if (old == 0) != (bits == 0) {
            arch::with_frames(|frames| {
                let info = frames.info(self.0);
                if bits == 0 { info.map(FrameInfo::remove_used) } else { info.map(FrameInfo::add_used) }
            });
        }
        old
    }

    /// Looks at an entry, once.
    #[inline]
    pub fn step(self, index: usize, format: &Format) -> Step<'a> {
        let bits = self.get(index);
        if !format.is_table(bits) {
            return Step::Other(bits);
        }
        // Only `set_table` sets the mark, together with the address of a table that the tree owns from then on.
        Step::Table(Self(Mfn::new((bits & format.address) >> crate::PAGE_SHIFT), core::marker::PhantomData))
    }

    /// The table that an entry points to.
    #[inline]
    pub fn child(self, index: usize, format: &Format) -> Option<Self> {
        match self.step(index, format) {
            Step::Table(child) => Some(child),
            Step::Other(_) => None,
        }
    }

    /// Stores an entry that hardware does not follow; present bits in `bits`, and the mark of a table, are dropped. Gives the
    /// old bits.
    #[inline]
    pub fn set_absent(self, index: usize, bits: u64, format: &Format) -> u64 {
        self.put(index, bits & !(format.present | format.table), format)
    }

    /// Stores a leaf of `1 << order` pages. `attributes` are all bits but the address. Gives the old bits.
    ///
    /// # Errors
    /// [`WrongTarget`] if a page of the target is not of the kind it claims to be; the entry is unchanged.
    #[inline]
    pub fn set_leaf(
        self,
        index: usize,
        target: Target,
        order: u32,
        attributes: u64,
        format: &Format,
    ) -> Result<u64, WrongTarget> {
        let mfn = check_target(target, order)?;
        let bits = attributes & !format.own() | mfn.address().number() & format.address;
        Ok(self.put(index, bits, format))
    }

    /// Changes the attributes of a present leaf without touching its address: the bits of `clear` go, those of `set` come.
    /// Address bits in either are ignored, and so is the call if the entry is not present: its bits are no leaf's. Gives
    /// the old bits.
    #[inline]
    pub fn change(self, index: usize, clear: u64, set: u64, format: &Format) -> u64 {
        let (clear, set) = (clear & !format.own(), set & !format.own());
        let old = self.entry(index).update(Ordering::AcqRel, Ordering::Acquire, |bits| {
            if format.is_present(bits) { bits & !clear | set } else { bits }
        });
        if format.is_written_back {
            arch::write_back_word(self.0, index % ENTRIES);
        }
        old
    }

    /// Stores a pointer to `child`, which the tree owns from now on; its entries are of `level`, counted from 0. Gives the old
    /// bits.
    pub fn set_table(self, index: usize, child: Table, level: u32, attributes: u64, format: &Format) -> u64 {
        let address = child.0.address().number() & format.address;
        if format.is_written_back {
            // Its zeros, too: memory may hold what the page was before.
            arch::write_back(child.0);
        }
        self.put(index, attributes & !format.own() | address | format.table_bits(level), format)
    }

    /// Takes a child table out of the tree, leaving `bits` (without present bits) in its place. `None` if there is none.
    pub fn take_table(self, index: usize, bits: u64, format: &Format) -> Option<Table> {
        let child = self.child(index, format)?;
        self.set_absent(index, bits, format);
        Some(Table(child.0))
    }
}

impl Target {
    /// Whether a leaf of `1 << order` pages can be installed for it.
    pub fn is_valid(self, order: u32) -> bool {
        check_target(self, order).is_ok()
    }
}

#[inline]
fn check_target(target: Target, order: u32) -> Result<Mfn, WrongTarget> {
    let (mfn, good): (Mfn, fn(Option<frame::State>) -> bool) = match target {
        Target::Ram(mfn) => (mfn, |state| state.is_some_and(|state| matches!(state.kind, Kind::Guest | Kind::Shared))),
        Target::Device(mfn) => (mfn, |state| state.is_none()),
    };
    for page in 0..1u64 << order {
        let mfn = mfn.saturating_add(page);
        if !good(frame::state(mfn)) {
            return Err(WrongTarget(mfn));
        }
    }
    if mfn.is_aligned(order) { Ok(mfn) } else { Err(WrongTarget(mfn)) }
}

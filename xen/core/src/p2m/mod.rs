//! The guest frame map of a domain: the one truth of what every guest frame is, and the transaction that changes it.
//!
//! The truth is stored in the tables that hardware walks (`format`): kinds and narrowed rights stand in bits that hardware
//! ignores. `entry` says what kinds there are and what each may; `tree` finds entries; `update` changes them; `txn` is the
//! only way to a change, and ends in a flush (`flush`). Other views of the same truth are derived from it and follow in the same
//! transaction: that of devices (`view`); nested guests' will (memory-engine.md, 6).
//!
//! What comes before: `memory`'s verbs, `guest_mem`, `fault`. What comes after: `machine::table`, which lets nothing be
//! installed that the frame table does not agree to.

#[cfg(any(debug_assertions, not(target_os = "none")))]
mod check;
mod end;
pub mod entry;
mod flush;
pub mod format;
pub mod format_amd_io;
pub mod format_ept;
pub mod format_intel_io;
pub mod format_npt;
pub mod format_stage2;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_devices;
#[cfg(test)]
mod tests_tables;
mod tree;
mod txn;
mod update;
mod view;

pub use entry::{Entry, Kind, Rights};
pub use flush::{Door, MAX_CPUS, NeedsFlush};
pub use txn::{Flush, P2mTxn};
pub use update::ChangeError;

use crate::domain::Settings;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use flush::Epoch;
use format_npt::Npt as HostFormat;
use machine::boxed::OutOfMemory;
use machine::frame::{self, Pin};
use machine::lock::{Guard, Lock, rank};
use machine::table::{Root, Table};
use machine::{CpuId, DomId, Gfn, Gpa, Mfn, log};
use public_abi::Errno;
use tree::Tree;
use txn::Locked;
use update::{Spares, new_table};

/// Whether the tables have entries for `1 << order` frames from `gfn` on.
#[inline]
pub fn can_translate(gfn: Gfn, order: u32) -> bool {
    gfn.number().checked_add(1 << order).is_some_and(|end| end <= 1 << format::GFN_BITS)
}

/// Tables that a domain may have for which the toolstack has set no limit (Xen's `hap_enable`: a pool of 256 pages).
pub const DEFAULT_TABLE_LIMIT: u64 = 256;

/// What the hypervisor wants with a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read it.
    Read,
    /// To write it. Whoever writes also calls [`DomainP2m::mark_dirty`].
    Write,
}

/// Why the hypervisor cannot reach a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinError {
    /// There is no RAM.
    NoRam,
    /// It may not be written.
    ReadOnly,
    /// Its content is with the pager.
    Paged,
}

impl From<PinError> for Errno {
    fn from(error: PinError) -> Self {
        match error {
            PinError::NoRam | PinError::ReadOnly => Self::EINVAL,
            PinError::Paged => Self::ENOENT,
        }
    }
}

/// A domain's guest frame map and the views derived from it.
#[derive(Debug)]
pub struct DomainP2m {
    owner: DomId,
    root: Root,
    identity: bool,
    locked: Lock<Locked, { rank::P2M }>,
    epoch: Epoch,
    /// What translates for the domain's devices, if they have a view.
    iommu: Option<&'static machine::iommu::Iommu>,
    /// One more than the highest guest frame that was ever mapped.
    mapped_end: AtomicU64,
    /// Flushes that were dropped instead of completed: bugs.
    lost_flushes: AtomicU64,
    /// Pages of device memory that were mapped by faults.
    device_pages: AtomicU64,
    /// Pages could not be given up, which was logged.
    has_lost_pages: AtomicBool,
    /// The limit of its tables was met, and logged.
    has_complained: AtomicBool,
    /// Writes by the hypervisor that marked a frame dirty; the dirty log will stand here.
    marked: AtomicU64,
}

impl DomainP2m {
    /// An empty map.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(id: DomId, settings: &Settings) -> Result<Self, OutOfMemory> {
        let root = new_table(id).ok_or(OutOfMemory)?;
        Ok(Self {
            owner: id,
            root: root.as_root(),
            identity: settings.identity_mapped,
            locked: Lock::new(Locked {
                tree: Tree::new(root, DEFAULT_TABLE_LIMIT),
                view: None,
                spares: Spares::new(),
                is_closing: false,
                cursor: Gfn::new(0),
                released: heapless::Vec::new(),
            }),
            epoch: Epoch::new(),
            iommu: None,
            mapped_end: AtomicU64::new(0),
            lost_flushes: AtomicU64::new(0),
            device_pages: AtomicU64::new(0),
            has_lost_pages: AtomicBool::new(false),
            has_complained: AtomicBool::new(false),
            marked: AtomicU64::new(0),
        })
    }

    /// The table that hardware walks.
    #[inline]
    pub fn root(&self) -> Root {
        self.root
    }

    /// Whether RAM is mapped with guest frame numbers equal to machine frame numbers.
    #[inline]
    pub fn is_identity(&self) -> bool {
        self.identity
    }

    /// Whether a machine frame belongs to the domain and stays reserved for the guest frame of the same number.
    pub fn owns_identity_frame(&self, gfn: Gfn) -> bool {
        self.identity
            && frame::state(Mfn::new(gfn.number()))
                .is_some_and(|state| state.kind == frame::Kind::Guest && state.owner == self.owner)
    }

    /// What a guest frame is. The entry may cover more frames.
    #[inline]
    pub fn lookup(&self, gfn: Gfn) -> Entry {
        self.locked.lock().tree.find(gfn)
    }

    /// Holds the map still for a few reads in a row: the walk of a guest's page tables.
    #[inline]
    pub fn reader(&self) -> Reader<'_> {
        Reader { p2m: self, locked: self.locked.lock() }
    }

    /// Keeps the page behind a guest frame, and gives access to it. Not to granted pages, as in Xen: a grant may end while
    /// the pin lives, and then nobody may touch the page for the domain any more.
    ///
    /// # Errors
    /// [`PinError`].
    #[inline]
    pub fn pin(&self, gfn: Gfn, access: Access) -> Result<Pin, PinError> {
        self.reader().pin(gfn, access)
    }

    /// As [`DomainP2m::pin`], for showing the page to another domain: only the domain's own RAM can be shown (INV-4).
    ///
    /// # Errors
    /// [`PinError`].
    pub fn pin_for_others(&self, gfn: Gfn, access: Access) -> Result<Pin, PinError> {
        let locked = self.locked.lock();
        let entry = locked.tree.find(gfn);
        if entry.kind.is_readable_ram() && !entry.kind.is_own_ram() {
            return Err(PinError::NoRam);
        }
        self.pin_entry(gfn, &entry, access)
    }

    #[inline]
    fn pin_entry(&self, gfn: Gfn, entry: &Entry, access: Access) -> Result<Pin, PinError> {
        if access == Access::Write && !entry.kind.is_writable_ram() || !entry.kind.is_readable_ram() {
            return Err(refusal(entry.kind));
        }
        if entry.kind.is_granted() {
            return Err(PinError::NoRam);
        }
        let mfn = entry.frame_at(gfn);
        let is_own = entry.kind.is_own_ram() || entry.kind == Kind::SharedPage;
        let owner = if is_own { Some(self.owner) } else { frame::state(mfn).map(|state| state.owner) };
        // The entry's own reference keeps the page while the lock is held, so this can only fail for too many references.
        owner.and_then(|owner| Pin::take(mfn, owner)).ok_or(PinError::NoRam)
    }

    /// Notes that the hypervisor writes, or has just written, a frame of the domain (INV-8). The one place for that.
    #[inline]
    pub fn mark_dirty(&self, _gfn: Gfn) {
        if cfg!(debug_assertions) {
            self.marked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often [`DomainP2m::mark_dirty`] was called; counted in debug builds only.
    pub fn marked(&self) -> u64 {
        self.marked.load(Ordering::Relaxed)
    }

    /// Begins a transaction that may need tables.
    ///
    /// # Errors
    /// [`OutOfMemory`], when the reserve of table pages cannot be filled, as while the domain is taken apart; nothing has
    /// changed.
    #[inline]
    pub fn begin(&self) -> Result<P2mTxn<'_>, OutOfMemory> {
        let mut locked = self.lock_for_changes();
        // The end of the domain's memory begins by giving the reserve back.
        while !locked.spares.is_full() {
            if locked.is_closing {
                return Err(OutOfMemory);
            }
            drop(locked);
            // Allocated outside of the lock; others may fill the reserve meanwhile.
            let table = new_table(self.owner).ok_or(OutOfMemory)?;
            locked = self.lock_for_changes();
            if let Err(table) = locked.spares.put(table) {
                table.free();
            }
        }
        Ok(P2mTxn { p2m: self, locked, flush: Flush::new(self) })
    }

    /// Begins a transaction that needs no tables as long as it splits nothing: rights taken away, whole entries removed.
    #[inline]
    pub fn begin_removal(&self) -> P2mTxn<'_> {
        P2mTxn { p2m: self, locked: self.lock_for_changes(), flush: Flush::new(self) }
    }

    /// Counts one more page of device memory that a fault has mapped; gives how many there were.
    pub fn count_device_page(&self) -> u64 {
        self.device_pages.fetch_add(1, Ordering::Relaxed)
    }

    fn note_mapped(&self, gfn: Gfn, order: u32) {
        let end = gfn.number().saturating_add(1 << order);
        if self.mapped_end.load(Ordering::Relaxed) < end {
            self.mapped_end.fetch_max(end, Ordering::Relaxed);
        }
    }

    /// The highest guest frame that was ever mapped; 0 if none was (XENMEM_maximum_gpfn).
    pub fn maximum_gfn(&self) -> Gfn {
        Gfn::new(self.mapped_end.load(Ordering::Relaxed).saturating_sub(1))
    }

    /// Pages that the tables take, those in reserve included.
    pub fn table_pages(&self) -> u64 {
        let locked = self.locked.lock();
        locked.tree.tables.saturating_add(u64::try_from(locked.spares.len()).unwrap_or(0))
    }

    /// Pages that the tables may take, or do take if that is more; without those in reserve.
    pub fn table_limit(&self) -> u64 {
        let locked = self.locked.lock();
        locked.tree.limit.max(locked.tree.tables)
    }

    /// Sets how many pages the tables may take, without those in reserve. A limit below what they take is allowed: they then
    /// get no more.
    pub fn set_table_limit(&self, pages: u64) {
        self.locked.lock().tree.limit = pages;
        self.has_complained.store(false, Ordering::Relaxed);
    }

    /// Logs that the limit is met, once for each limit: a guest must not fill the log.
    #[cold]
    fn complain_of_limit(&self, limit: u64) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            log!(Warning, "{}: its memory map has all {limit} page tables that it may have", self.owner);
        }
    }

    /// Keeps an emptied table in reserve, or frees it. No translation leads through it any more.
    #[cold]
    fn recycle(&self, table: Table) {
        let mut locked = self.locked.lock();
        let left = if locked.is_closing { Err(table) } else { locked.spares.put(table) };
        drop(locked);
        if let Err(table) = left {
            table.free();
        }
    }

    /// Flushes that were dropped instead of completed: bugs, none in a healthy hypervisor.
    pub fn lost_flushes(&self) -> u64 {
        self.lost_flushes.load(Ordering::Relaxed)
    }

    /// A number that changes whenever a translation of the domain is taken away: whoever cached one compares it.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.now()
    }

    /// The one machine frame that was taken away, or whose rights were narrowed, between two epochs: what was remembered of
    /// others at `before` is good at `now`. `None` if it may be anything.
    #[inline]
    pub fn only_change(&self, before: u64, now: u64) -> Option<Mfn> {
        self.epoch.only_change(before, now)
    }

    /// The way of `cpu` into the domain's guest and out of it. `None` for a CPU that the machine never starts.
    pub fn door(&self, cpu: CpuId) -> Option<Door<'_>> {
        self.epoch.door(cpu)
    }

    /// Makes all CPUs forget all translations of the domain, and waits until they have (HVMOP_flush_tlbs).
    pub fn flush_all(&self) {
        self.epoch.flush(None);
    }
}

/// A guest frame map that does not change while this lives. Nothing else may be locked meanwhile that comes before P2M.
#[derive(Debug)]
pub struct Reader<'p> {
    p2m: &'p DomainP2m,
    locked: Guard<'p, Locked, { rank::P2M }>,
}

impl Reader<'_> {
    /// As [`DomainP2m::pin`].
    ///
    /// # Errors
    /// [`PinError`].
    #[inline]
    pub fn pin(&self, gfn: Gfn, access: Access) -> Result<Pin, PinError> {
        self.p2m.pin_entry(gfn, &self.locked.tree.find(gfn), access)
    }

    /// Reads bytes that do not leave their page, without a reference of its own: the entry's reference keeps the page for
    /// as long as the map stands still.
    ///
    /// # Errors
    /// [`PinError`]; also when the bytes leave the page.
    #[inline]
    pub fn read(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), PinError> {
        let entry = self.locked.tree.find(gpa.frame());
        if !entry.kind.is_readable_ram() {
            return Err(refusal(entry.kind));
        }
        let borrowed = Pin::from_entry(entry.frame_at(gpa.frame()));
        let is_read = machine::memory::read(&borrowed, gpa.offset(), out);
        borrowed.into_entry();
        if is_read { Ok(()) } else { Err(PinError::NoRam) }
    }
}

fn refusal(kind: Kind) -> PinError {
    match kind {
        Kind::Paged | Kind::PagingIn => PinError::Paged,
        kind if kind.is_readable_ram() => PinError::ReadOnly,
        _ => PinError::NoRam,
    }
}

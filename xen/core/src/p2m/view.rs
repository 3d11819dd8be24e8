//! The view of a p2m that the domain's devices have: what they may reach, in tables of their own. (docs/design/0009;
//! memory-engine.md, 6.2 to 6.5.)
//!
//! A transaction changes the truth and the view under one lock, and its flush waits for both before pages are given up. The
//! view has entries only where the truth has some, of the same size, so it never needs a table that a change of the truth
//! could not have needed; what both need together is in reserve before the change.
//!
//! What comes before: `txn`. What comes after: `update`, which both trees share, and `machine::iommu`.

use super::entry::{Entry, Kind, MemoryAccess, Rights};
use super::format::Format;
use super::format_amd_io::AmdIo;
use super::format_intel_io::IntelIo;
use super::tree::{Tree, index};
use super::update::{ChangeError, Emptied, MOST_TABLES, Replaced, Spares};
use super::{DomainP2m, new_table};
use machine::boxed::OutOfMemory;
use machine::iommu::{Forget, Iommu, Maker, Stuck};
use machine::table::{ENTRIES, Table, TableRef};
use machine::{Gfn, log};

/// The view. Its tables are not limited: there is one for each of the truth's at the most.
#[derive(Debug)]
pub(super) struct View {
    pub(super) tree: IoTree,
    iommu: &'static Iommu,
}

/// A tree in the format of whoever made the machine's units.
#[derive(Debug)]
pub(super) enum IoTree {
    Amd(Tree<AmdIo>),
    Intel(Tree<IntelIo>),
}

/// Does the same with a tree of either format.
macro_rules! each_format {
    ($tree:expr, $name:ident => $body:expr) => {
        match $tree {
            IoTree::Amd($name) => $body,
            IoTree::Intel($name) => $body,
        }
    };
}
#[cfg(any(debug_assertions, not(target_os = "none")))]
pub(super) use each_format;

impl IoTree {
    fn new(maker: Maker, root: Table) -> Self {
        match maker {
            Maker::Amd => Self::Amd(Tree::new(root, u64::MAX)),
            Maker::Intel => Self::Intel(Tree::new(root, u64::MAX)),
        }
    }

    /// Sets an entry. Gives what was replaced, and whether units can tell the new one from that.
    fn set(&mut self, gfn: Gfn, new: &Entry, spares: &mut Spares) -> Result<(Replaced, bool), ChangeError> {
        fn set<F: Format>(
            tree: &mut Tree<F>,
            gfn: Gfn,
            new: &Entry,
            spares: &mut Spares,
        ) -> Result<(Replaced, bool), ChangeError> {
            let replaced = tree.set(gfn, new, spares, |_| Ok(()))?;
            let is_change = F::encode(&replaced.entry) != F::encode(new);
            Ok((replaced, is_change))
        }
        each_format!(self, tree => set(tree, gfn, new, spares))
    }

    /// Takes everything away around a frame, whatever hangs there.
    fn cut(&self, gfn: Gfn) {
        fn cut<F: Format>(tree: &Tree<F>, gfn: Gfn) {
            if let Some(root) = &tree.root {
                root.borrow().set_absent(index(gfn, 3), 0, &F::HARDWARE);
            }
        }
        each_format!(self, tree => cut(tree, gfn));
    }

    /// Frees all tables.
    fn free(self) {
        fn free<F: Format>(tree: Tree<F>) {
            if let Some(root) = tree.root {
                free_below::<F>(root.borrow());
                root.free();
            }
        }
        each_format!(self, tree => free(tree));
    }
}

/// Translations that devices have lost, or that units may remember as absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IoLost {
    /// None.
    Nothing,
    /// That of one page.
    Page(Gfn),
    /// More.
    More,
}

impl IoLost {
    fn add(&mut self, gfn: Gfn, order: u32) {
        *self = if *self == Self::Nothing && order == 0 { Self::Page(gfn) } else { Self::More };
    }
}

/// What a device may do with what an entry describes (memory-engine.md, 6.2): never more than the domain itself.
pub(super) fn for_devices(entry: &Entry) -> Entry {
    let kind = match entry.kind {
        Kind::RamRw
        | Kind::RamLogDirty
        | Kind::RamRo
        | Kind::Foreign
        | Kind::ForeignRo
        | Kind::GrantRw
        | Kind::GrantRo => Kind::RamRw,
        Kind::MmioDirect | Kind::IdentityRdm => Kind::MmioDirect,
        // Pages that the pager or a sharer wants quiet, pages of the hypervisor, and what is not there.
        Kind::Hole
        | Kind::PagingOut
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::CopyOnWrite
        | Kind::RdmHole
        | Kind::Broken
        | Kind::Reserved
        | Kind::MmioDm
        | Kind::SharedPage => return Entry::hole(entry.order),
    };
    let rights = entry.rights();
    if !rights.contains(Rights::READ) {
        return Entry::hole(entry.order);
    }
    let access = if rights.contains(Rights::WRITE) { MemoryAccess::Rw } else { MemoryAccess::R };
    Entry { kind, access, ..*entry }
}

impl View {
    /// Tables that the view needs for a change, at the most.
    pub(super) fn missing(&self, gfn: Gfn, new: &Entry) -> usize {
        each_format!(&self.tree, tree => tree.missing(gfn, &for_devices(new)))
    }

    /// Follows a change that the truth has made. Adds to `lost` what units may remember.
    pub(super) fn follow(&mut self, gfn: Gfn, new: &Entry, spares: &mut Spares, lost: &mut IoLost) -> Emptied {
        let new = for_devices(new);
        match self.tree.set(gfn, &new, spares) {
            Ok((replaced, is_change)) => {
                // Units may remember that there is nothing, too, so a new translation counts as well (48882, NpCache; VT-d,
                // caching mode).
                if is_change {
                    lost.add(gfn, replaced.entry.order);
                }
                if !replaced.emptied.is_empty() {
                    *lost = IoLost::More;
                }
                replaced.emptied
            }
            Err(error) => {
                // Cannot be: the truth was changed in the same way, and there was room. Devices lose 512 GiB rather than
                // keeping what they must not have.
                debug_assert!(false, "{gfn:?} cannot become {new:?} for devices: {error:?}");
                log!(Error, "{gfn:?} cannot become {new:?} for devices ({error:?}): they lose all memory around it");
                self.tree.cut(gfn);
                *lost = IoLost::More;
                Emptied::new()
            }
        }
    }
}

impl DomainP2m {
    /// Makes a view for devices, and lets all devices go through it. To be done before anything is mapped; `iommu` lives as
    /// long as the map at the least.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn attach(&mut self, iommu: &'static Iommu) -> Result<(), OutOfMemory> {
        let root = new_table(self.owner).ok_or(OutOfMemory)?;
        let io_root = root.as_io_root();
        let locked = self.locked.get_mut();
        debug_assert!(locked.tree.tables == 1 && locked.view.is_none(), "there is something in the map already");
        locked.view = Some(View { tree: IoTree::new(iommu.maker(), root), iommu });
        locked.spares.want(2 * MOST_TABLES);
        self.iommu = Some(iommu);
        // The units are off until the domain is built, so none can be stuck yet.
        iommu.translate(io_root).map_err(|_| OutOfMemory)
    }

    /// Whether the domain's devices have a view of their own: whether what a grant or a foreign mapping shows reaches them.
    pub fn is_seen_by_devices(&self) -> bool {
        self.iommu.is_some()
    }

    /// Makes units forget. `Err` if one does not: then nothing that devices could reach may be used again.
    pub(super) fn flush_devices(&self, lost: IoLost) -> Result<(), Stuck> {
        let what = match lost {
            IoLost::Nothing => return Ok(()),
            IoLost::Page(gfn) => Forget::Page(gfn),
            IoLost::More => Forget::All,
        };
        self.iommu.map_or(Ok(()), |iommu| iommu.forget(what))
    }

    /// Takes the view away: devices reach nothing any more. The tables are freed only if that is sure.
    pub(super) fn detach(&self) {
        let Some(View { tree, iommu }) = self.locked.lock().view.take() else { return };
        if iommu.block().is_ok() {
            tree.free();
        }
    }
}

/// Frees all tables below one. Depth is bounded by the levels.
fn free_below<F: Format>(table: TableRef<'_>) {
    for place in 0..ENTRIES {
        if let Some(child) = table.take_table(place, 0, &F::HARDWARE) {
            free_below::<F>(child.borrow());
            child.free();
        }
    }
}

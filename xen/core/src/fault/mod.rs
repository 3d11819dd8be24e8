//! Stage-2 faults: why an access did not get through, and what makes it get through.
//!
//! The run loop comes here with a machine `Access`; [`classify`] looks at what the frame is and says why, purely; then one
//! file for each cause that can be cured deals with it: `dirty`, `access`, `device`. What cannot be cured here is emulated
//! by `x86::mmio` or ends the domain; the run loop does both. No lock is held while a fault waits for anything.

mod access;
mod device;
mod dirty;
#[cfg(test)]
mod tests;

use crate::domain::Domain;
use crate::p2m::{Entry, Kind, Rights};
use machine::Gfn;
use machine::exit::{Access, AccessKind};

/// Why an access faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nothing stands against it now: somebody else has cured it, or the processor remembered less.
    Spurious,
    /// The first write to a page that is watched for writes.
    Dirty,
    /// Introspection has narrowed the rights.
    Access,
    /// There is nothing. In the domain that owns the hardware, maybe a device.
    Hole,
    /// An emulated device, or a region that is kept free: reads give all ones if no device answers.
    Emulated,
    /// A write to memory that swallows writes.
    DiscardedWrite,
    /// The page comes into being at its first access.
    Populate,
    /// The content is with the pager.
    Paged,
    /// The first write to a page that is shared until then.
    CopyOnWrite,
    /// The content was lost.
    Broken,
    /// The guest may not do this, and no guest does it by mistake.
    Forbidden,
}

/// What the run loop does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the guest must be resumed, its access emulated, or its domain crashed"]
pub enum Handled {
    /// Run the guest again: the access will get through.
    Resume,
    /// Emulate the instruction: the address is a device's, or nobody's.
    Emulate,
    /// Crash the domain; the text says why.
    Crash(&'static &'static str),
}

const NO_PAGER: &str = "it touched memory whose content is away, and nobody brings it back";
const BROKEN: &str = "it touched memory whose content was lost to an error";
const FORBIDDEN: &str = "it used a page of another domain or of a device in a way that it may not";

/// The right that an access needs.
const fn needed(kind: AccessKind) -> Rights {
    match kind {
        AccessKind::Read => Rights::READ,
        AccessKind::Write => Rights::WRITE,
        AccessKind::Execute => Rights::EXECUTE,
    }
}

/// Why an access to what `entry` describes faults.
#[inline]
pub const fn classify(entry: &Entry, kind: AccessKind) -> Cause {
    if entry.rights().contains(needed(kind)) {
        return Cause::Spurious;
    }
    if entry.kind.rights().contains(needed(kind)) {
        // The kind would allow it, so what introspection left does not.
        return Cause::Access;
    }
    let is_write = matches!(kind, AccessKind::Write);
    match entry.kind {
        Kind::Hole | Kind::Reserved => Cause::Hole,
        Kind::MmioDm | Kind::RdmHole => Cause::Emulated,
        Kind::RamLogDirty if is_write => Cause::Dirty,
        // Granted and foreign pages as well: Xen drops such writes, and a mapping's user may try in good faith.
        Kind::RamRo | Kind::GrantRo | Kind::ForeignRo if is_write => Cause::DiscardedWrite,
        Kind::CopyOnWrite if is_write => Cause::CopyOnWrite,
        Kind::PagingOut | Kind::Paged | Kind::PagingIn => Cause::Paged,
        Kind::PopulateOnDemand => Cause::Populate,
        Kind::Broken => Cause::Broken,
        // What is left lacks a right that these kinds never give.
        Kind::RamRw
        | Kind::RamLogDirty
        | Kind::RamRo
        | Kind::CopyOnWrite
        | Kind::Foreign
        | Kind::ForeignRo
        | Kind::GrantRw
        | Kind::GrantRo
        | Kind::MmioDirect
        | Kind::IdentityRdm
        | Kind::SharedPage => Cause::Forbidden,
    }
}

/// Deals with a stage-2 fault of a domain's vCPU. `is_hidden` says which of the machine's device pages the domain does not reach
/// itself.
#[inline]
pub fn handle(domain: &Domain, access: &Access, is_hidden: impl FnOnce(Gfn) -> bool) -> Handled {
    let gfn = access.gpa.frame();
    let entry = domain.p2m.lookup(gfn);
    match classify(&entry, access.kind) {
        Cause::Spurious => Handled::Resume,
        Cause::Emulated | Cause::DiscardedWrite => Handled::Emulate,
        Cause::Hole => device::handle(domain, gfn, is_hidden),
        Cause::Dirty => dirty::handle(domain, gfn),
        Cause::Access => access::handle(domain, gfn),
        Cause::Broken => Handled::Crash(&BROKEN),
        // None of these kinds is ever installed yet.
        Cause::Populate | Cause::Paged | Cause::CopyOnWrite => Handled::Crash(&NO_PAGER),
        Cause::Forbidden => Handled::Crash(&FORBIDDEN),
    }
}

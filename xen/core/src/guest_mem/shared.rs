//! Pages of the hypervisor that a guest may map: shared_info, grant frames, request pages.

use machine::boxed::OutOfMemory;
use machine::frame::{self, Fill, Kind, Pin};
use machine::{DomId, Gfn, Mfn};

/// "Not mapped yet".
const NOWHERE: Gfn = Gfn::new(u64::MAX);

/// A zeroed page that belongs to the hypervisor on behalf of a domain. Dropping it gives up the allocation's reference;
/// mappings keep the page alive through references of their own.
#[derive(Debug)]
pub struct SharedPage {
    pin: Pin,
}

impl SharedPage {
    /// A new page.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(owner: DomId) -> Result<Self, OutOfMemory> {
        let mfn = frame::allocate(0, Kind::Shared, owner, Fill::Zero).ok_or(OutOfMemory)?;
        frame::set_gfn(mfn, NOWHERE);
        Ok(Self { pin: Pin::from_entry(mfn) })
    }

    /// The guest frame at which its domain has mapped it last, if it ever has.
    pub fn gfn(&self) -> Option<Gfn> {
        frame::gfn(self.mfn()).filter(|gfn| *gfn != NOWHERE)
    }

    /// Its machine frame.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.pin.mfn()
    }

    /// Access to its content with `machine::memory`.
    #[inline]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }
}

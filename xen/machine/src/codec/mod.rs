//! Hardware formats as pure data: what a structure's bits mean, without touching the hardware that reads them.
//!
//! All of it compiles everywhere, so that formats are tested on the development machine and `fake` can play the hardware.

pub mod amd_iommu;
pub mod apic;
pub mod calibration;
pub mod clock;
pub mod intel_iommu;
pub mod loader;
pub mod note;
pub mod placement;
pub mod ranges;
pub mod registers;
pub mod serial;
pub mod tags;
pub mod vmcb;

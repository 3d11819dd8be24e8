//! IOMMUs: units that translate what devices read and write. All of a machine's units are of one maker and lead all devices through
//! the same tables. (docs/design/0009.)
//!
//! The core decides which tables of a domain devices go through and when something must be forgotten; how that is said to a
//! unit stands here. An [`Iommu`] begins with all devices blocked, and no state in between lets a device pass untranslated once
//! it is on. The code is the same on the real machine and on the fake one, which plays the units' side.
//!
//! What comes before: `xen-core`'s `iommu` (which units there are, by the firmware's table) and `p2m` (what changes). In here:
//! `amd` and `intel`, by `queue`. What comes after: `codec`, the formats.

mod amd;
mod intel;
mod queue;

pub use crate::codec::amd_iommu::{Event, EventKind, Settings};
pub use amd::UnitFlags;

use crate::boxed::OutOfMemory;
use crate::table::IoRoot;
use crate::units::{Gfn, Maddr};
use core::sync::atomic::{AtomicBool, Ordering};

/// Units at the most.
pub const MAX_UNITS: usize = 16;
/// The number under which translations are cached. There is one view, so there is one number.
const DOMAIN: u16 = 1;

/// A unit does not do what it is told. Nobody knows what it still remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was to be forgotten may still be reached by devices"]
pub struct Stuck;

/// Why a unit cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There are too many.
    TooMany,
    /// Its registers cannot be where they are said to be.
    Registers,
    /// No memory for its rings.
    OutOfMemory,
    /// It cannot do something that is needed.
    Lacks(&'static str),
    /// It does not do what its registers tell it.
    Stuck,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooMany => write!(f, "there are more than {MAX_UNITS}"),
            Self::Registers => write!(f, "its registers are not there"),
            Self::OutOfMemory => write!(f, "no memory for its rings"),
            Self::Lacks(what) => write!(f, "it lacks {what}"),
            Self::Stuck => write!(f, "it does not do what it is told"),
        }
    }
}

/// Whose units they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Maker {
    /// AMD-Vi.
    #[default]
    Amd,
    /// VT-d.
    Intel,
}

/// What is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forget {
    /// The translation of one page.
    Page(Gfn),
    /// All translations.
    All,
}

#[derive(Debug)]
enum Units {
    Amd(amd::Units),
    Intel(intel::Units),
}

/// Does the same with the units of either maker.
macro_rules! each_maker {
    ($units:expr, $name:ident => $body:expr) => {
        match $units {
            Units::Amd($name) => $body,
            Units::Intel($name) => $body,
        }
    };
}

/// All units of the machine, and the tables of devices that they share.
#[derive(Debug)]
pub struct Iommu {
    units: Units,
    is_on: AtomicBool,
    is_stuck: AtomicBool,
}

impl Iommu {
    /// Without units, and with all devices blocked. `settings` are what firmware wants for devices behind AMD's units: first,
    /// last, and what.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(maker: Maker, settings: alloc::vec::Vec<(u16, u16, Settings)>) -> Result<Self, OutOfMemory> {
        let units = match maker {
            Maker::Amd => Units::Amd(amd::Units::try_new(settings)?),
            Maker::Intel => Units::Intel(intel::Units::try_new()?),
        };
        Ok(Self { units, is_on: AtomicBool::new(false), is_stuck: AtomicBool::new(false) })
    }

    /// Sets a unit up; it stays off. Its registers are at an address that no RAM has and that the unit answers at.
    ///
    /// # Errors
    /// [`Refusal`]. After `Stuck` all of it is good for being dropped only.
    pub fn add(&mut self, registers: Maddr, flags: UnitFlags) -> Result<(), Refusal> {
        match &mut self.units {
            Units::Amd(units) => units.add(registers, flags),
            Units::Intel(units) => units.add(registers),
        }
    }

    /// Whose units they are, which decides what tables they read.
    pub fn maker(&self) -> Maker {
        match &self.units {
            Units::Amd(_) => Maker::Amd,
            Units::Intel(_) => Maker::Intel,
        }
    }

    /// Units that were added.
    pub fn units(&self) -> usize {
        each_maker!(&self.units, units => units.len())
    }

    /// Lets all devices go through the tables at `root`, which are of this maker's format, and through nothing else.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn translate(&self, root: IoRoot) -> Result<(), Stuck> {
        each_maker!(&self.units, units => units.set_entries(Some(root)));
        self.forget_devices()
    }

    /// Lets no device reach anything.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn block(&self) -> Result<(), Stuck> {
        each_maker!(&self.units, units => units.set_entries(None));
        self.forget_devices()
    }

    /// Turns all units on. Before that, devices pass.
    ///
    /// # Errors
    /// [`Stuck`], with all units off again.
    pub fn enable(&self) -> Result<(), Stuck> {
        let result = each_maker!(&self.units, units => units.enable());
        self.is_on.store(result.is_ok(), Ordering::Release);
        if result.is_err() {
            each_maker!(&self.units, units => units.disable());
        }
        result
    }

    /// Whether devices are translated.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Entries of devices have changed.
    fn forget_devices(&self) -> Result<(), Stuck> {
        self.tell(|| each_maker!(&self.units, units => units.forget_devices()))
    }

    /// Makes all units forget translations, and waits until they have: from then on no device uses them.
    ///
    /// # Errors
    /// [`Stuck`], also at each call after one that has failed: what devices may still reach must not be used again.
    pub fn forget(&self, what: Forget) -> Result<(), Stuck> {
        self.tell(|| each_maker!(&self.units, units => units.forget(what)))
    }

    fn tell(&self, all: impl FnOnce() -> Result<(), Stuck>) -> Result<(), Stuck> {
        if self.is_stuck.load(Ordering::Acquire) {
            return Err(Stuck);
        }
        if !self.is_on() {
            return Ok(());
        }
        all().inspect_err(|_| self.is_stuck.store(true, Ordering::Release))
    }

    /// Lets a unit, counted in the order in which they were added, interrupt with a message when it has refused something.
    /// False if its maker wants the message in the unit's PCI function instead.
    pub fn give_message(&self, unit: usize, address: u32, data: u32) -> bool {
        match &self.units {
            Units::Amd(_) => false,
            Units::Intel(units) => units.give_message(unit, address, data),
        }
    }

    /// Takes out what units have logged.
    pub fn take_events(&self, mut each: impl FnMut(Event)) {
        each_maker!(&self.units, units => units.take_events(&mut each));
    }
}

impl Drop for Iommu {
    /// Turned off, units reach none of their pages any more.
    fn drop(&mut self) {
        each_maker!(&mut self.units, units => units.free());
    }
}

//! A domain: its memory, events, grants, vCPUs and life cycle, put together from the modules that own each part.
//!
//! The fields here say who locks what. Verbs that need several parts take them one after the other, in the order of the
//! lock ranks (`machine::lock::rank`).

pub mod console;
pub mod create;
pub mod destroy;
pub mod info;
pub mod lifecycle;
pub mod shutdown;

use crate::event::DomainEvents;
use crate::grant::DomainGrants;
use crate::memory::Accounting;
use crate::p2m::DomainP2m;
use crate::sched::budget::Budget;
use crate::vcpu::Vcpu;
use crate::x86::DomainX86;
use alloc::vec::Vec;
use lifecycle::Lifecycle;
use machine::DomId;
use machine::boxed::OutOfMemory;
use machine::lock::{Lock, Once, rank};

/// What a domain may do beyond its own borders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The control and hardware domain: administers all others.
    Control,
    /// Any other domain.
    Guest,
}

/// What is decided when a domain is created and never changes (public/domctl.h, createdomain).
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What it may do.
    pub role: Role,
    /// vCPUs, 1 to 128.
    pub max_vcpus: u32,
    /// The highest event channel port that it may use.
    pub max_port: u32,
    /// Grant table frames at the most.
    pub max_grant_frames: u32,
    /// Maptrack frames at the most: 4 KiB of handles each.
    pub max_maptrack_frames: u32,
    /// Highest grant table version, 1 or 2.
    pub max_grant_version: u8,
    /// The createdomain flags (`XEN_DOMCTL_CDF_*`), for reporting.
    pub flags: u32,
    /// Emulated devices (`XEN_X86_EMU_*`), for reporting and for which MMIO is answered.
    pub emulation: u32,
    /// Whether RAM is mapped with gfn equal to mfn.
    pub identity_mapped: bool,
}

/// Rarely used values that domctl sets and gets.
#[derive(Clone, Debug)]
pub struct Control {
    /// The handle: the toolstack's UUID.
    pub handle: [u8; 16],
    /// HVM parameters by number (public/hvm/params.h).
    pub hvm_params: [u64; HVM_PARAMS],
    /// The memory map that XENMEM_memory_map answers, as E820 entries: address, bytes, kind.
    pub memory_map: Vec<E820Entry>,
    /// Seconds that the wall clock of the domain is off.
    pub time_offset_seconds: i64,
    /// What only the toolstack's requests read and write.
    pub records: create::Records,
}

/// Numbers of HVM parameters kept.
pub const HVM_PARAMS: usize = 40;

/// An entry of a guest's memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct E820Entry {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// E820 type.
    pub kind: u32,
}

/// A domain.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// What was decided at creation.
    pub settings: Settings,
    /// Paused, shut down, dying.
    pub lifecycle: Lifecycle,
    /// How much memory it has and may have.
    pub accounting: Accounting,
    /// Its guest frame map and everything derived from it.
    pub p2m: DomainP2m,
    /// Its event channels and the pages that it shares with the hypervisor.
    pub events: DomainEvents,
    /// What it grants, and what it has mapped of others' grants.
    pub grants: DomainGrants,
    /// How much its vCPUs may run.
    pub budget: Budget,
    /// Values for the toolstack.
    pub control: Lock<Control, { rank::DOMAIN }>,
    /// What only x86 has: CPUID policy, I/O interrupt controller, time.
    pub x86: DomainX86,
    /// Its vCPUs, allocated once.
    pub vcpus: Once<Vec<Vcpu>>,
}

impl Domain {
    /// A domain with nothing in it: no memory, no vCPUs, paused once by the system.
    ///
    /// # Errors
    /// [`OutOfMemory`]; whatever was allocated is given back.
    pub fn try_new(id: DomId, settings: Settings) -> Result<Self, OutOfMemory> {
        Ok(Self {
            id,
            settings,
            lifecycle: Lifecycle::new(),
            accounting: Accounting::new(id),
            p2m: DomainP2m::try_new(id, &settings)?,
            events: DomainEvents::try_new(id, &settings)?,
            grants: DomainGrants::try_new(id, &settings)?,
            budget: Budget::new(),
            control: Lock::new(Control {
                handle: [0; 16],
                hvm_params: [0; HVM_PARAMS],
                memory_map: Vec::new(),
                time_offset_seconds: 0,
                records: create::Records::default(),
            }),
            x86: DomainX86::try_new(&settings)?,
            vcpus: Once::new(),
        })
    }

    /// Whether it administers others.
    pub fn is_control(&self) -> bool {
        self.settings.role == Role::Control
    }

    /// The vCPU with this number, once vCPUs are allocated.
    #[inline]
    pub fn vcpu(&self, index: u32) -> Option<&Vcpu> {
        self.vcpus().get(usize::try_from(index).ok()?)
    }

    /// All vCPUs; none before they are allocated.
    #[inline]
    pub fn vcpus(&self) -> &[Vcpu] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }
}

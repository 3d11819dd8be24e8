//! The x86 that guests see: CPUID, MSRs, interrupt controllers, ports, device memory.
//!
//! In the order of an exit: `exits` (what happened) → `instruction` and `encoding` (which bytes, how long; through `walk`
//! and `guest`) → `cpuid`, `msr`, `control`, `ports`, `mmio` (what it does) → `vlapic`, `vioapic`, `startup` (state that
//! others change too) → `interrupts` (what the vCPU is told at its next entry). `save` turns a vCPU's state into the records
//! of a save stream and back.

pub mod access;
pub mod control;
pub mod cpuid;
pub mod encoding;
pub mod exits;
pub mod guest;
pub mod instruction;
pub mod interrupts;
pub mod mmio;
pub mod msr;
pub mod pci;
pub mod ports;
pub mod save;
mod startup;
#[cfg(test)]
pub(crate) mod testing;
pub mod vioapic;
pub mod vlapic;
pub mod walk;

pub use startup::Startup;

use crate::domain::{Domain, Role, Settings};
use crate::host::Host;
use core::sync::atomic::{AtomicBool, Ordering};
use cpuid::{CpuPolicy, TimeLeaves};
use instruction::Remembered;
use machine::boxed::OutOfMemory;
use machine::lock::{Lock, ReadGuard, Shared, rank};
use machine::memory::PinnedWord;
use machine::{Mfn, platform};
use msr::StoredMsrs;
use ports::DomainPorts;
use public_abi::cpu_features::CpuFeature;
use vioapic::Vioapic;
use vlapic::Vlapic;

/// SVM features: CPUID leaf 0x8000000a EDX.
mod svm_feature {
    pub(super) const NEXT_RIP: u32 = 1 << 3;
    pub(super) const DECODE_ASSISTS: u32 = 1 << 7;
}

/// A domain's share of x86 state.
#[derive(Debug)]
pub struct DomainX86 {
    policy: Shared<CpuPolicy>,
    /// What the time leaves of CPUID say.
    pub time: TimeLeaves,
    /// Which ports it has.
    pub ports: DomainPorts,
    /// Its I/O interrupt controller, if it has one.
    pub vioapic: Option<Vioapic>,
    /// Something that is not emulated was met, and logged.
    has_complained: AtomicBool,
    /// The processor says where the next instruction begins.
    pub has_next_rip: bool,
    /// The processor says which operands an instruction had.
    pub has_decode_assists: bool,
}

impl DomainX86 {
    /// As after power-on.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(settings: &Settings) -> Result<Self, OutOfMemory> {
        let raw = CpuPolicy::raw(platform::cpuid);
        let [.., svm] = platform::cpuid(0x8000_000a, 0);
        let khz = u32::try_from(machine::cpu::timestamp_khz()).unwrap_or(u32::MAX);
        Ok(Self {
            policy: Shared::new(CpuPolicy::default_for(&raw, settings.role)),
            time: TimeLeaves::new(khz, raw.has(CpuFeature::Itsc), raw.has(CpuFeature::Rdtscp)),
            ports: DomainPorts::new(settings.role),
            vioapic: has_vioapic(settings).then(Vioapic::new),
            has_complained: AtomicBool::new(false),
            has_next_rip: svm & svm_feature::NEXT_RIP != 0,
            has_decode_assists: svm & svm_feature::DECODE_ASSISTS != 0,
        })
    }

    /// What CPUID answers.
    #[inline]
    pub fn policy(&self) -> ReadGuard<'_, CpuPolicy> {
        self.policy.read()
    }

    /// Replaces what CPUID answers; false if somebody is reading it now, which for a domain that does not run means: try
    /// again.
    #[must_use]
    pub fn set_policy(&self, policy: CpuPolicy) -> bool {
        self.policy.try_write().map(|mut place| *place = policy).is_some()
    }

    /// True once in a domain's life: a guest must not fill the log.
    fn complains_first_time(&self) -> bool {
        !self.has_complained.swap(true, Ordering::Relaxed)
    }

    /// A level-triggered interrupt has ended: its line may ask again.
    pub fn end_of_interrupt(&self, host: &Host, domain: &Domain, vector: u8) {
        if let Some(vioapic) = &self.vioapic {
            let ended = vioapic.end_of_interrupt(host, domain, vector);
            if ended != 0 && domain.is_control() {
                host.interrupts.ended(domain, ended);
            }
        }
    }
}

/// Whether a domain has an I/O APIC: those that were created with one (`XEN_X86_EMU_IOAPIC`), and the control domain, which
/// gets the machine's interrupts through it.
fn has_vioapic(settings: &Settings) -> bool {
    const EMULATE_IOAPIC: u32 = 1 << 4;
    settings.role == Role::Control || settings.emulation & EMULATE_IOAPIC != 0
}

const _: () = assert!(size_of::<VcpuX86>() <= 1280, "there are many vCPUs");

/// A vCPU's share of x86 state.
#[derive(Debug)]
pub struct VcpuX86 {
    /// Its local interrupt controller.
    pub lapic: Vlapic,
    /// What others want of it: to stop, to start, to take an NMI.
    pub startup: Startup,
    /// MSRs that are only stored.
    pub stored: Lock<StoredMsrs, { rank::DEVICE }>,
    /// It has executed HLT, and nothing that ends it has come. Read and written by the CPU that runs the vCPU, or by who sets
    /// all its registers.
    is_halted: AtomicBool,
    /// Where it executed the last intercepted instructions.
    remembered: Lock<Remembered<PinnedWord>, { rank::VCPU_AREAS }>,
}

impl VcpuX86 {
    /// As after power-on.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(index: u32) -> Result<Self, OutOfMemory> {
        Ok(Self {
            lapic: Vlapic::new(cpuid::apic_id(index), index == 0),
            startup: Startup::new(),
            stored: Lock::new(StoredMsrs::RESET),
            is_halted: AtomicBool::new(false),
            remembered: Lock::new(Remembered::default()),
        })
    }

    /// Whether it is in HLT.
    #[inline]
    pub fn is_halted(&self) -> bool {
        self.is_halted.load(Ordering::Relaxed)
    }

    /// Notes that it is in HLT, or is not.
    pub fn set_halted(&self, is_halted: bool) {
        self.is_halted.store(is_halted, Ordering::Relaxed);
    }

    /// Gives up all code pages that are remembered: the vCPU leaves its CPU, or the domain may not have them any more. While
    /// they are kept, the pages are not freed.
    pub fn forget_code(&self) {
        self.remembered.lock().forget();
    }

    /// Gives up what rests on a machine frame, which is all that the domain has lost between two epochs of its map.
    pub fn forget_code_in(&self, frame: Mfn, before: u64, now: u64) {
        self.remembered.lock().renew(before, now, |word| word.lies_in(frame));
    }
}

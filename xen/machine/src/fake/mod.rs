//! A machine for tests: RAM is an array, exits are scripted, the TLB keeps stale entries.
//!
//! `arch` exports the names that the real architectures export, so everything above runs unchanged. Which machine and which
//! CPU a thread is comes from [`FakeMachine::on_cpu`]: threads are the CPUs, and two machines can live in one test (a
//! migration needs that). What real hardware would do silently is loud here: a guest that reaches a freed page through a
//! stale translation, or a walker that reads a freed table, ends the test with a panic.
//!
//! In the order of use: `machine` (build one, be on its CPU) → `ram` → `script` (what guests do) → `tlb` (how their
//! accesses are translated) → `cpu` (interrupts, timers) → `devices` (pins, PCI functions) → `iommu` and `iommu_intel` (their DMA) → `allocation` (making memory run out).

mod allocation;
pub(crate) mod arch;
mod cpu;
mod devices;
mod iommu;
mod iommu_intel;
mod machine;
mod ram;
mod script;
mod tlb;

#[cfg(test)]
mod tests;

use crate::codec::vmcb::Vmcb;
use crate::vcpu::Vcpu;

pub use allocation::{Ledger, TestAllocator, account, exempt, with_failing_allocation};
pub use devices::{FakeFunction, PinEntry};
pub use iommu::Refused;
pub use machine::{Builder, FakeMachine, Stopped};
pub use script::{Guest, StepResult};

/// All of a vCPU's control block, for a test that says why the guest left, or sets it up by hand. On a real machine nobody but
/// this crate and the processor changes more than the guest's state.
pub fn vmcb_mut(vcpu: &mut Vcpu) -> &mut Vmcb {
    vcpu.vmcb_mut()
}

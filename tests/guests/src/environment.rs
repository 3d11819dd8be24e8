//! Where the guest finds itself: control domain or not, which identifiers, how many vCPUs.

use core::sync::atomic::{AtomicU64, Ordering};

use public_abi::Hypercall;
use public_abi::vcpu::VcpuOp;
use public_abi::version::VersionOp;
use public_abi::x86::cpuid::{
    FIRST_LEAF, HvmFeatures, LEAF_HVM, LEAF_STEP, SIGNATURE_EBX, SIGNATURE_ECX, SIGNATURE_EDX,
};
use public_abi::x86::{HvmMemmapEntry, HvmModlistEntry, HvmStartInfo, SIF_INITDOMAIN};
use rt::memory;

use crate::call;

/// What the domain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The control and hardware domain.
    Control,
    /// An unprivileged guest.
    Guest,
}

static START_INFO: AtomicU64 = AtomicU64::new(0);

/// Remembers the start info.
pub fn init(start_info: u64) {
    START_INFO.store(start_info, Ordering::SeqCst);
}

fn field_32(offset: usize) -> u32 {
    memory::read(START_INFO.load(Ordering::SeqCst) + offset as u64)
}

fn field_64(offset: usize) -> u64 {
    memory::read(START_INFO.load(Ordering::SeqCst) + offset as u64)
}

/// The magic number, version and flags of the start info.
#[must_use]
pub fn start_info() -> (u32, u32, u32) {
    (
        field_32(core::mem::offset_of!(HvmStartInfo, magic)),
        field_32(core::mem::offset_of!(HvmStartInfo, version)),
        field_32(core::mem::offset_of!(HvmStartInfo, flags)),
    )
}

/// Address of the ACPI root pointer, 0 if there is none.
#[must_use]
pub fn acpi_root() -> u64 {
    field_64(core::mem::offset_of!(HvmStartInfo, rsdp_paddr))
}

/// Calls `each` with start, length and kind of every entry of the start info's memory map; version 0 has none.
pub fn memory_map(mut each: impl FnMut(u64, u64, u32)) -> u32 {
    if start_info().1 == 0 {
        return 0;
    }
    let table = field_64(core::mem::offset_of!(HvmStartInfo, memmap_paddr));
    let count = field_32(core::mem::offset_of!(HvmStartInfo, memmap_entries));
    for index in 0..u64::from(count.min(128)) {
        let entry = table + index * size_of::<HvmMemmapEntry>() as u64;
        each(memory::read(entry), memory::read(entry + 8), memory::read(entry + 16));
    }
    count
}

/// Address and size of a boot module.
#[must_use]
pub fn module(index: u32) -> Option<(u64, u64)> {
    if index >= field_32(core::mem::offset_of!(HvmStartInfo, nr_modules)) {
        return None;
    }
    let list = field_64(core::mem::offset_of!(HvmStartInfo, modlist_paddr));
    let entry = list + u64::from(index) * size_of::<HvmModlistEntry>() as u64;
    Some((memory::read(entry), memory::read(entry + 8)))
}

/// The first word of the command line that is `key=number`.
#[must_use]
pub fn option(key: &str) -> Option<u64> {
    let line = field_64(core::mem::offset_of!(HvmStartInfo, cmdline_paddr));
    let at = |index: u64| if line == 0 { 0 } else { memory::read::<u8>(line + index) };
    let mut word = 0;
    for index in 0..1024 {
        let end = matches!(at(index), 0 | b' ');
        if end {
            let same = (0..).zip(key.bytes()).all(|(offset, byte)| at(word + offset) == byte);
            let value = word + key.len() as u64;
            if same && at(value) == b'=' && value + 1 < index {
                let digits = (value + 1..index).map(at);
                return digits
                    .map(|digit| u64::from(digit.wrapping_sub(b'0')))
                    .try_fold(0_u64, |sum, digit| (digit < 10).then(|| sum.wrapping_mul(10).wrapping_add(digit)));
            }
            word = index + 1;
        }
        if at(index) == 0 {
            break;
        }
    }
    None
}

/// What this domain may do, from the start info.
#[must_use]
pub fn role() -> Role {
    if start_info().2 & SIF_INITDOMAIN != 0 { Role::Control } else { Role::Guest }
}

/// First of the hypervisor's CPUID leaves, found by the signature.
#[must_use]
pub fn xen_leaves() -> Option<u32> {
    (0..256).map(|step| FIRST_LEAF + step * LEAF_STEP).find(|base| {
        let [_, b, c, d] = rt::cpuid(*base, 0);
        (b, c, d) == (SIGNATURE_EBX, SIGNATURE_ECX, SIGNATURE_EDX)
    })
}

/// This domain's identifier, if CPUID tells.
#[must_use]
pub fn domain_id() -> Option<u16> {
    let [features, _, domain, _] = rt::cpuid(xen_leaves()? + LEAF_HVM, 0);
    (features & HvmFeatures::DOMID_PRESENT.bits() != 0).then_some(domain as u16)
}

/// Number of this domain's vCPUs, up to what this library can start.
#[must_use]
pub fn vcpus() -> u32 {
    let exists =
        |vcpu: &u32| call::raw(Hypercall::VcpuOp, [u64::from(VcpuOp::IsUp.number()), u64::from(*vcpu), 0, 0, 0]) >= 0;
    (0..rt::MAX_CPUS as u32).take_while(exists).count() as u32
}

/// Whether the hypervisor calls itself Oxen in its extra version or changeset. Some expectations are stricter there than
/// what Xen was seen to do.
#[must_use]
pub fn is_oxen() -> bool {
    [VersionOp::ExtraVersion, VersionOp::Changeset].into_iter().any(|operation| {
        let mut text = [0_u8; 64];
        call::version(operation, &mut text) == 0 && text.windows(4).any(|window| window.eq_ignore_ascii_case(b"oxen"))
    })
}

/// The address of two pages that nobody owns: below the APICs, above the PCI windows in use. Oxen's control domain owns all
/// of the machine's device memory, where reads give what the machine's bus gives (QEMU's: zeroes), but not the window in
/// which writes are interrupt messages: of that it sees the local APIC only.
#[must_use]
pub fn hole() -> u64 {
    if has_own_frames_only() { 0xfee1_0000 } else { 0xfd00_0000 }
}

/// Whether this is Oxen's control domain: mapped 1:1, each frame of its memory is for one guest frame and no other.
#[must_use]
pub fn has_own_frames_only() -> bool {
    is_oxen() && role() == Role::Control
}

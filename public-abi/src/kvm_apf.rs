//! KVM's asynchronous page fault interface, for guests created with that personality.
//!
//! Not Xen's: it lets an unmodified Linux use its own front end (Linux Documentation/virt/kvm/x86/msr.rst and
//! cpuid.rst). The hypervisor's fault path writes [`ApfData`]; the guest reads it.

constants! { u32 {
    MSR_ASYNC_PF_EN = 0x4b56_4d02, "Address of the area (bits 6-63) and `APF_*` bits.";
    MSR_ASYNC_PF_INT = 0x4b56_4d06, "Vector of the \"page is ready\" interrupt, bits 0-7.";
    MSR_ASYNC_PF_ACK = 0x4b56_4d07, "The guest writes 1 after it has cleared the token.";
    FEATURE_ASYNC_PF = 1 << 4, "EAX of leaf 1: the interface exists.";
    FEATURE_ASYNC_PF_VMEXIT = 1 << 10, "EAX of leaf 1: delivery as a nested exit.";
    FEATURE_ASYNC_PF_INT = 1 << 14, "EAX of leaf 1: readiness as an interrupt.";
    APF_PAGE_NOT_PRESENT = 1 << 0, "[`ApfData::flags`]: the page fault in progress is an asynchronous one.";
}}

constants! { u64 {
    APF_ENABLED = 1 << 0, "[`MSR_ASYNC_PF_EN`]: on.";
    APF_SEND_ALWAYS = 1 << 1, "[`MSR_ASYNC_PF_EN`]: in kernel mode, too.";
    APF_DELIVERY_AS_PF_VMEXIT = 1 << 2, "[`MSR_ASYNC_PF_EN`]: as a nested exit.";
    APF_DELIVERY_AS_INT = 1 << 3, "[`MSR_ASYNC_PF_EN`]: readiness as an interrupt.";
    APF_RESERVED = 3 << 4, "[`MSR_ASYNC_PF_EN`]: must be 0.";
    APF_ADDRESS_MASK = !0x3f, "[`MSR_ASYNC_PF_EN`]: guest physical address of the area.";
}}

/// The signature of KVM's CPUID leaves.
pub const SIGNATURE: [u8; 12] = *b"KVMKVMKVM\0\0\0";

/// The token that wakes every waiting task.
pub const TOKEN_BROADCAST: u32 = u32::MAX;

abi! {
    /// The shared area of a vCPU (`kvm_vcpu_pv_apf_data`), to be aligned to 64 bytes by the guest.
    pub struct ApfData = 64 {
        0 flags: u32 = "[`APF_PAGE_NOT_PRESENT`] or 0; the guest clears it.";
        4 token: u32 = "Token of a page that is ready, or 0; the guest clears it.";
        8 pad: [u8; 56];
    }
}

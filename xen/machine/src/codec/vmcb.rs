//! The virtual machine control block of AMD SVM (AMD APM volume 2, appendix B): field places, intercept bits, exit codes.
//!
//! `x86::svm` hands a VMCB to the VMRUN instruction; between runs `vcpu` changes its fields, and the core those of the guest's
//! state.

use super::registers::efer;
use zerocopy::FromZeros;

/// A segment register as the VMCB stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attribute bits of the descriptor, packed: bits 55:52 and 47:40 of the descriptor side by side (12 bits).
    pub attributes: u16,
    /// Limit in bytes, already scaled.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

/// The control block: 1 KiB of control, 3 KiB of guest state. Field names follow the manual; padding is the manual's reserved
/// space.
///
/// The core may change all of [`GuestState`], which is the guest's own, and looks at [`Control`] only: that half says what the
/// guest can do to the machine. What the core may want of it has a method of [`crate::vcpu::Vcpu`].
#[derive(Clone, Debug, FromZeros)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What exits, where the tables are, events to deliver, why the guest left.
    pub control: Control,
    /// The guest's registers, as far as VMRUN, VMLOAD and VMSAVE exchange them.
    pub guest: GuestState,
}

/// The first half (APM table B-1).
#[derive(Clone, Debug, FromZeros)]
#[repr(C)]
#[expect(missing_docs, reason = "the manual's own names; see APM appendix B")]
pub struct Control {
    pub intercept_cr_read: u16,
    pub intercept_cr_write: u16,
    pub intercept_dr_read: u16,
    pub intercept_dr_write: u16,
    pub intercept_exceptions: u32,
    pub intercept_1: u32,
    pub intercept_2: u32,
    pub intercept_3: u32,
    reserved_018: [u8; 0x24],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub iopm_base: u64,
    pub msrpm_base: u64,
    pub tsc_offset: u64,
    pub asid: u32,
    pub tlb_control: u32,
    pub v_intr: u64,
    pub interrupt_shadow: u64,
    pub exit_code: u64,
    pub exit_info_1: u64,
    pub exit_info_2: u64,
    pub exit_int_info: u64,
    pub nested_control: u64,
    reserved_098: [u8; 0x10],
    pub event_injection: u64,
    pub nested_cr3: u64,
    pub lbr_control: u64,
    pub clean_bits: u64,
    pub next_rip: u64,
    pub fetched_count: u8,
    pub fetched_bytes: [u8; 15],
    reserved_0e0: [u8; 0x320],
}

/// The second half, the manual's state save area (APM table B-2). The processor itself refuses to enter a guest whose state
/// makes no sense.
#[derive(Clone, Debug, FromZeros)]
#[repr(C)]
#[expect(missing_docs, reason = "the manual's own names; see APM appendix B")]
pub struct GuestState {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    reserved_4a0: [u8; 0x2b],
    pub cpl: u8,
    reserved_4cc: [u8; 4],
    /// With SVME, which the processor wants set and the guest sees clear.
    pub(crate) efer: u64,
    reserved_4d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x58],
    pub rsp: u64,
    reserved_5e0: [u8; 0x18],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    reserved_648: [u8; 0x20],
    pub g_pat: u64,
    pub debugctl: u64,
    reserved_678: [u8; 0x988],
}

impl GuestState {
    /// Zeroes. The processor refuses them.
    pub const ZERO: Self = Vmcb::ZERO.guest;

    /// EFER as the guest sees it.
    #[inline]
    pub const fn efer(&self) -> u64 {
        self.efer & !efer::SVME
    }

    /// Sets EFER. Whether SVME is in `value` does not matter: the processor runs guests with it only.
    #[inline]
    pub const fn set_efer(&mut self, value: u64) {
        self.efer = value | efer::SVME;
    }

    /// Whether the guest runs 64-bit code: long mode is active, and its code segment is a 64-bit one.
    #[inline]
    pub const fn is_64_bit(&self) -> bool {
        self.efer & efer::LMA != 0 && self.cs.attributes & 1 << 9 != 0
    }
}

impl Vmcb {
    /// A block of zeroes, for the heap to take without a copy on the stack.
    // SAFETY: all fields are integers and arrays of integers (they are `FromZeros`), of which zero is a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

macro_rules! offsets {
    ($half:ident: $($field:ident = $offset:expr),* $(,)?) => {
        $(const _: () = assert!(core::mem::offset_of!(Vmcb, $half.$field) == $offset);)*
    };
}
const _: () = assert!(size_of::<Vmcb>() == 4096);
offsets! {
    control: pause_filter_threshold = 0x3c, iopm_base = 0x40, tsc_offset = 0x50, asid = 0x58, tlb_control = 0x5c, v_intr = 0x60,
    interrupt_shadow = 0x68, exit_code = 0x70, exit_int_info = 0x88, nested_control = 0x90, event_injection = 0xa8,
    nested_cr3 = 0xb0, clean_bits = 0xc0, next_rip = 0xc8, fetched_count = 0xd0,
}
offsets! {
    guest: es = 0x400, tr = 0x490, cpl = 0x4cb, efer = 0x4d0, cr4 = 0x548, cr0 = 0x558, dr6 = 0x568, rip = 0x578, rsp = 0x5d8,
    rax = 0x5f8, star = 0x600, sysenter_eip = 0x638, cr2 = 0x640, g_pat = 0x668,
}

/// Bits of `intercept_1` (offset 0x0c).
pub mod intercept_1 {
    /// Physical interrupts.
    pub const INTR: u32 = 1 << 0;
    /// Non-maskable interrupts.
    pub const NMI: u32 = 1 << 1;
    /// System management interrupts.
    pub const SMI: u32 = 1 << 2;
    /// INIT signals.
    pub const INIT: u32 = 1 << 3;
    /// The guest becoming ready for a virtual interrupt.
    pub const VINTR: u32 = 1 << 4;
    /// RDPMC.
    pub const RDPMC: u32 = 1 << 15;
    /// CPUID.
    pub const CPUID: u32 = 1 << 18;
    /// IRET.
    pub const IRET: u32 = 1 << 20;
    /// INVD.
    pub const INVD: u32 = 1 << 22;
    /// PAUSE, subject to the pause filter.
    pub const PAUSE: u32 = 1 << 23;
    /// HLT.
    pub const HLT: u32 = 1 << 24;
    /// INVLPGA.
    pub const INVLPGA: u32 = 1 << 26;
    /// Port accesses that the permission map marks.
    pub const IOIO: u32 = 1 << 27;
    /// MSR accesses that the permission map marks.
    pub const MSR: u32 = 1 << 28;
    /// Task switches.
    pub const TASK_SWITCH: u32 = 1 << 29;
    /// Shutdown: a triple fault.
    pub const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of `intercept_2` (offset 0x10).
pub mod intercept_2 {
    /// VMRUN; must be set, or VMRUN of this VMCB fails.
    pub const VMRUN: u32 = 1 << 0;
    /// VMMCALL.
    pub const VMMCALL: u32 = 1 << 1;
    /// VMLOAD.
    pub const VMLOAD: u32 = 1 << 2;
    /// VMSAVE.
    pub const VMSAVE: u32 = 1 << 3;
    /// STGI.
    pub const STGI: u32 = 1 << 4;
    /// CLGI.
    pub const CLGI: u32 = 1 << 5;
    /// SKINIT.
    pub const SKINIT: u32 = 1 << 6;
    /// WBINVD.
    pub const WBINVD: u32 = 1 << 9;
    /// MONITOR.
    pub const MONITOR: u32 = 1 << 10;
    /// MWAIT.
    pub const MWAIT: u32 = 1 << 11;
    /// XSETBV.
    pub const XSETBV: u32 = 1 << 13;
    /// RDPRU.
    pub const RDPRU: u32 = 1 << 14;
}

/// Exit codes (`exit_code`, of which QEMU fills only the low 32 bits for a refused VMCB: compare those).
#[expect(missing_docs, reason = "the manual's own names; see APM appendix C")]
pub mod exit {
    pub const CR_READ: u32 = 0x00;
    pub const CR_WRITE: u32 = 0x10;
    pub const DR_READ: u32 = 0x20;
    pub const DR_WRITE: u32 = 0x30;
    pub const EXCEPTION: u32 = 0x40;
    pub const INTR: u32 = 0x60;
    pub const NMI: u32 = 0x61;
    pub const SMI: u32 = 0x62;
    pub const INIT: u32 = 0x63;
    pub const VINTR: u32 = 0x64;
    pub const RDPMC: u32 = 0x6f;
    pub const CPUID: u32 = 0x72;
    pub const INVD: u32 = 0x76;
    pub const PAUSE: u32 = 0x77;
    pub const HLT: u32 = 0x78;
    pub const INVLPGA: u32 = 0x7a;
    pub const IOIO: u32 = 0x7b;
    pub const MSR: u32 = 0x7c;
    pub const TASK_SWITCH: u32 = 0x7d;
    pub const SHUTDOWN: u32 = 0x7f;
    pub const VMRUN: u32 = 0x80;
    pub const VMMCALL: u32 = 0x81;
    pub const VMLOAD: u32 = 0x82;
    pub const VMSAVE: u32 = 0x83;
    pub const STGI: u32 = 0x84;
    pub const CLGI: u32 = 0x85;
    pub const SKINIT: u32 = 0x86;
    pub const WBINVD: u32 = 0x89;
    pub const MONITOR: u32 = 0x8a;
    pub const MWAIT: u32 = 0x8b;
    pub const MWAIT_ARMED: u32 = 0x8c;
    pub const XSETBV: u32 = 0x8d;
    pub const RDPRU: u32 = 0x8e;
    pub const NPF: u32 = 0x400;
    pub const INVALID: u32 = 0xffff_ffff;
}

/// `tlb_control`: forget the translations of all tags at entry (APM volume 2, 15.16.1).
pub const FLUSH_ALL: u32 = 1;

/// Fields of `v_intr` (offset 0x60).
pub mod v_intr {
    /// The guest's task priority, bits 3:0 of the CR8 value.
    pub const TPR_MASK: u64 = 0xff;
    /// A virtual interrupt is pending.
    pub const IRQ: u64 = 1 << 8;
    /// Where the pending interrupt's priority class stands (4 bits).
    pub const PRIORITY_SHIFT: u32 = 16;
    /// Take the virtual interrupt whatever the task priority.
    pub const IGNORE_TPR: u64 = 1 << 20;
    /// The guest's IF masks virtual interrupts only; the host's IF masks the physical ones.
    pub const MASKING: u64 = 1 << 24;
    /// Where the pending interrupt's vector stands (8 bits).
    pub const VECTOR_SHIFT: u32 = 32;
}

/// `event_injection` and `exit_int_info`: an event to deliver, or one whose delivery an exit interrupted.
pub mod event {
    /// The event is there.
    pub const VALID: u64 = 1 << 31;
    /// The event has an error code, in bits 63:32.
    pub const HAS_ERROR: u64 = 1 << 11;
    /// Type: external interrupt.
    pub const INTERRUPT: u64 = 0 << 8;
    /// Type: NMI.
    pub const NMI: u64 = 2 << 8;
    /// Type: exception.
    pub const EXCEPTION: u64 = 3 << 8;
    /// Type: software interrupt.
    pub const SOFTWARE: u64 = 4 << 8;
    /// Where the type stands (3 bits).
    pub const TYPE_MASK: u64 = 7 << 8;
    /// Where the vector stands.
    pub const VECTOR_MASK: u64 = 0xff;
}

//! A virtual processor's hardware half: the state that the processor itself loads, runs and saves.
//!
//! The core reads and writes guest registers here while the vCPU does not run, and calls [`Vcpu::run`]. It may change all that
//! is the guest's own ([`GuestState`], general and lazy registers). What decides over the guest's power (intercepts, permission
//! maps, nested paging, tags) it can look at only: that is set here, and each change that the core may want has a method which
//! makes that one change (`control`). Even a vCPU's own half cannot be put in another's place:
//!
//! ```compile_fail
//! fn let_out(vcpu: &mut machine::vcpu::Vcpu, other: &machine::vcpu::Vcpu) {
//!     *vcpu.control() = other.control().clone();
//! }
//! ```
//!
//! What must be exchanged only when another vCPU takes the CPU (vector registers, debug registers, a few MSRs) is exchanged in
//! [`Vcpu::load`] and [`Vcpu::save`], not at every exit.

mod control;

pub use control::InterruptShadow;

use crate::arch;
use crate::boxed::{Boxed, OutOfMemory};
use crate::codec::registers::{Register, cr0, rflags};
use crate::codec::tags::AddressSpaceTag;
use crate::codec::vmcb::{Control, GuestState, Segment, Vmcb, intercept_1, intercept_2, v_intr};
use crate::exit::Exit;
use crate::frame::{self, Kind};
use crate::table::Root;
use crate::units::{DomId, Maddr};
use alloc::vec::Vec;

/// General registers by encoding; the places of RAX and RSP are unused, because the VMCB holds those.
pub type GeneralRegisters = [u64; 16];

/// 64 bytes of extended state, aligned as XSAVE wants it (APM volume 4, XSAVE).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct StateBlock(pub [u8; 64]);

/// State that is exchanged when vCPUs change, not at every exit.
#[derive(Debug)]
pub struct LazyState {
    /// The XSAVE area in standard format. Its length is the processor's, which writes all of it.
    pub(crate) extended: Vec<StateBlock>,
    /// XCR0.
    pub xcr0: u64,
    /// The XSS MSR.
    pub xss: u64,
    /// The TSC_AUX MSR.
    pub tsc_aux: u64,
    /// Debug address registers DR0 to DR3.
    pub debug_address: [u64; 4],
}

impl LazyState {
    /// The XSAVE area in standard format.
    pub fn extended(&self) -> &[StateBlock] {
        &self.extended
    }

    /// As [`LazyState::extended`], for changing it. The processor refuses to load a header that it does not know (APM volume 4,
    /// XRSTOR), and the hypervisor with it: what comes from outside is checked before.
    pub fn extended_mut(&mut self) -> &mut [StateBlock] {
        &mut self.extended
    }

    /// Whether there is an unmasked x87 error that waits to be raised: the status word's error summary (APM volume 1, 6.2.2).
    /// Without an x87 part the state has none: XRSTOR then loads the initial one.
    pub fn has_pending_error(&self) -> bool {
        const STATUS: usize = 2;
        const ERROR_SUMMARY: u8 = 1 << 7;
        let is_x87_present = self.extended.get(HEADER_BLOCK).is_some_and(|StateBlock(header)| header[0] & 1 != 0);
        is_x87_present && self.extended.first().is_some_and(|StateBlock(first)| first[STATUS] & ERROR_SUMMARY != 0)
    }
}

/// The block with the XSAVE header: behind 512 bytes of legacy state (APM volume 4, XSAVE).
const HEADER_BLOCK: usize = 512 / 64;

/// The hardware half of a vCPU.
#[derive(Debug)]
pub struct Vcpu {
    vmcb: Boxed<Vmcb>,
    /// Where the processor finds the control block.
    place: Maddr,
    general: GeneralRegisters,
    lazy: LazyState,
    tag: AddressSpaceTag,
}

/// Bytes of legacy state, MXCSR's place, and its value after reset (APM volume 2, 11.4.4 and 14.1.3).
const MXCSR_OFFSET: usize = 24;
const MXCSR_RESET: u32 = 0x1f80;
const FCW_RESET: u16 = 0x037f;
/// DR7's enable bits, local and global, of the four breakpoints (APM volume 2, 13.1.1.4).
const ARMED: u64 = 0xff;
/// The PAT MSR after reset (APM volume 2, 7.8.2).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

impl Vcpu {
    /// A vCPU of `owner` as after power-on, with the hypervisor's standing intercepts, that translates through `root`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    ///
    /// # Panics
    /// If `root` is no table of `owner` any more: the processor would walk somebody else's page.
    pub fn try_new(owner: DomId, root: Root) -> Result<Self, OutOfMemory> {
        let is_table = |state: frame::State| state.kind == Kind::Table && state.owner == owner;
        assert!(frame::state(root.mfn()).is_some_and(is_table), "{root:?} is no table of {owner:?}");
        let blocks = arch::extended_state_bytes().div_ceil(64);
        let mut extended = Vec::new();
        extended.try_reserve_exact(blocks).map_err(|_| OutOfMemory)?;
        extended.resize(blocks, StateBlock([0; 64]));
        let mut vmcb = Boxed::try_new(Vmcb::ZERO)?;
        let place = arch::control_block_address(&mut vmcb);
        let mut vcpu = Self {
            vmcb,
            place,
            general: [0; 16],
            lazy: LazyState { extended, xcr0: 1, xss: 0, tsc_aux: 0, debug_address: [0; 4] },
            tag: AddressSpaceTag::default(),
        };
        arch::check_control_block(&vcpu.vmcb);
        vcpu.set_intercepts(root);
        vcpu.reset();
        Ok(vcpu)
    }

    /// The standing part of the VMCB. Control-register reads are never intercepted: with nested paging the guest sees
    /// hardware's own values, and one emulator reports every such read as CR0's.
    fn set_intercepts(&mut self, root: Root) {
        let control = &mut self.vmcb.control;
        control.intercept_cr_write = 1 << 0 | 1 << 4;
        control.intercept_dr_read = 0xffff;
        control.intercept_dr_write = 0xffff;
        // #AC and #DB can be raised without end inside the processor (XSA-156): the hypervisor takes and forwards them.
        control.intercept_exceptions = 1 << 1 | 1 << 17 | 1 << 18;
        control.intercept_1 = intercept_1::INTR
            | intercept_1::NMI
            | intercept_1::SMI
            | intercept_1::INIT
            | intercept_1::RDPMC
            | intercept_1::CPUID
            | intercept_1::INVD
            | intercept_1::HLT
            | intercept_1::INVLPGA
            | intercept_1::IOIO
            | intercept_1::MSR
            | intercept_1::TASK_SWITCH
            | intercept_1::SHUTDOWN;
        control.intercept_2 = intercept_2::VMRUN
            | intercept_2::VMMCALL
            | intercept_2::VMLOAD
            | intercept_2::VMSAVE
            | intercept_2::STGI
            | intercept_2::CLGI
            | intercept_2::SKINIT
            | intercept_2::WBINVD
            | intercept_2::MONITOR
            | intercept_2::MWAIT
            | intercept_2::XSETBV
            | intercept_2::RDPRU;
        let maps = arch::permission_maps();
        control.iopm_base = maps.ports.number();
        control.msrpm_base = maps.msrs.number();
        control.v_intr = v_intr::MASKING;
        control.nested_control = 1;
        control.nested_cr3 = root.mfn().address().number();
    }

    /// Sets all guest registers to what INIT and reset leave (APM volume 2, 14.1.3): real mode at 0xfffffff0, and no
    /// translation cached.
    pub fn reset(&mut self) {
        self.flush_translations();
        let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
        let guest = &mut self.vmcb.guest;
        guest.cs = Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff_0000 };
        (guest.ds, guest.es, guest.fs, guest.gs, guest.ss) = (data, data, data, data, data);
        (guest.gdtr, guest.idtr) = (Segment { attributes: 0, ..data }, Segment { attributes: 0, ..data });
        guest.ldtr = Segment { attributes: 0x82, ..data };
        guest.tr = Segment { attributes: 0x8b, ..data };
        guest.cpl = 0;
        guest.set_efer(0);
        (guest.cr0, guest.cr2, guest.cr3, guest.cr4) = (cr0::ET | cr0::CD | cr0::NW, 0, 0, 0);
        (guest.dr6, guest.dr7) = (0xffff_0ff0, 0x400);
        (guest.rflags, guest.rip, guest.rsp, guest.rax) = (rflags::RESERVED_1, 0xfff0, 0, 0);
        (guest.star, guest.lstar, guest.cstar, guest.sfmask, guest.kernel_gs_base) = (0, 0, 0, 0, 0);
        (guest.sysenter_cs, guest.sysenter_esp, guest.sysenter_eip) = (0, 0, 0);
        guest.g_pat = PAT_RESET;
        let control = &mut self.vmcb.control;
        (control.event_injection, control.interrupt_shadow, control.exit_int_info) = (0, 0, 0);
        self.general = [0; 16];
        self.lazy.xcr0 = 1;
        self.lazy.xss = 0;
        self.lazy.tsc_aux = 0;
        self.lazy.debug_address = [0; 4];
        self.lazy.extended.fill(StateBlock([0; 64]));
        if let Some(StateBlock(first)) = self.lazy.extended.first_mut() {
            first[..2].copy_from_slice(&FCW_RESET.to_le_bytes());
            first[MXCSR_OFFSET..MXCSR_OFFSET + 4].copy_from_slice(&MXCSR_RESET.to_le_bytes());
        }
    }

    /// The half of the control block that decides over the guest.
    #[inline]
    pub fn control(&self) -> &Control {
        &self.vmcb.control
    }

    /// The half that is the guest's own.
    #[inline]
    pub fn guest(&self) -> &GuestState {
        &self.vmcb.guest
    }

    /// As [`Vcpu::guest`], for changing it.
    #[inline]
    pub fn guest_mut(&mut self) -> &mut GuestState {
        &mut self.vmcb.guest
    }

    /// All of the control block, for tests that play the processor.
    #[cfg(not(target_os = "none"))]
    pub(crate) fn vmcb_mut(&mut self) -> &mut Vmcb {
        &mut self.vmcb
    }

    /// A general register.
    #[inline]
    pub fn register(&self, register: Register) -> u64 {
        match register {
            Register::Rax => self.vmcb.guest.rax,
            Register::Rsp => self.vmcb.guest.rsp,
            other => self.general[other as usize],
        }
    }

    /// Sets a general register.
    #[inline]
    pub fn set_register(&mut self, register: Register, value: u64) {
        match register {
            Register::Rax => self.vmcb.guest.rax = value,
            Register::Rsp => self.vmcb.guest.rsp = value,
            other => self.general[other as usize] = value,
        }
    }

    /// State that changes hands with the CPU. Valid while the vCPU is not loaded.
    pub fn lazy(&self) -> &LazyState {
        &self.lazy
    }

    /// As [`Vcpu::lazy`], for changing it.
    pub fn lazy_mut(&mut self) -> &mut LazyState {
        &mut self.lazy
    }

    /// Whether the guest runs 64-bit code.
    #[inline]
    pub fn is_64_bit(&self) -> bool {
        self.vmcb.guest.is_64_bit()
    }

    /// Gives the guest the debug address registers until the next [`Vcpu::save`], so that it can use them without exits.
    pub fn grant_debug_registers(&mut self) {
        self.vmcb.control.intercept_dr_read = 0;
        self.vmcb.control.intercept_dr_write = 0;
        arch::load_debug_registers(&self.lazy.debug_address);
    }

    /// Takes this vCPU's lazy state onto the CPU. DR7 is always the guest's: breakpoints that it has armed need its own
    /// addresses in the debug registers, not those that another vCPU has left there.
    pub fn load(&mut self) {
        arch::load_lazy(&self.lazy);
        if self.vmcb.guest.dr7 & ARMED != 0 {
            self.grant_debug_registers();
        }
    }

    /// Sets XCR0 of a loaded vCPU. The caller has checked the value against what the guest may use.
    pub fn set_xcr0(&mut self, value: u64) {
        self.lazy.xcr0 = value;
        arch::set_xcr0(value);
    }

    /// Sets TSC_AUX of a loaded vCPU.
    pub fn set_tsc_aux(&mut self, value: u64) {
        self.lazy.tsc_aux = value;
        arch::set_tsc_aux(value);
    }

    /// Takes the lazy state off the CPU again.
    pub fn save(&mut self) {
        if self.vmcb.control.intercept_dr_read == 0 {
            arch::save_debug_registers(&mut self.lazy.debug_address);
            self.vmcb.control.intercept_dr_read = 0xffff;
            self.vmcb.control.intercept_dr_write = 0xffff;
        }
        arch::save_lazy(&mut self.lazy);
    }

    /// Forgets all translations that the processor may hold for this vCPU, at its next entry.
    pub fn flush_translations(&mut self) {
        self.tag = AddressSpaceTag::default();
    }

    /// Runs the guest until something stops it. Interrupts that were the reason have been taken when this returns.
    #[inline]
    pub fn run(&mut self) -> Exit {
        arch::run(&mut self.vmcb, self.place, &mut self.general, &mut self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_error_makes_old_processors_restore_its_place() {
        let mut state =
            LazyState { extended: [StateBlock([0; 64]); 9].into(), xcr0: 1, xss: 0, tsc_aux: 0, debug_address: [0; 4] };
        assert!(!state.has_pending_error());
        // FSW with the error summary, in a state of which the x87 part is not in use, and then is.
        state.extended[0].0[2] = 0x81;
        assert!(!state.has_pending_error());
        state.extended[8].0[0] = 0b11;
        assert!(state.has_pending_error());
        state.extended[0].0[2] = 0x7f;
        assert!(!state.has_pending_error());
        state.extended.clear();
        assert!(!state.has_pending_error());
    }
}

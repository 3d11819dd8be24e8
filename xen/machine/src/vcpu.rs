//! A virtual processor's hardware half: the state that the processor itself loads, runs and saves.
//!
//! The core reads and writes guest registers here while the vCPU does not run, and calls [`Vcpu::run`]. What must be
//! exchanged only when another vCPU takes the CPU (vector registers, debug registers, a few MSRs) is exchanged in
//! [`Vcpu::load`] and [`Vcpu::save`], not at every exit.

use crate::arch;
use crate::boxed::{Boxed, OutOfMemory};
use crate::codec::registers::{Register, cr0, efer, rflags};
use crate::codec::tags::AddressSpaceTag;
use crate::codec::vmcb::{Segment, Vmcb, event, intercept_1, intercept_2, v_intr};
use crate::exit::Exit;
use crate::units::{Maddr, Mfn};
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
    /// The XSAVE area in standard format.
    pub extended: Vec<StateBlock>,
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
    /// A vCPU as after power-on, with the hypervisor's standing intercepts, that translates through `root`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(root: Mfn) -> Result<Self, OutOfMemory> {
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
    fn set_intercepts(&mut self, root: Mfn) {
        let vmcb = &mut *self.vmcb;
        vmcb.intercept_cr_write = 1 << 0 | 1 << 4;
        vmcb.intercept_dr_read = 0xffff;
        vmcb.intercept_dr_write = 0xffff;
        // #AC and #DB can be raised without end inside the processor (XSA-156): the hypervisor takes and forwards them.
        vmcb.intercept_exceptions = 1 << 1 | 1 << 17 | 1 << 18;
        vmcb.intercept_1 = intercept_1::INTR
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
        vmcb.intercept_2 = intercept_2::VMRUN
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
        vmcb.iopm_base = maps.ports.number();
        vmcb.msrpm_base = maps.msrs.number();
        vmcb.v_intr = v_intr::MASKING;
        vmcb.nested_control = 1;
        vmcb.nested_cr3 = root.address().number();
    }

    /// Sets all guest registers to what INIT and reset leave (APM volume 2, 14.1.3): real mode at 0xfffffff0, and no
    /// translation cached.
    pub fn reset(&mut self) {
        self.flush_translations();
        let data = Segment { selector: 0, attributes: 0x93, limit: 0xffff, base: 0 };
        let vmcb = &mut *self.vmcb;
        vmcb.cs = Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff_0000 };
        (vmcb.ds, vmcb.es, vmcb.fs, vmcb.gs, vmcb.ss) = (data, data, data, data, data);
        (vmcb.gdtr, vmcb.idtr) = (Segment { attributes: 0, ..data }, Segment { attributes: 0, ..data });
        vmcb.ldtr = Segment { attributes: 0x82, ..data };
        vmcb.tr = Segment { attributes: 0x8b, ..data };
        vmcb.cpl = 0;
        vmcb.efer = efer::SVME;
        (vmcb.cr0, vmcb.cr2, vmcb.cr3, vmcb.cr4) = (cr0::ET | cr0::CD | cr0::NW, 0, 0, 0);
        (vmcb.dr6, vmcb.dr7) = (0xffff_0ff0, 0x400);
        (vmcb.rflags, vmcb.rip, vmcb.rsp, vmcb.rax) = (rflags::RESERVED_1, 0xfff0, 0, 0);
        (vmcb.star, vmcb.lstar, vmcb.cstar, vmcb.sfmask, vmcb.kernel_gs_base) = (0, 0, 0, 0, 0);
        (vmcb.sysenter_cs, vmcb.sysenter_esp, vmcb.sysenter_eip) = (0, 0, 0);
        vmcb.g_pat = PAT_RESET;
        (vmcb.event_injection, vmcb.interrupt_shadow, vmcb.exit_int_info) = (0, 0, 0);
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

    /// The control block, guest state included.
    #[inline]
    pub fn vmcb(&self) -> &Vmcb {
        &self.vmcb
    }

    /// The control block for changing guest state. What must stay as the hypervisor set it (intercepts, permission maps,
    /// nested paging) is put right again by [`Vcpu::run`]'s caller through the methods here only.
    #[inline]
    pub fn vmcb_mut(&mut self) -> &mut Vmcb {
        &mut self.vmcb
    }

    /// A general register.
    #[inline]
    pub fn register(&self, register: Register) -> u64 {
        match register {
            Register::Rax => self.vmcb.rax,
            Register::Rsp => self.vmcb.rsp,
            other => self.general[other as usize],
        }
    }

    /// Sets a general register.
    #[inline]
    pub fn set_register(&mut self, register: Register, value: u64) {
        match register {
            Register::Rax => self.vmcb.rax = value,
            Register::Rsp => self.vmcb.rsp = value,
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
        self.vmcb.efer & efer::LMA != 0 && self.vmcb.cs.attributes & 1 << 9 != 0
    }

    /// Puts an event into the slot for delivery at the next entry; whatever was there is replaced.
    pub fn inject(&mut self, kind: u64, vector: u8, error_code: Option<u32>) {
        let error = error_code.map_or(0, |code| event::HAS_ERROR | u64::from(code) << 32);
        self.vmcb.event_injection = event::VALID | kind & event::TYPE_MASK | u64::from(vector) | error;
    }

    /// Whether an event waits in the slot.
    pub fn has_injection(&self) -> bool {
        self.vmcb.event_injection & event::VALID != 0
    }

    /// Gives the guest the debug address registers until the next [`Vcpu::save`], so that it can use them without exits.
    pub fn grant_debug_registers(&mut self) {
        self.vmcb.intercept_dr_read = 0;
        self.vmcb.intercept_dr_write = 0;
        arch::load_debug_registers(&self.lazy.debug_address);
    }

    /// Takes this vCPU's lazy state onto the CPU. DR7 is always the guest's: breakpoints that it has armed need its own
    /// addresses in the debug registers, not those that another vCPU has left there.
    pub fn load(&mut self) {
        arch::load_lazy(&self.lazy);
        if self.vmcb.dr7 & ARMED != 0 {
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
        if self.vmcb.intercept_dr_read == 0 {
            arch::save_debug_registers(&mut self.lazy.debug_address);
            self.vmcb.intercept_dr_read = 0xffff;
            self.vmcb.intercept_dr_write = 0xffff;
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

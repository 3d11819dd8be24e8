//! Contents of HVM save records on x86 (arch-x86/hvm/save.h): header, CPU, MSRs, machine check, Viridian.
//!
//! The devices' records are in `arch_hvm_save_devices.rs`, which this module re-exports. Their type codes and the
//! frame around them are in `hvm_save.rs`. Segment attributes (`*_arbytes`): bits 0-7 are descriptor bits 40-47,
//! bits 8-11 are 52-55, as in an SVM segment. Very old records have the latter in bits 12-15 instead, as in VMX; a
//! reader recognises them by bits 8-11 being 0 and bits 12-15 not.

pub use crate::arch_hvm_save_devices::*;
use crate::hvm_save::{SaveCode, SaveRecord};

constants! { u32 {
    HVM_FILE_MAGIC = 0x5438_1286, "[`HvmSaveHeader::magic`].";
    HVM_FILE_VERSION = 1, "[`HvmSaveHeader::version`].";
    FPU_INITIALISED = 1 << 0, "[`HvmHwCpu::flags`]: the FPU has been used.";
}}

abi! {
    /// `struct hvm_save_header`.
    pub struct HvmSaveHeader = 24 {
        0  magic: u32 = "[`HVM_FILE_MAGIC`].";
        4  version: u32 = "[`HVM_FILE_VERSION`].";
        8  changeset: u64 = "Of the hypervisor that saved; all ones if unknown.";
        16 cpuid: u32 = "EAX of CPUID leaf 1 on the host that saved.";
        20 gtsc_khz: u32 = "Rate of the guest's TSC.";
    }

    /// `struct hvm_hw_cpu`.
    pub struct HvmHwCpu = 1032 {
        0    fpu_regs: [u8; 512] = "FXSAVE image.";
        512  rax: u64;
        520  rbx: u64;
        528  rcx: u64;
        536  rdx: u64;
        544  rbp: u64;
        552  rsi: u64;
        560  rdi: u64;
        568  rsp: u64;
        576  r8: u64;
        584  r9: u64;
        592  r10: u64;
        600  r11: u64;
        608  r12: u64;
        616  r13: u64;
        624  r14: u64;
        632  r15: u64;
        640  rip: u64;
        648  rflags: u64;
        656  cr0: u64;
        664  cr2: u64;
        672  cr3: u64;
        680  cr4: u64;
        688  dr0: u64;
        696  dr1: u64;
        704  dr2: u64;
        712  dr3: u64;
        720  dr6: u64;
        728  dr7: u64;
        736  cs_sel: u32;
        740  ds_sel: u32;
        744  es_sel: u32;
        748  fs_sel: u32;
        752  gs_sel: u32;
        756  ss_sel: u32;
        760  tr_sel: u32;
        764  ldtr_sel: u32;
        768  cs_limit: u32;
        772  ds_limit: u32;
        776  es_limit: u32;
        780  fs_limit: u32;
        784  gs_limit: u32;
        788  ss_limit: u32;
        792  tr_limit: u32;
        796  ldtr_limit: u32;
        800  idtr_limit: u32;
        804  gdtr_limit: u32;
        808  cs_base: u64;
        816  ds_base: u64;
        824  es_base: u64;
        832  fs_base: u64;
        840  gs_base: u64;
        848  ss_base: u64;
        856  tr_base: u64;
        864  ldtr_base: u64;
        872  idtr_base: u64;
        880  gdtr_base: u64;
        888  cs_arbytes: u32;
        892  ds_arbytes: u32;
        896  es_arbytes: u32;
        900  fs_arbytes: u32;
        904  gs_arbytes: u32;
        908  ss_arbytes: u32;
        912  tr_arbytes: u32;
        916  ldtr_arbytes: u32;
        920  sysenter_cs: u64;
        928  sysenter_esp: u64;
        936  sysenter_eip: u64;
        944  shadow_gs: u64 = "Base of the inactive GS.";
        952  msr_flags: u64 = "Unused.";
        960  msr_lstar: u64;
        968  msr_star: u64;
        976  msr_cstar: u64;
        984  msr_syscall_mask: u64;
        992  msr_efer: u64;
        1000 msr_tsc_aux: u64;
        1008 tsc: u64 = "Guest's TSC when it was saved.";
        1016 pending_event: u32 = "Vector in bits 0-7, type in 8-10, bit 11 has an error code, bit 31 valid.";
        1020 error_code: u32 = "Of the pending event.";
        1024 flags: u32 = "[`FPU_INITIALISED`] or 0.";
        1028 pad0: u32 = "Must be 0.";
    }

    /// `struct hvm_hw_cpu_xsave`, up to the end of the XSAVE header; the extended area follows.
    pub struct HvmHwCpuXsave = 600 {
        0   xfeature_mask: u64 = "Components that the guest may have.";
        8   xcr0: u64 = "XCR0.";
        16  xcr0_accum: u64 = "All XCR0 bits ever set.";
        24  fpu_sse: [u8; 512] = "Legacy area (in `save_area`).";
        536 xstate_bv: u64 = "Components that are present.";
        544 xcomp_bv: u64 = "Compacted format.";
        552 xsave_reserved: [u64; 6] = "Must be 0.";
    }

    /// `struct hvm_vmce_vcpu`.
    pub struct HvmVmceVcpu = 32 {
        0  caps: u64 = "MCG_CAP.";
        8  mci_ctl2_bank0: u64 = "MC0_CTL2.";
        16 mci_ctl2_bank1: u64 = "MC1_CTL2.";
        24 mcg_ext_ctl: u64 = "MCG_EXT_CTL.";
    }

    /// `struct hvm_tsc_adjust`.
    pub struct HvmTscAdjust = 8 {
        0 tsc_adjust: u64 = "IA32_TSC_ADJUST.";
    }

    /// `struct hvm_msr`, before its entries.
    pub struct HvmMsrHeader = 8 {
        0 count: u32 = "Number of [`HvmOneMsr`] that follow.";
        4 pad: [u8; 4];
    }

    /// `struct hvm_one_msr`.
    pub struct HvmOneMsr = 16 {
        0 index: u32 = "MSR.";
        4 rsvd: u32 = "Must be 0.";
        8 val: u64 = "Value.";
    }

    /// `struct hvm_viridian_domain_context`.
    pub struct HvmViridianDomain = 32 {
        0  hypercall_gpa: u64 = "HV_X64_MSR_HYPERCALL.";
        8  guest_os_id: u64 = "HV_X64_MSR_GUEST_OS_ID.";
        16 time_ref_count: u64 = "Reference counter, 100 ns.";
        24 reference_tsc: u64 = "HV_X64_MSR_REFERENCE_TSC.";
    }

    /// `struct hvm_viridian_vcpu_context`.
    pub struct HvmViridianVcpu = 216 {
        0   vp_assist_msr: u64 = "HV_X64_MSR_VP_ASSIST_PAGE.";
        8   apic_assist_pending: u8 = "1 if an EOI assist is pending.";
        9   pad: [u8; 7];
        16  simp_msr: u64 = "Message page.";
        24  sint_msr: [u64; 16] = "Synthetic interrupt sources.";
        152 stimer_config_msr: [u64; 4] = "Synthetic timers.";
        184 stimer_count_msr: [u64; 4] = "Synthetic timers.";
    }
}

macro_rules! save_records {
    ($( $record:ty => $code:ident; )*) => {
        $(
            impl SaveRecord for $record {
                const CODE: SaveCode = SaveCode::$code;
            }
        )*
    };
}

save_records! {
    HvmSaveHeader => Header;
    HvmHwCpu => Cpu;
    HvmHwVpic => Pic;
    HvmHwVioapic => Ioapic;
    HvmHwLapic => Lapic;
    HvmHwLapicRegs => LapicRegs;
    HvmHwPciIrqs => PciIrq;
    HvmHwIsaIrqs => IsaIrq;
    HvmHwPciLink => PciLink;
    HvmHwPit => Pit;
    HvmHwRtc => Rtc;
    HvmHwHpet => Hpet;
    HvmHwPmtimer => Pmtimer;
    HvmHwMtrr => Mtrr;
    HvmViridianDomain => ViridianDomain;
    HvmViridianVcpu => ViridianVcpu;
    HvmVmceVcpu => VmceVcpu;
    HvmTscAdjust => TscAdjust;
}

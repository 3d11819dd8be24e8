//! Parameters of sysctl for power management, profiling, resource control and live patching (public/sysctl.h).
//!
//! `sysctl.rs` ties them to commands. None of them is needed to start a guest.

use crate::bitmap::Bitmap;
use crate::handle::GuestPtr;

operations! {
    /// [`TbufOp::cmd`].
    pub enum TbufOperation("XEN_SYSCTL_TBUFOP_") {
        /// OUT: frame and size.
        GetInfo = 0 "get_info";
        /// Trace these CPUs.
        SetCpuMask = 1 "set_cpu_mask";
        /// Trace these events.
        SetEvtMask = 2 "set_evt_mask";
        /// Set the size.
        SetSize = 3 "set_size";
        /// Start.
        Enable = 4 "enable";
        /// Stop.
        Disable = 5 "disable";
    }

    /// [`GetPmStat::kind`].
    pub enum PmStat("PMSTAT_") {
        /// A `u32`.
        GetMaxPx = 0x11 "get_max_px";
        /// [`PmPxStat`].
        GetPxStat = 0x12 "get_pxstat";
        /// No parameter.
        ResetPxStat = 0x13 "reset_pxstat";
        /// A `u32`.
        GetMaxCx = 0x21 "get_max_cx";
        /// [`PmCxStat`].
        GetCxStat = 0x22 "get_cxstat";
        /// No parameter.
        ResetCxStat = 0x23 "reset_cxstat";
    }

    /// [`CpuHotplug::op`].
    pub enum HotplugOperation("XEN_SYSCTL_CPU_HOTPLUG_") {
        /// Start the CPU.
        Online = 0 "ONLINE";
        /// Stop the CPU.
        Offline = 1 "OFFLINE";
        /// Start all sibling threads.
        SmtEnable = 2 "SMT_ENABLE";
        /// Stop all sibling threads.
        SmtDisable = 3 "SMT_DISABLE";
    }

    /// [`PmOp::cmd`].
    pub enum PmOperation("") {
        /// [`CpufreqPara`].
        GetCpufreqPara = 0x11 "GET_CPUFREQ_PARA";
        /// 16 bytes: the governor's name.
        SetCpufreqGov = 0x12 "SET_CPUFREQ_GOV";
        /// [`SetCpufreqPara`].
        SetCpufreqPara = 0x13 "SET_CPUFREQ_PARA";
        /// A `u64`.
        GetCpufreqAvgfreq = 0x14 "GET_CPUFREQ_AVGFREQ";
        /// A `u32`.
        SetSchedOptSmt = 0x21 "XEN_SYSCTL_pm_op_set_sched_opt_smt";
        /// A `u32`.
        GetMaxCstate = 0x22 "XEN_SYSCTL_pm_op_get_max_cstate";
        /// A `u32`.
        SetMaxCstate = 0x23 "XEN_SYSCTL_pm_op_set_max_cstate";
        /// Obsolete.
        SetVcpuMigrationDelay = 0x24 "XEN_SYSCTL_pm_op_set_vcpu_migration_delay";
        /// Obsolete.
        GetVcpuMigrationDelay = 0x25 "XEN_SYSCTL_pm_op_get_vcpu_migration_delay";
        /// No parameter.
        EnableTurbo = 0x26 "XEN_SYSCTL_pm_op_enable_turbo";
        /// No parameter.
        DisableTurbo = 0x27 "XEN_SYSCTL_pm_op_disable_turbo";
    }

    /// [`LivepatchOp::cmd`].
    pub enum LivepatchOperation("XEN_SYSCTL_LIVEPATCH_") {
        /// [`LivepatchUpload`].
        Upload = 0 "UPLOAD";
        /// [`LivepatchGet`].
        Get = 1 "GET";
        /// [`LivepatchList`].
        List = 2 "LIST";
        /// [`LivepatchAction`].
        Action = 3 "ACTION";
    }
}

abi! {
    /// `struct xen_sysctl_tbuf_op`.
    pub struct TbufOp = 48 {
        0  cmd: u32 = "A [`TbufOperation`].";
        4  pad0: [u8; 4];
        8  cpu_mask: Bitmap = "CPUs.";
        24 evt_mask: u32 = "Event classes.";
        28 pad1: [u8; 4];
        32 buffer_mfn: u64 = "OUT: machine frame of the buffers' description.";
        40 size: u32 = "Pages per CPU; OUT bytes of the description.";
        44 pad2: [u8; 4];
    }

    /// `struct xen_sysctl_perfc_op`.
    pub struct PerfcOp = 32 {
        0  cmd: u32 = "1 reset, 2 query.";
        4  nr_counters: u32 = "OUT.";
        8  nr_vals: u32 = "OUT.";
        12 pad: [u8; 4];
        16 desc: GuestPtr<PerfcDesc> = "OUT.";
        24 val: GuestPtr<u32> = "OUT.";
    }

    /// `struct xen_sysctl_perfc_desc`.
    pub struct PerfcDesc = 84 {
        0  name: [u8; 80] = "Name.";
        80 nr_vals: u32 = "Values.";
    }

    /// `struct pm_px_val`.
    pub struct PmPxVal = 24 {
        0  freq: u64 = "MHz.";
        8  residency: u64 = "Nanoseconds.";
        16 count: u64 = "Entries.";
    }

    /// `struct pm_px_stat`.
    pub struct PmPxStat = 24 {
        0  total: u8 = "States.";
        1  usable: u8 = "Usable states.";
        2  last: u8 = "Previous state.";
        3  cur: u8 = "Present state.";
        4  pad: [u8; 4];
        8  trans_pt: GuestPtr<u64> = "OUT: transitions.";
        16 pt: GuestPtr<PmPxVal> = "OUT: per state.";
    }

    /// `struct pm_cx_stat`.
    pub struct PmCxStat = 56 {
        0  nr: u32 = "States.";
        4  last: u32 = "Previous state.";
        8  idle_time: u64 = "Nanoseconds.";
        16 triggers: GuestPtr<u64> = "OUT: entries per state.";
        24 residencies: GuestPtr<u64> = "OUT: nanoseconds per state.";
        32 nr_pc: u32 = "Package states.";
        36 nr_cc: u32 = "Core states.";
        40 pc: GuestPtr<u64> = "OUT: residencies.";
        48 cc: GuestPtr<u64> = "OUT: residencies.";
    }

    /// `struct xen_sysctl_get_pmstat`.
    pub struct GetPmStat = 64 {
        0 kind: u32 = "A [`PmStat`] (the member `type`).";
        4 cpuid: u32 = "CPU.";
        8 u: [u64; 7] = "Chosen by `kind`.";
    }

    /// `struct xen_sysctl_cpu_hotplug`.
    pub struct CpuHotplug = 8 {
        0 cpu: u32 = "CPU.";
        4 op: u32 = "A [`HotplugOperation`].";
    }

    /// `struct xen_get_cpufreq_para`.
    pub struct CpufreqPara = 120 {
        0   cpu_num: u32 = "IN: room; OUT: number.";
        4   freq_num: u32 = "IN: room; OUT: number.";
        8   gov_num: u32 = "IN: room; OUT: number.";
        12  pad0: [u8; 4];
        16  affected_cpus: GuestPtr<u32> = "OUT.";
        24  scaling_available_frequencies: GuestPtr<u32> = "OUT: kHz.";
        32  scaling_available_governors: GuestPtr<u8> = "OUT: names of 16 bytes.";
        40  scaling_driver: [u8; 16] = "Name.";
        56  cpuinfo_cur_freq: u32 = "kHz.";
        60  cpuinfo_max_freq: u32 = "kHz.";
        64  cpuinfo_min_freq: u32 = "kHz.";
        68  scaling_cur_freq: u32 = "kHz.";
        72  scaling_governor: [u8; 16] = "Name.";
        88  scaling_max_freq: u32 = "kHz.";
        92  scaling_min_freq: u32 = "kHz.";
        96  u: [u32; 4] = "userspace: speed; ondemand: largest, smallest, present sampling rate, threshold.";
        112 turbo_enabled: i32 = "0 or 1.";
        116 pad1: [u8; 4];
    }

    /// `struct xen_set_cpufreq_para`.
    pub struct SetCpufreqPara = 8 {
        0 ctrl_type: u32 = "1 largest, 2 smallest, 3 set speed, 4 sampling rate, 5 threshold.";
        4 ctrl_value: u32 = "Value.";
    }

    /// `struct xen_sysctl_pm_op`.
    pub struct PmOp = 128 {
        0 cmd: u32 = "A [`PmOperation`].";
        4 cpuid: u32 = "CPU.";
        8 u: [u64; 15] = "Chosen by `cmd`.";
    }

    /// `struct xen_sysctl_page_offline_op`.
    pub struct PageOfflineOp = 24 {
        0  cmd: u32 = "1 offline, 2 online, 3 query.";
        4  start: u32 = "First machine frame.";
        8  end: u32 = "Last machine frame, included.";
        12 pad: [u8; 4];
        16 status: GuestPtr<u32> = "OUT: per frame.";
    }

    /// `struct xen_sysctl_lockprof_data`.
    pub struct LockprofData = 80 {
        0  name: [u8; 40] = "Name.";
        40 kind: i32 = "0 global, 1 per domain (the member `type`).";
        44 idx: i32 = "Domain.";
        48 lock_cnt: u64 = "Times taken.";
        56 block_cnt: u64 = "Times waited.";
        64 lock_time: u64 = "Nanoseconds held.";
        72 block_time: u64 = "Nanoseconds waited.";
    }

    /// `struct xen_sysctl_lockprof_op`.
    pub struct LockprofOp = 32 {
        0  cmd: u32 = "1 reset, 2 query.";
        4  max_elem: u32 = "IN: room.";
        8  nr_elem: u32 = "OUT: number.";
        12 pad: [u8; 4];
        16 time: u64 = "OUT: nanoseconds of profiling.";
        24 data: GuestPtr<LockprofData> = "OUT.";
    }

    /// `struct xen_sysctl_coverage_op`.
    pub struct CoverageOp = 16 {
        0 cmd: u32 = "0 size, 1 read, 2 reset.";
        4 size: u32 = "Bytes.";
        8 buffer: GuestPtr<u8> = "OUT.";
    }

    /// `struct xen_sysctl_psr_cmt_op`.
    pub struct SysctlPsrCmtOp = 16 {
        0 cmd: u32 = "0 RMIDs, 1 upscaling, 2 cache size, 3 enabled, 4 event mask.";
        4 flags: u32 = "Unused.";
        8 data: u64 = "OUT; IN CPU in the lower half for 2 (the member `u`).";
    }

    /// `struct xen_sysctl_psr_alloc`.
    pub struct SysctlPsrAlloc = 20 {
        0 cmd: u32 = "0 L3, 1 L2, 2 bandwidth.";
        4 target: u32 = "Socket.";
        8 u: [u32; 3] = "OUT: length of the mask or largest throttle, largest class, flags.";
    }

    /// `struct xen_sysctl_cpu_levelling_caps`.
    pub struct CpuLevellingCaps = 4 {
        0 caps: u32 = "OUT: which CPUID words can be masked for PV.";
    }

    /// `struct xen_livepatch_name`.
    pub struct LivepatchName = 16 {
        0  name: GuestPtr<u8> = "Zero-terminated name.";
        8  size: u16 = "Bytes, at most 128.";
        10 pad: [u16; 3];
    }

    /// `struct xen_livepatch_status`.
    pub struct LivepatchStatus = 8 {
        0 state: u32 = "1 checked, 2 applied.";
        4 rc: i32 = "0, or a negative error.";
    }

    /// `struct xen_sysctl_livepatch_upload`.
    pub struct LivepatchUpload = 32 {
        0  name: LivepatchName = "IN.";
        16 size: u64 = "Bytes.";
        24 payload: GuestPtr<u8> = "IN.";
    }

    /// `struct xen_sysctl_livepatch_get`.
    pub struct LivepatchGet = 24 {
        0  name: LivepatchName = "IN.";
        16 status: LivepatchStatus = "OUT.";
    }

    /// `struct xen_sysctl_livepatch_list`.
    pub struct LivepatchList = 64 {
        0  version: u32 = "OUT.";
        4  idx: u32 = "IN: where to begin.";
        8  nr: u32 = "IN: room; OUT: remaining.";
        12 pad: u32;
        16 name_total_size: u32 = "Bytes of all names.";
        20 metadata_total_size: u32 = "Bytes of all metadata.";
        24 status: GuestPtr<LivepatchStatus> = "OUT.";
        32 name: GuestPtr<u8> = "OUT.";
        40 len: GuestPtr<u32> = "OUT: lengths of names.";
        48 metadata: GuestPtr<u8> = "OUT.";
        56 metadata_len: GuestPtr<u32> = "OUT: lengths of metadata.";
    }

    /// `struct xen_sysctl_livepatch_action`.
    pub struct LivepatchAction = 32 {
        0  name: LivepatchName = "IN.";
        16 cmd: u32 = "1 unload, 2 revert, 3 apply, 4 replace.";
        20 timeout: u32 = "Nanoseconds, 0 for the default.";
        24 flags: u32 = "1: no dependency check.";
        28 pad: u32 = "Must be 0.";
    }

    /// `struct xen_sysctl_livepatch_op`.
    pub struct LivepatchOp = 72 {
        0 cmd: u32 = "A [`LivepatchOperation`].";
        4 pad: u32 = "Must be 0.";
        8 u: [u64; 8] = "Chosen by `cmd`.";
    }
}

plain_union! { GetPmStat.u: 56; PmPxStat, PmCxStat, u32 }
plain_union! { PmOp.u: 120; CpufreqPara, SetCpufreqPara, [u8; 16], u64, u32 }
plain_union! { LivepatchOp.u: 64; LivepatchUpload, LivepatchGet, LivepatchList, LivepatchAction }

//! Scheduling parameters: per domain (domctl scheduler_op) and per CPU pool (sysctl scheduler_op).
//!
//! Facts: public/domctl.h and public/sysctl.h. Credit2 is the default scheduler; the others are here because the tools
//! name them.

use crate::domid::DomainHandle;
use crate::handle::GuestPtr;

operations! {
    /// A scheduler.
    pub enum SchedulerId("XEN_SCHEDULER_") {
        /// Credit.
        Credit = 5 "CREDIT";
        /// Credit2.
        Credit2 = 6 "CREDIT2";
        /// ARINC 653.
        Arinc653 = 7 "ARINC653";
        /// Real-time deferrable server.
        Rtds = 8 "RTDS";
        /// One vCPU per CPU.
        Null = 9 "NULL";
    }

    /// `cmd` of domctl's scheduler_op.
    pub enum DomctlSchedulerOp("XEN_DOMCTL_SCHEDOP_") {
        /// Set the domain's parameters.
        PutInfo = 0 "putinfo";
        /// Read them.
        GetInfo = 1 "getinfo";
        /// Set parameters of single vCPUs.
        PutVcpuInfo = 2 "putvcpuinfo";
        /// Read them.
        GetVcpuInfo = 3 "getvcpuinfo";
    }

    /// `cmd` of sysctl's scheduler_op.
    pub enum SysctlSchedulerOp("XEN_SYSCTL_SCHEDOP_") {
        /// Set the pool's parameters.
        PutInfo = 0 "putinfo";
        /// Read them.
        GetInfo = 1 "getinfo";
    }
}

constants! { u32 {
    RATELIMIT_MIN_US = 100, "Smallest rate limit, in microseconds; 0 switches it off.";
    RATELIMIT_MAX_US = 500_000, "Largest rate limit, in microseconds.";
    CREDIT_TSLICE_MIN_MS = 1, "Shortest time slice of credit, in milliseconds.";
    CREDIT_TSLICE_MAX_MS = 1000, "Longest time slice of credit, in milliseconds.";
    CREDIT_MIGRATION_DELAY_MAX_US = 100_000, "Longest migration delay of credit, in microseconds.";
    RTDS_EXTRA = 1 << 0, "[`DomctlSchedRtds::flags`]: may use spare time.";
}}

abi! {
    /// `struct xen_domctl_sched_credit`.
    pub struct DomctlSchedCredit = 4 {
        0 weight: u16 = "Share relative to others, 1 to 65535; 0 leaves it.";
        2 cap: u16 = "Percent of one CPU, 0 for no limit; all ones leaves it.";
    }

    /// `struct xen_domctl_sched_credit2`.
    pub struct DomctlSchedCredit2 = 4 {
        0 weight: u16 = "Share relative to others, 1 to 65535; 0 leaves it.";
        2 cap: u16 = "Percent of one CPU, 0 for no limit; all ones leaves it.";
    }

    /// `struct xen_domctl_sched_rtds`.
    pub struct DomctlSchedRtds = 12 {
        0 period: u32 = "Microseconds.";
        4 budget: u32 = "Microseconds in each period.";
        8 flags: u32 = "[`RTDS_EXTRA`] or 0.";
    }

    /// `struct xen_domctl_schedparam_vcpu`.
    pub struct SchedParamVcpu = 16 {
        0  u: [u32; 3] = "Parameters, chosen by the scheduler.";
        12 vcpuid: u32 = "vCPU.";
    }

    /// `struct xen_domctl_scheduler_op.u.v`.
    pub struct DomctlSchedVcpus = 16 {
        0  vcpus: GuestPtr<SchedParamVcpu> = "Parameters of single vCPUs.";
        8  nr_vcpus: u32 = "IN: entries; OUT: entries processed.";
        12 padding: u32 = "Must be 0.";
    }

    /// `struct xen_sysctl_credit_schedule`.
    pub struct SysctlSchedCredit = 12 {
        0 tslice_ms: u32 = "Time slice, in milliseconds.";
        4 ratelimit_us: u32 = "Shortest run, in microseconds.";
        8 vcpu_migr_delay_us: u32 = "Time during which a vCPU counts as cache-hot, in microseconds.";
    }

    /// `struct xen_sysctl_credit2_schedule`.
    pub struct SysctlSchedCredit2 = 4 {
        0 ratelimit_us: u32 = "Shortest run, in microseconds.";
    }

    /// `struct xen_sysctl_sched_arinc653`.
    pub struct SysctlSchedArinc653 = 8 {
        0 schedule: GuestPtr<Arinc653Schedule> = "The schedule.";
    }

    /// One entry of [`Arinc653Schedule`].
    pub struct Arinc653Entry = 32 {
        0  dom_handle: DomainHandle = "UUID of the domain.";
        16 vcpu_id: u32 = "vCPU.";
        20 pad: [u8; 4];
        24 runtime: u64 = "Nanoseconds.";
    }

    /// `struct xen_sysctl_arinc653_schedule`.
    pub struct Arinc653Schedule = 2064 {
        0  major_frame: u64 = "Nanoseconds of the whole schedule.";
        8  num_sched_entries: u8 = "Entries in use.";
        9  pad: [u8; 7];
        16 sched_entries: [Arinc653Entry; 64] = "The entries.";
    }
}

plain_union! { SchedParamVcpu.u: 12; DomctlSchedCredit, DomctlSchedCredit2, DomctlSchedRtds }

//! Layouts and numbers compared with the crate `xen-sys`, bindings generated from Xen's own headers by others.
//!
//! What it covers: xen.h, arch-x86, event_channel.h, sched.h and elfnote.h of interface 0x40e00, seen by a program that
//! declares interface version 0. It has no toolstack headers, so the remaining structures rest on the golden numbers in
//! the crate. Known differences: `vcpu_time_info.flags` is part of `pad1` for interface versions before 4.6; the header
//! constants `EVTCHN_FIFO_PENDING` … are bit numbers while ours are masks.
#![cfg(target_arch = "x86_64")]

use public_abi::{event_channel as event, sched, x86};

/// Asserts equal size and offsets; `ours => theirs` where the names differ.
macro_rules! same_layout {
    ($( $ours:ty, $theirs:ty { $( $field:ident $(=> $their_field:ident)? ),* $(,)? } )*) => {$(
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($ours));
        $(
            assert_eq!(
                core::mem::offset_of!($ours, $field),
                same_layout!(@offset $theirs, $field $(=> $their_field)?),
                "offset of {}.{}", stringify!($ours), stringify!($field)
            );
        )*
    )*};
    (@offset $theirs:ty, $field:ident) => { core::mem::offset_of!($theirs, $field) };
    (@offset $theirs:ty, $field:ident => $their_field:ident) => { core::mem::offset_of!($theirs, $their_field) };
}

#[test]
fn shared_pages() {
    same_layout! {
        x86::VcpuTimeInfo, xen_sys::vcpu_time_info {
            version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags => pad1
        }
        x86::ArchVcpuInfo, xen_sys::arch_vcpu_info { cr2, pad }
        x86::VcpuInfo, xen_sys::vcpu_info {
            evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, arch, time
        }
        x86::ArchSharedInfo, xen_sys::arch_shared_info {
            max_pfn, pfn_to_mfn_frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation
        }
        x86::SharedInfo, xen_sys::shared_info {
            vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, arch
        }
    }
    assert_eq!(x86::LEGACY_MAX_VCPUS, 32);
    assert_eq!(u32::try_from(x86::LEGACY_MAX_VCPUS), Ok(xen_sys::XEN_LEGACY_MAX_VCPUS));
}

#[test]
fn registers_and_policy() {
    same_layout! {
        x86::CpuUserRegs, xen_sys::cpu_user_regs {
            r15, r14, r13, r12, rbp => __bindgen_anon_1, rbx => __bindgen_anon_2, r11, r10, r9, r8,
            rax => __bindgen_anon_3, rcx => __bindgen_anon_4, rdx => __bindgen_anon_5, rsi => __bindgen_anon_6,
            rdi => __bindgen_anon_7, error_code, entry_vector, rip => __bindgen_anon_8, cs, saved_upcall_mask,
            rflags => __bindgen_anon_9, rsp => __bindgen_anon_10, ss, es, ds, fs, gs
        }
        x86::TrapInfo, xen_sys::trap_info { vector, flags, cs, address }
        x86::VcpuGuestContext, xen_sys::vcpu_guest_context {
            fpu_ctxt, flags, user_regs, trap_ctxt, ldt_base, ldt_ents, gdt_frames, gdt_ents, kernel_ss, kernel_sp,
            ctrlreg, debugreg, event_callback_eip, failsafe_callback_eip, syscall_callback_eip, vm_assist, fs_base,
            gs_base_kernel, gs_base_user
        }
        public_abi::cpu_policy::CpuidLeaf, xen_sys::xen_cpuid_leaf { leaf, subleaf, a, b, c, d }
        public_abi::cpu_policy::MsrEntry, xen_sys::xen_msr_entry { idx, flags, val }
        public_abi::multicall::MulticallEntry, xen_sys::multicall_entry { op, result, args }
    }
}

#[test]
fn event_channels() {
    same_layout! {
        event::AllocUnbound, xen_sys::evtchn_alloc_unbound { dom, remote_dom, port }
        event::BindInterdomain, xen_sys::evtchn_bind_interdomain { remote_dom, remote_port, local_port }
        event::BindVirq, xen_sys::evtchn_bind_virq { virq, vcpu, port }
        event::BindPirq, xen_sys::evtchn_bind_pirq { pirq, flags, port }
        event::BindIpi, xen_sys::evtchn_bind_ipi { vcpu, port }
        event::Port, xen_sys::evtchn_close { port }
        event::Port, xen_sys::evtchn_send { port }
        event::Port, xen_sys::evtchn_unmask { port }
        event::Status, xen_sys::evtchn_status { dom, port, status, vcpu, u }
        event::StatusUnbound, xen_sys::evtchn_status__bindgen_ty_1__bindgen_ty_1 { dom }
        event::StatusInterdomain, xen_sys::evtchn_status__bindgen_ty_1__bindgen_ty_2 { dom, port }
        event::BindVcpu, xen_sys::evtchn_bind_vcpu { port, vcpu }
        event::Reset, xen_sys::evtchn_reset { dom }
        event::InitControl, xen_sys::evtchn_init_control { control_gfn, offset, vcpu, link_bits, pad => _pad }
        event::ExpandArray, xen_sys::evtchn_expand_array { array_gfn }
        event::SetPriority, xen_sys::evtchn_set_priority { port, priority }
        event::FifoControlBlock, xen_sys::evtchn_fifo_control_block { ready, rsvd => _rsvd, head }
    }
}

#[test]
fn scheduling() {
    same_layout! {
        sched::SchedShutdown, xen_sys::sched_shutdown { reason }
        sched::SchedPoll, xen_sys::sched_poll { ports, nr_ports, timeout }
        sched::SchedRemoteShutdown, xen_sys::sched_remote_shutdown { domain_id, reason }
        sched::SchedWatchdog, xen_sys::sched_watchdog { id, timeout }
        sched::SchedPinOverride, xen_sys::sched_pin_override { pcpu }
    }
}

/// The value and the name of their constants.
macro_rules! theirs {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), xen_sys::$name)),*] };
}

/// Our enum and their constants must be the same set of names and numbers.
macro_rules! same_numbers {
    ($( $ours:ty, [$($name:ident),* $(,)?]; )*) => {$(
        let theirs: &[(&str, u32)] = theirs![$($name),*];
        let ours: Vec<(String, u32)> = <$ours>::ALL
            .iter()
            .map(|member| (format!("{}{}", <$ours>::FAMILY, member.name()), member.number()))
            .collect();
        let theirs: Vec<(String, u32)> = theirs.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        assert_eq!(ours, theirs);
    )*};
}

#[test]
fn numbers_of_operations() {
    same_numbers! {
        event::EventChannelOp, [
            EVTCHNOP_bind_interdomain, EVTCHNOP_bind_virq, EVTCHNOP_bind_pirq, EVTCHNOP_close, EVTCHNOP_send,
            EVTCHNOP_status, EVTCHNOP_alloc_unbound, EVTCHNOP_bind_ipi, EVTCHNOP_bind_vcpu, EVTCHNOP_unmask,
            EVTCHNOP_reset, EVTCHNOP_init_control, EVTCHNOP_expand_array, EVTCHNOP_set_priority
        ];
        event::PortStatus, [
            EVTCHNSTAT_closed, EVTCHNSTAT_unbound, EVTCHNSTAT_interdomain, EVTCHNSTAT_pirq, EVTCHNSTAT_virq,
            EVTCHNSTAT_ipi
        ];
        sched::SchedOp, [
            SCHEDOP_yield, SCHEDOP_block, SCHEDOP_shutdown, SCHEDOP_poll, SCHEDOP_remote_shutdown,
            SCHEDOP_shutdown_code, SCHEDOP_watchdog, SCHEDOP_pin_override
        ];
        sched::ShutdownReason, [
            SHUTDOWN_poweroff, SHUTDOWN_reboot, SHUTDOWN_suspend, SHUTDOWN_crash, SHUTDOWN_watchdog,
            SHUTDOWN_soft_reset
        ];
        public_abi::console_io::ConsoleIoOp, [CONSOLEIO_write, CONSOLEIO_read];
        public_abi::vm_assist::VmAssistOp, [VMASST_CMD_enable, VMASST_CMD_disable];
        public_abi::vm_assist::VmAssistType, [
            VMASST_TYPE_4gb_segments, VMASST_TYPE_4gb_segments_notify, VMASST_TYPE_writable_pagetables,
            VMASST_TYPE_pae_extended_cr3, VMASST_TYPE_architectural_iopl, VMASST_TYPE_runstate_update_flag,
            VMASST_TYPE_m2p_strict
        ];
        public_abi::virq::Virq, [
            VIRQ_TIMER, VIRQ_DEBUG, VIRQ_CONSOLE, VIRQ_DOM_EXC, VIRQ_TBUF, VIRQ_DEBUGGER, VIRQ_XENOPROF,
            VIRQ_CON_RING, VIRQ_PCPU_STATE, VIRQ_MEM_EVENT, VIRQ_ARGO, VIRQ_ENOMEM, VIRQ_XENPMU, VIRQ_ARCH_0,
            VIRQ_ARCH_1, VIRQ_ARCH_2, VIRQ_ARCH_3, VIRQ_ARCH_4, VIRQ_ARCH_5, VIRQ_ARCH_6, VIRQ_ARCH_7
        ];
        public_abi::elfnote::ElfNote, [
            XEN_ELFNOTE_INFO, XEN_ELFNOTE_ENTRY, XEN_ELFNOTE_HYPERCALL_PAGE, XEN_ELFNOTE_VIRT_BASE,
            XEN_ELFNOTE_PADDR_OFFSET, XEN_ELFNOTE_XEN_VERSION, XEN_ELFNOTE_GUEST_OS, XEN_ELFNOTE_GUEST_VERSION,
            XEN_ELFNOTE_LOADER, XEN_ELFNOTE_PAE_MODE, XEN_ELFNOTE_FEATURES, XEN_ELFNOTE_BSD_SYMTAB,
            XEN_ELFNOTE_HV_START_LOW, XEN_ELFNOTE_L1_MFN_VALID, XEN_ELFNOTE_SUSPEND_CANCEL, XEN_ELFNOTE_INIT_P2M,
            XEN_ELFNOTE_MOD_START_PFN, XEN_ELFNOTE_SUPPORTED_FEATURES, XEN_ELFNOTE_PHYS32_ENTRY,
            XEN_ELFNOTE_CRASH_INFO, XEN_ELFNOTE_CRASH_REGS, XEN_ELFNOTE_DUMPCORE_NONE, XEN_ELFNOTE_DUMPCORE_HEADER,
            XEN_ELFNOTE_DUMPCORE_XEN_VERSION, XEN_ELFNOTE_DUMPCORE_FORMAT_VERSION
        ];
    }
    assert_eq!(public_abi::virq::NR_VIRQS, xen_sys::NR_VIRQS);
}

#[test]
fn numbers_of_hypercalls() {
    let theirs: &[(&str, u32)] = theirs![
        __HYPERVISOR_platform_op,
        __HYPERVISOR_memory_op,
        __HYPERVISOR_multicall,
        __HYPERVISOR_set_timer_op,
        __HYPERVISOR_xen_version,
        __HYPERVISOR_console_io,
        __HYPERVISOR_grant_table_op,
        __HYPERVISOR_vm_assist,
        __HYPERVISOR_vcpu_op,
        __HYPERVISOR_xsm_op,
        __HYPERVISOR_sched_op,
        __HYPERVISOR_event_channel_op,
        __HYPERVISOR_physdev_op,
        __HYPERVISOR_hvm_op,
        __HYPERVISOR_sysctl,
        __HYPERVISOR_domctl,
        __HYPERVISOR_argo_op,
        __HYPERVISOR_xenpmu_op,
        __HYPERVISOR_dm_op,
        __HYPERVISOR_hypfs_op,
    ];
    let ours: Vec<(String, u64)> =
        public_abi::hypercall::TABLE.iter().map(|row| (format!("__HYPERVISOR_{}", row.name), row.number)).collect();
    let theirs: Vec<(String, u64)> =
        theirs.iter().map(|(name, number)| ((*name).to_owned(), u64::from(*number))).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn constants() {
    assert_eq!(event::FIFO_PENDING, 1 << xen_sys::EVTCHN_FIFO_PENDING);
    assert_eq!(event::FIFO_MASKED, 1 << xen_sys::EVTCHN_FIFO_MASKED);
    assert_eq!(event::FIFO_LINKED, 1 << xen_sys::EVTCHN_FIFO_LINKED);
    assert_eq!(event::FIFO_BUSY, 1 << xen_sys::EVTCHN_FIFO_BUSY);
    assert_eq!(event::FIFO_LINK_BITS, xen_sys::EVTCHN_FIFO_LINK_BITS);
    assert_eq!(event::FIFO_LINK_MASK, xen_sys::EVTCHN_FIFO_LINK_MASK);
    assert_eq!(event::FIFO_NR_CHANNELS, xen_sys::EVTCHN_FIFO_NR_CHANNELS);
    assert_eq!(event::FIFO_MAX_QUEUES, xen_sys::EVTCHN_FIFO_MAX_QUEUES);
    assert_eq!(event::FIFO_PRIORITY_DEFAULT, xen_sys::EVTCHN_FIFO_PRIORITY_DEFAULT);
    assert_eq!(event::FIFO_PRIORITY_MIN, xen_sys::EVTCHN_FIFO_PRIORITY_MIN);
    assert_eq!(event::BIND_PIRQ_WILL_SHARE, xen_sys::BIND_PIRQ__WILL_SHARE);
    assert_eq!(x86::SIF_PRIVILEGED, xen_sys::SIF_PRIVILEGED);
    assert_eq!(x86::SIF_INITDOMAIN, xen_sys::SIF_INITDOMAIN);
    assert_eq!(x86::SIF_PM_MASK, xen_sys::SIF_PM_MASK);
    assert_eq!(u32::from(x86::PVCLOCK_TSC_STABLE), xen_sys::XEN_PVCLOCK_TSC_STABLE_BIT);
    assert_eq!(u32::from(x86::PVCLOCK_GUEST_STOPPED), xen_sys::XEN_PVCLOCK_GUEST_STOPPED);
    assert_eq!(u32::from(x86::HVM_DEBUGCONS_IOPORT), xen_sys::XEN_HVM_DEBUGCONS_IOPORT);
    assert_eq!(public_abi::cpu_policy::CPUID_NO_SUBLEAF, xen_sys::XEN_CPUID_NO_SUBLEAF);
}

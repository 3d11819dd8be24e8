//! PV callbacks (hypercall 30, public/callback.h): numbers for traces only, the call itself is PV-only.

operations! {
    /// What to do with a callback.
    pub enum CallbackOp("CALLBACKOP_") {
        /// Set it.
        Register = 0 "register";
        /// Remove it.
        Unregister = 1 "unregister";
    }

    /// Which callback.
    pub enum CallbackType("CALLBACKTYPE_") {
        /// Event-channel upcall.
        Event = 0 "event";
        /// Failed return to the guest.
        Failsafe = 1 "failsafe";
        /// 64-bit system call.
        Syscall = 2 "syscall";
        /// Old number of sysenter.
        SysenterDeprecated = 3 "sysenter_deprecated";
        /// NMI.
        Nmi = 4 "nmi";
        /// 32-bit system call by sysenter.
        Sysenter = 5 "sysenter";
        /// 32-bit system call by syscall.
        Syscall32 = 7 "syscall32";
    }
}

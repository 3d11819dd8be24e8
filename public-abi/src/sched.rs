//! Scheduling requests of a guest (sched_op, hypercall 29, public/sched.h).

use crate::handle::GuestPtr;

operations! {
    /// What to do.
    pub enum SchedOp("SCHEDOP_") {
        /// Give up the CPU, stay runnable; no argument.
        Yield = 0 "yield";
        /// Wait for an event; unmasks upcalls first; no argument.
        Block = 1 "block";
        /// Stop this domain: [`SchedShutdown`].
        Shutdown = 2 "shutdown";
        /// Wait for one of some ports: [`SchedPoll`].
        Poll = 3 "poll";
        /// Stop another domain: [`SchedRemoteShutdown`].
        RemoteShutdown = 4 "remote_shutdown";
        /// Record why this domain will shut down: [`SchedShutdown`].
        ShutdownCode = 5 "shutdown_code";
        /// Set or poke a watchdog timer: [`SchedWatchdog`].
        Watchdog = 6 "watchdog";
        /// Bind the vCPU to a physical CPU for a while: [`SchedPinOverride`].
        PinOverride = 7 "pin_override";
    }

    /// Why a domain stopped.
    pub enum ShutdownReason("SHUTDOWN_") {
        /// It wants to be destroyed.
        Poweroff = 0 "poweroff";
        /// It wants to be started again.
        Reboot = 1 "reboot";
        /// It is ready to be saved.
        Suspend = 2 "suspend";
        /// It found itself broken.
        Crash = 3 "crash";
        /// Its watchdog expired.
        Watchdog = 4 "watchdog";
        /// It wants its state reset in place (kexec).
        SoftReset = 5 "soft_reset";
    }
}

abi! {
    /// `struct sched_shutdown`.
    pub struct SchedShutdown = 4 {
        0 reason: u32 = "A [`ShutdownReason`].";
    }

    /// `struct sched_poll`.
    pub struct SchedPoll = 24 {
        0  ports: GuestPtr<u32> = "Event-channel ports to wait for.";
        8  nr_ports: u32 = "Their number, at most 128.";
        12 pad: [u8; 4];
        16 timeout: u64 = "Absolute system time in nanoseconds; 0 waits for ever.";
    }

    /// `struct sched_remote_shutdown`.
    pub struct SchedRemoteShutdown = 8 {
        0 domain_id: u16 = "The domain.";
        2 pad: [u8; 2];
        4 reason: u32 = "A [`ShutdownReason`].";
    }

    /// `struct sched_watchdog`.
    pub struct SchedWatchdog = 8 {
        0 id: u32 = "0 to take a free timer (the result is its id), else the timer's id.";
        4 timeout: u32 = "Seconds from now; 0 stops the timer.";
    }

    /// `struct sched_pin_override`.
    pub struct SchedPinOverride = 4 {
        0 pcpu: i32 = "Physical CPU, or negative to undo.";
    }
}

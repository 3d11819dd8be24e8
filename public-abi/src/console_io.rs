//! The emergency console (hypercall 18, public/xen.h): bytes to and from the hypervisor's own console.
//!
//! In 4.17 release builds only the hardware domain may use it; other domains get -EPERM.

operations! {
    /// What to do with the console.
    pub enum ConsoleIoOp("CONSOLEIO_") {
        /// Print `count` bytes of `buffer`.
        Write = 0 "write";
        /// Read up to `count` bytes into `buffer`; the result is their number.
        Read = 1 "read";
    }
}

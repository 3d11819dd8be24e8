//! Gets what the tests need onto this machine: QEMU, Debian's kernels and Xen tools, GRUB's image maker.
//!
//! Packages that only serve as files (kernels, Xen, xl) are downloaded with apt and unpacked below `target/oxen/cache`,
//! never installed. QEMU and GRUB's tools are installed, and only when they are missing. No archive's name stands in
//! these sources: all of it comes from the machine's own apt configuration.

pub(crate) mod apt;
pub(crate) mod grub;
pub(crate) mod kernel_elf;
pub(crate) mod packages;
pub(crate) mod qemu;
mod qemu_corrections;
pub(crate) mod qemu_patch;
pub(crate) mod qemu_private;
pub(crate) mod sources;

//! Initial RAM file systems, written without root rights and without outside programs.
//!
//! A command describes the contents as a [`tree::Tree`]; [`cpio`] turns it into the archive that Linux unpacks at boot.
//! [`guest`] and [`dom0`] are the two images that the tests boot; [`sysroot`], [`elf`] and [`modules`] pick the files
//! out of unpacked Debian packages.

pub(crate) mod cpio;
pub(crate) mod disk;
pub(crate) mod dom0;
pub(crate) mod elf;
pub(crate) mod guest;
pub(crate) mod modules;
pub(crate) mod sysroot;
pub(crate) mod tree;

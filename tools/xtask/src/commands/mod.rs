//! The commands, one file each. A command reads its arguments, calls the parts, and says how it ended.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod demo;
pub(crate) mod docs;
pub(crate) mod dom0;
pub(crate) mod drawing;
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod interop;
pub(crate) mod iso;
pub(crate) mod lint;
pub(crate) mod test;
pub(crate) mod walkthrough;

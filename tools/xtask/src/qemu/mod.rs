//! QEMU as the machine under test: its command line, its process, the person's terminal.

pub(crate) mod command;
pub(crate) mod machine;
pub(crate) mod terminal;

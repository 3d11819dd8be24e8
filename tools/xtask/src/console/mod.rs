//! What comes out of a machine's serial console.
//!
//! [`filter`] takes the bytes apart into text for people and messages of the test image's init; [`protocol`] gives the
//! messages meaning; [`files`] puts files together that dom0 sends; [`crash`] recognises the ends that nobody wanted.

pub(crate) mod cases;
pub(crate) mod crash;
pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod protocol;

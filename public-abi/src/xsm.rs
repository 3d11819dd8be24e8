//! The security module's hypercall (27, public/xsm/flask_op.h).
//!
//! Without a security module the answer is -ENOSYS, which Debian's xl accepts; therefore only the version is here.

/// `XEN_FLASK_INTERFACE_VERSION` of 4.17.
pub const XEN_FLASK_INTERFACE_VERSION: u32 = 1;

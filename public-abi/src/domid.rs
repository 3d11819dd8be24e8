//! Domain identifiers with a special meaning, and the identifiers' range (public/xen.h).
//!
//! A domain identifier (`domid_t`) is 16 bits wide everywhere in the ABI. Used by nearly every other module.

constants! { u16 {
    DOMID_FIRST_RESERVED = 0x7ff0, "Identifiers from here on name no ordinary domain.";
    DOMID_SELF = 0x7ff0, "The calling domain.";
    DOMID_IO = 0x7ff1, "The owner of memory-mapped I/O.";
    DOMID_XEN = 0x7ff2, "The owner of hypervisor memory.";
    DOMID_COW = 0x7ff3, "The owner of pages shared copy-on-write.";
    DOMID_INVALID = 0x7ff4, "No domain.";
    DOMID_IDLE = 0x7fff, "The domain of the idle vCPUs.";
    DOMID_MASK = 0x7fff, "The bits that an identifier may use.";
}}

/// A domain's UUID in the byte order in which it is written (`xen_domain_handle_t`).
pub type DomainHandle = [u8; 16];

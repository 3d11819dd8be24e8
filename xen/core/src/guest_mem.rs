//! The only door to guest memory.

use crate::domain::Domain;

/// A guest's memory as its own page tables show it at this moment: where hypercall pointers lead.
pub struct LinearMemory<'a> {
    /// Whose memory.
    pub domain: &'a Domain,
}

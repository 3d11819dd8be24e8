//! Several hypercalls in one (hypercall 13, public/xen.h).
//!
//! 64-bit libxc wraps every memory_op in a multicall of one entry, so it is needed even where nobody batches.

abi! {
    /// `struct multicall_entry`: one call of the list; the hypervisor writes `result`.
    pub struct MulticallEntry = 64 {
        0  op: u64 = "Hypercall number.";
        8  result: u64 = "What the call would have left in the result register.";
        16 args: [u64; 6] = "Argument registers.";
    }
}

//! The console ring: one page, two byte rings (public/io/console.h).

/// Bytes from the back end to the guest.
pub const IN_SIZE: usize = 1024;
/// Bytes from the guest to the back end.
pub const OUT_SIZE: usize = 2048;

abi! {
    /// `struct xencons_interface`: indices count up; the byte is the index modulo the size of the ring.
    pub struct XenconsInterface = 3088 {
        0    input: [u8; 1024] = "Bytes to the guest.";
        1024 output: [u8; 2048] = "Bytes from the guest.";
        3072 in_cons: u32 = "Written by the guest.";
        3076 in_prod: u32 = "Written by the back end.";
        3080 out_cons: u32 = "Written by the back end.";
        3084 out_prod: u32 = "Written by the guest.";
    }
}

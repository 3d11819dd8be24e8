//! A bitmap in the caller's memory (`xenctl_bitmap`, public/xen.h): CPU maps and node maps of domctl and sysctl.

use crate::handle::GuestPtr;

abi! {
    /// `struct xenctl_bitmap`: bit n lies in byte n / 8 at position n % 8.
    pub struct Bitmap = 16 {
        0  bitmap: GuestPtr<u8> = "The bytes.";
        8  nr_bits: u32 = "How many bits are valid; the buffer has this many divided by 8, rounded up, bytes.";
        12 pad: [u8; 4];
    }
}

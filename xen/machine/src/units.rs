//! Units of memory: machine and guest addresses and page numbers as types of their own, so that they cannot be mixed up.
//!
//! Every other module of the hypervisor speaks in these. `Mfn`/`Maddr` name what the hardware addresses, `Gfn`/`Gpa` what
//! a guest believes it addresses; only the p2m turns one into the other.

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// Bytes in a page, as the 64-bit number that address arithmetic wants.
pub const PAGE_SIZE_U64: u64 = 4096;
/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;

macro_rules! page_number {
    ($(#[$doc:meta])* $frame:ident, $(#[$address_doc:meta])* $address:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $frame(u64);

        impl $frame {
            /// Wraps a page number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }
            /// The bare page number.
            pub const fn number(self) -> u64 {
                self.0
            }
            /// The address of the page's first byte.
            pub const fn address(self) -> $address {
                $address(self.0 << PAGE_SHIFT)
            }
            /// The page `count` pages further on; `None` past the end of the 64-bit range.
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }
            /// The page `count` pages further on, stopping at the last number.
            pub const fn saturating_add(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }
            /// The number rounded down to a multiple of `1 << order`.
            pub const fn align_down(self, order: u32) -> Self {
                Self(self.0 >> order << order)
            }
            /// Whether the number is a multiple of `1 << order`.
            pub const fn is_aligned(self, order: u32) -> bool {
                self.0 & ((1 << order) - 1) == 0
            }
        }

        impl core::fmt::Debug for $frame {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($frame), " {:#x}"), self.0)
            }
        }

        $(#[$address_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $address(u64);

        impl $address {
            /// Wraps a byte address.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }
            /// The bare byte address.
            pub const fn number(self) -> u64 {
                self.0
            }
            /// The page that holds this byte.
            pub const fn frame(self) -> $frame {
                $frame(self.0 >> PAGE_SHIFT)
            }
            /// The byte's place inside its page, 0 to 4095.
            pub const fn offset(self) -> usize {
                (self.0 & (PAGE_SIZE_U64 - 1)) as usize
            }
            /// The address `count` bytes further on; `None` past the end of the 64-bit range.
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }
        }

        impl core::fmt::Debug for $address {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($address), " {:#x}"), self.0)
            }
        }
    };
}

page_number! {
    /// Machine frame number: a page of the real machine.
    Mfn,
    /// Machine address: a byte of the real machine.
    Maddr
}
page_number! {
    /// Guest frame number: a page as a guest numbers it.
    Gfn,
    /// Guest physical address: a byte as a guest addresses it.
    Gpa
}

/// A number of a domain, 0 to 0x7fef for real domains (public/xen.h, DOMID_FIRST_RESERVED is 0x7ff0).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DomId(pub u16);

impl DomId {
    /// The control domain.
    pub const CONTROL: Self = Self(0);
}

impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// A physical CPU's index, 0 for the one that booted, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuId(pub u16);

impl CpuId {
    /// The index as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

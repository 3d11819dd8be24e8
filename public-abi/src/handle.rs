//! Guest pointers: addresses inside structures and argument registers that only their owner may dereference.
//!
//! Xen's `XEN_GUEST_HANDLE(T)` is a C pointer and `XEN_GUEST_HANDLE_64(T)` a pointer stored in 64 bits. Here both are
//! a number with a type beside it. Guest memory itself is reached elsewhere: in the hypervisor through `guest_mem`, in
//! the tools through a `Buf`.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! guest_pointer {
    ($(#[$attribute:meta])* $name:ident, $integer:ty) => {
        $(#[$attribute])*
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(transparent)]
        pub struct $name<T> {
            address: $integer,
            target: PhantomData<T>,
        }

        impl<T> $name<T> {
            /// The pointer that means "no buffer".
            pub const NULL: Self = Self::from_address(0);

            /// The pointer to `address`, which is not checked in any way.
            #[must_use]
            pub const fn from_address(address: $integer) -> Self {
                Self { address, target: PhantomData }
            }

            /// The address, in the address space of whoever made the request.
            #[must_use]
            pub const fn address(self) -> $integer {
                self.address
            }

            /// Whether the address is zero. Many calls take that as "tell me the size only".
            #[must_use]
            pub const fn is_null(self) -> bool {
                self.address == 0
            }

            /// The same address with another target type.
            #[must_use]
            pub const fn cast<U>(self) -> $name<U> {
                $name::from_address(self.address)
            }

            /// The address of element `index` of the array that this pointer begins; `None` on wrap-around.
            #[must_use]
            pub fn element(self, index: $integer) -> Option<Self> {
                let size = <$integer>::try_from(core::mem::size_of::<T>()).ok()?;
                self.address.checked_add(index.checked_mul(size)?).map(Self::from_address)
            }
        }

        // By hand: derives would demand the same of `T`, which is never stored.
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self::NULL
            }
        }

        impl<T> PartialEq for $name<T> {
            fn eq(&self, other: &Self) -> bool {
                self.address == other.address
            }
        }

        impl<T> Eq for $name<T> {}

        impl<T> Hash for $name<T> {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.address.hash(state);
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({:#x})", stringify!($name), self.address)
            }
        }
    };
}

guest_pointer! {
    /// A guest pointer of the 64-bit ABI: 8 bytes, 8-aligned.
    GuestPtr, u64
}

guest_pointer! {
    /// A guest pointer of the 32-bit ABI: 4 bytes, 4-aligned. Only in [`crate::compat32`].
    GuestPtr32, u32
}

impl<T> From<GuestPtr32<T>> for GuestPtr<T> {
    fn from(pointer: GuestPtr32<T>) -> Self {
        Self::from_address(u64::from(pointer.address))
    }
}

const _: () = {
    assert!(core::mem::size_of::<GuestPtr<[u8; 3]>>() == 8 && core::mem::align_of::<GuestPtr<u8>>() == 8);
    assert!(core::mem::size_of::<GuestPtr32<[u8; 3]>>() == 4 && core::mem::align_of::<GuestPtr32<u64>>() == 4);
};

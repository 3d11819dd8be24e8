//! The macros that declare structures, operation numbers and unions.
//!
//! Why macros: a public structure is a table of (offset, field, type), and a table that the compiler checks cannot
//! drift. `abi!` turns such a table into a `#[repr(C)]` structure plus assertions that its size and every offset
//! are the numbers written down, which were obtained by compiling Xen's 4.17 headers. `operations!` turns a list of
//! numbers into an enum that knows names and refuses unknown numbers. Every other module of this crate comes after
//! this one.

/// Declares `#[repr(C)]` structures with their size and offsets in bytes.
///
/// Each structure gets zerocopy's `FromBytes`, `IntoBytes`, `KnownLayout` and `Immutable` (the second refuses
/// implicit padding, so all padding has a name), `Copy`, `Debug`, `Eq` and an all-zero `Default`.
macro_rules! abi {
    ($(
        $(#[$attribute:meta])*
        pub struct $name:ident = $size:literal {
            $( $offset:literal $field:ident : $type:ty $(= $doc:literal)? ; )*
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(::zerocopy::FromBytes, ::zerocopy::IntoBytes, ::zerocopy::KnownLayout, ::zerocopy::Immutable)]
        #[repr(C)]
        pub struct $name {
            $(
                $(#[doc = $doc])?
                #[doc = concat!("(Byte offset ", $offset, ".)")]
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                ::zerocopy::FromZeros::new_zeroed()
            }
        }

        const _: () = {
            assert!(
                ::core::mem::size_of::<$name>() == $size,
                concat!("size of ", stringify!($name), " differs from the golden number")
            );
            $(
                assert!(
                    ::core::mem::offset_of!($name, $field) == $offset,
                    concat!("offset of ", stringify!($name), ".", stringify!($field), " differs from the golden number")
                );
            )*
        };
    )*};
}

/// Declares enums of operation numbers: `Variant = number "xen_name"`, after the prefix that Xen's header gives the
/// names.
///
/// Each enum gets `ALL` (ascending, as listed), `FAMILY`, `name()`, `number()` and `TryFrom<u32>`.
macro_rules! operations {
    ($(
        $(#[$attribute:meta])*
        pub enum $name:ident($prefix:literal) {
            $( $(#[$variant_attribute:meta])* $variant:ident = $number:literal $text:literal; )*
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum $name {
            $(
                #[doc = concat!("`", $prefix, $text, "` (", $number, ").")]
                $(#[$variant_attribute])*
                $variant = $number,
            )*
        }

        impl $name {
            /// Every member, in ascending order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// What Xen's headers put before each name.
            pub const FAMILY: &'static str = $prefix;

            /// Xen's name without the family's prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number that travels in the ABI.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }
        }

        impl TryFrom<u32> for $name {
            type Error = $crate::UnknownNumber;

            fn try_from(number: u32) -> Result<Self, $crate::UnknownNumber> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err($crate::UnknownNumber { family: $prefix, number }),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(operation: $name) -> Self {
                operation.number()
            }
        }
    )*};
}

/// Declares documented constants of one type: `NAME = value, "what it means";`.
macro_rules! constants {
    ($type:ty { $( $name:ident = $value:expr, $doc:literal; )* }) => {
        $(
            #[doc = $doc]
            pub const $name: $type = $value;
        )*
    };
}

/// Gives a structure whose union is chosen by a command number its checked accessors.
///
/// `command_union! { Domctl, cmd: DomctlOp; CreateDomain => [CreateDomain], … }`
macro_rules! command_union {
    ($name:ident, $command_field:ident : $operation:ty; $( $payload:ty => [$($command:ident),+ $(,)?] ),* $(,)?) => {
        impl $crate::payload::Commanded for $name {
            type Command = $operation;
        }

        impl $name {
            /// Each parameter structure and the commands that carry it; for the ABI manual and tests.
            pub const PAYLOADS: &'static [(&'static str, &'static [$operation])] =
                &[$((stringify!($payload), &[$(<$operation>::$command),+])),*];

            /// Which operation the command number names.
            ///
            /// # Errors
            /// The number, if Xen 4.17 defines no such operation.
            pub fn command(&self) -> Result<$operation, $crate::UnknownNumber> {
                <$operation>::try_from(self.$command_field)
            }

            /// Reads the union as `T`.
            ///
            /// # Errors
            /// When `T` is not the parameter structure of the command in this request.
            pub fn get<T: $crate::payload::Payload<Self>>(&self) -> Result<T, $crate::payload::WrongPayload> {
                $crate::payload::check::<Self, T>(self.$command_field)?;
                Ok($crate::payload::read(::zerocopy::IntoBytes::as_bytes(&self.u)))
            }

            /// Writes `payload` into the union and zeroes the rest of it.
            ///
            /// # Errors
            /// When `T` is not the parameter structure of the command in this request; nothing is written then.
            pub fn set<T: $crate::payload::Payload<Self>>(
                &mut self,
                payload: &T,
            ) -> Result<(), $crate::payload::WrongPayload> {
                $crate::payload::check::<Self, T>(self.$command_field)?;
                $crate::payload::write(::zerocopy::IntoBytes::as_mut_bytes(&mut self.u), payload);
                Ok(())
            }
        }

        $(
            impl $crate::payload::Payload<$name> for $payload {
                const COMMANDS: &'static [$operation] = &[$(<$operation>::$command),+];
            }

            const _: () = assert!(
                ::core::mem::size_of::<$payload>() <= $name::UNION_SIZE,
                concat!(stringify!($payload), " does not fit into the union of ", stringify!($name))
            );
        )*
    };
}

/// Gives a structure with a union that other fields choose the accessors for its members.
macro_rules! plain_union {
    ($name:ident.$field:ident : $size:literal; $( $member:ty ),* $(,)?) => {
        impl $name {
            /// Reads the union as `T`. Which member is meaningful is told by the other fields.
            #[must_use]
            pub fn get<T: $crate::payload::MemberOf<Self>>(&self) -> T {
                $crate::payload::read(::zerocopy::IntoBytes::as_bytes(&self.$field))
            }

            /// Writes `member` into the union and zeroes the rest of it.
            pub fn set<T: $crate::payload::MemberOf<Self>>(&mut self, member: &T) {
                $crate::payload::write(::zerocopy::IntoBytes::as_mut_bytes(&mut self.$field), member);
            }
        }

        $(
            impl $crate::payload::MemberOf<$name> for $member {}

            const _: () = assert!(
                ::core::mem::size_of::<$member>() <= $size,
                concat!(stringify!($member), " does not fit into the union of ", stringify!($name))
            );
        )*
    };
}

//! Error numbers of the Xen ABI (public/errno.h of 4.17).
//!
//! A hypercall returns a negative one of these. They equal Linux's numbers for x86, but they are Xen's: on another
//! operating system they must be translated. The hypervisor core makes them; the toolstack library turns them into
//! messages.

use core::fmt;

macro_rules! errno_table {
    ($( $name:ident = $number:literal, $doc:literal; )*) => {
        /// An error number, without its sign.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum Errno {
            $(
                #[doc = concat!(stringify!($name), ": ", $doc, ".")]
                $name = $number,
            )*
        }

        impl Errno {
            /// Every error, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name, such as `"EINVAL"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }

            /// The positive number.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self { $(Self::$name => $number,)* }
            }
        }

        impl TryFrom<i32> for Errno {
            type Error = UnknownErrno;

            fn try_from(number: i32) -> Result<Self, UnknownErrno> {
                match number {
                    $($number => Ok(Self::$name),)*
                    _ => Err(UnknownErrno(number)),
                }
            }
        }
    };
}

errno_table! {
    EPERM = 1, "not allowed for this caller";
    ENOENT = 2, "no such object";
    ESRCH = 3, "no such domain";
    EINTR = 4, "interrupted; never seen by guests";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "too many arguments or too much data";
    ENOEXEC = 8, "not an executable image";
    EBADF = 9, "bad file number";
    ECHILD = 10, "no child";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "refused: wrong interface version or policy";
    EFAULT = 14, "a guest pointer cannot be accessed";
    EBUSY = 16, "in use";
    EEXIST = 17, "exists already";
    EXDEV = 18, "spans devices";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "table overflow";
    EMFILE = 24, "too many open";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only";
    EMLINK = 31, "too many links";
    EDOM = 33, "argument out of the domain of the function";
    ERANGE = 34, "result out of range";
    EDEADLK = 35, "would deadlock";
    ENAMETOOLONG = 36, "name too long";
    ENOLCK = 37, "no locks left";
    ENOSYS = 38, "no such hypercall or operation";
    ENOTEMPTY = 39, "not empty";
    ENODATA = 61, "no data";
    ETIME = 62, "the time is in the past";
    EBADMSG = 74, "damaged message";
    EOVERFLOW = 75, "value too large for its type";
    EILSEQ = 84, "illegal sequence";
    ERESTART = 85, "call again to continue; never seen by guests";
    ENOTSOCK = 88, "not a socket";
    EMSGSIZE = 90, "message too long";
    EOPNOTSUPP = 95, "operation not supported here";
    EADDRINUSE = 98, "address in use";
    EADDRNOTAVAIL = 99, "address not available";
    ENOBUFS = 105, "the buffer is too small";
    EISCONN = 106, "connected already";
    ENOTCONN = 107, "not connected";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "refused by the other side";
}

impl Errno {
    /// Another name of [`Errno::EAGAIN`].
    pub const EWOULDBLOCK: Self = Self::EAGAIN;
    /// Another name of [`Errno::EDEADLK`].
    pub const EDEADLOCK: Self = Self::EDEADLK;

    /// What a hypercall leaves in the result register: the negated number as a sign-extended 64-bit word.
    #[must_use]
    pub fn to_register(self) -> u64 {
        i64::from(-self.number()).cast_unsigned()
    }

    /// Splits a hypercall's result register into success (its value) or error.
    ///
    /// Xen's results are negative exactly for errors, which lie within -4095..=-1.
    ///
    /// # Errors
    /// `Ok(errno)` inside for a known error, or the number that this ABI does not define.
    pub fn from_register(register: u64) -> Result<u64, Result<Self, UnknownErrno>> {
        match register.cast_signed() {
            value @ -4095..=-1 => {
                let number = i32::try_from(-value).unwrap_or(i32::MAX);
                Err(Self::try_from(number))
            }
            _ => Ok(register),
        }
    }
}

/// A number that is not one of Xen's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownErrno(pub i32);

impl fmt::Display for UnknownErrno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is not an error number of the Xen ABI", self.0)
    }
}

impl core::error::Error for UnknownErrno {}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.description())
    }
}

impl core::error::Error for Errno {}

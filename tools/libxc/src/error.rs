//! What can go wrong between a toolstack and the hypervisor, xenstore or the kernel.
//!
//! An [`Error`] says what was being done and what the other side answered; whoever hands it on adds the step it belonged
//! to. Comes before everything else in this crate.

use std::fmt;
use std::io;

use public_abi::Errno;

/// A failure.
#[derive(Debug)]
pub enum Error {
    /// A hypercall was refused.
    Hypercall {
        /// The family, such as "domctl".
        family: &'static str,
        /// The operation in it, such as "createdomain".
        operation: &'static str,
        /// Why.
        errno: Errno,
    },
    /// xenstored refused a request.
    Xenstore {
        /// The request and the path.
        request: String,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused something: a device, a file, a mapping.
    System {
        /// What was being done.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// Something answered what it must not.
    Protocol(String),
}

/// The result of anything in this crate that talks to the outside.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal of the kernel.
    pub fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { doing: doing.into(), source: source.into() }
    }

    /// The error number of the hypervisor, xenstored or the kernel, if it is one of Xen's.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Hypercall { errno, .. } | Error::Xenstore { errno, .. } => Some(*errno),
            Error::System { source, .. } => source.raw_os_error().and_then(|number| Errno::try_from(number).ok()),
            Error::Protocol(_) => None,
        }
    }

    /// Whether the thing asked for is not there (any more).
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ESRCH))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Hypercall { family, operation, errno } => {
                write!(f, "{family} {operation}: {errno}")?;
                match (*errno, *family) {
                    // The hypervisor's answer to another interface version.
                    (Errno::EACCES, "domctl" | "sysctl") => {
                        f.write_str("; this toolstack speaks interface version 0x15, the hypervisor another one")
                    }
                    _ => Ok(()),
                }
            }
            Error::Xenstore { request, errno } => write!(f, "xenstore {request}: {errno}"),
            Error::System { doing, source } => write!(f, "{doing}: {source}"),
            Error::Protocol(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::System { source, .. } => Some(source),
            Error::Hypercall { errno, .. } | Error::Xenstore { errno, .. } => Some(errno),
            Error::Protocol(_) => None,
        }
    }
}

//! What has become of the caller's request structure: the families that take one structure and write it back end here.

use crate::outcome::{Reply, Stop};
use public_abi::Errno;

/// What to do with the structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It stays as it is.
    Unchanged,
    /// Write it back.
    Changed,
    /// Write it back, and end with an error all the same.
    ChangedBut(Errno),
    /// Write it back, and do the rest when the hypercall comes again with it.
    ChangedForRestart,
}

impl Answer {
    /// Writes back what changed, by `write`, and gives the hypercall's end.
    ///
    /// # Errors
    /// Those of `write`, before all others.
    pub fn finish(self, write: impl FnOnce() -> Result<(), Errno>) -> Reply {
        match self {
            Self::Unchanged => Ok(0),
            Self::Changed => {
                write()?;
                Ok(0)
            }
            Self::ChangedBut(errno) => {
                write()?;
                Err(errno.into())
            }
            Self::ChangedForRestart => {
                write()?;
                Err(Stop::Restart(None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_copy_comes_before_the_operations_error() {
        let fails = || Err(Errno::EFAULT);
        assert_eq!(Answer::Unchanged.finish(fails), Ok(0));
        assert_eq!(Answer::Changed.finish(fails), Err(Stop::Error(Errno::EFAULT)));
        assert_eq!(Answer::ChangedBut(Errno::ENOBUFS).finish(fails), Err(Stop::Error(Errno::EFAULT)));
        assert_eq!(Answer::ChangedBut(Errno::ENOBUFS).finish(|| Ok(())), Err(Stop::Error(Errno::ENOBUFS)));
        assert_eq!(Answer::ChangedForRestart.finish(|| Ok(())), Err(Stop::Restart(None)));
    }
}

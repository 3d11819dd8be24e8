//! `xl mem-set` and `xl mem-max`: how much memory a domain shall have, and may have.

use crate::cli::Memory;
use crate::domain::change;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn set_target(options: &Memory) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let set = change::memory_target(&session, domid, size(&options.size)?);
    set.map_err(|failure| failure.while_doing(format!("setting the memory of {}", options.domain)))
}

pub(super) fn set_maximum(options: &Memory) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let set = change::memory_maximum(&session, domid, size(&options.size)?);
    set.map_err(|failure| failure.while_doing(format!("setting the most memory of {}", options.domain)))
}

fn size(text: &str) -> Outcome<u64> {
    kib(text).ok_or_else(|| {
        Failure::new(format!(
            "invalid memory size: {text}; it is a number of MiB, or one with b, k, m, g or t behind it"
        ))
    })
}

/// A size in KiB: MiB without a letter, bytes with `b`, and so on.
fn kib(text: &str) -> Option<u64> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().ok()?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "b" => return Some(number >> 10),
        "k" => 0,
        "" | "m" => 10,
        "g" => 20,
        "t" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_xls_units() {
        assert_eq!(kib("256"), Some(256 << 10));
        assert_eq!(kib("256m"), Some(256 << 10));
        assert_eq!(kib("1G"), Some(1 << 20));
        assert_eq!(kib("2t"), Some(2 << 30));
        assert_eq!(kib("64k"), Some(64));
        assert_eq!(kib("4096b"), Some(4));
        for bad in ["", "m", "12mb", "-5", "1.5g", "99999999999999999t"] {
            assert_eq!(kib(bad), None, "{bad}");
        }
    }
}

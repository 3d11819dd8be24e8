//! Checks and the verdict.

use core::fmt::{Debug, Display};

use public_abi::Errno;
use rt::Fault;
use spin::Once;

use crate::println;

/// Bad checks that are printed; further ones are counted.
const MAX_PRINTED: u32 = 24;

static NAME: Once<&'static str> = Once::new();

/// Gives the guest its name, once.
pub fn set_name(name: &'static str) {
    NAME.call_once(|| name);
}

/// The guest's name, for the last line even of a panic.
#[must_use]
pub fn name() -> &'static str {
    NAME.get().copied().unwrap_or("unnamed")
}

/// What a hypercall gives for an error.
#[must_use]
pub fn error(errno: Errno) -> i64 {
    -i64::from(errno.number())
}

/// Counts checks and remembers the first bad one.
pub struct Test {
    good: u32,
    bad: u32,
    first: Option<&'static str>,
}

impl Test {
    pub(crate) const fn new() -> Self {
        Self { good: 0, bad: 0, first: None }
    }

    /// Notes one check; `detail` is printed if it is bad.
    pub fn check(&mut self, name: &'static str, good: bool, detail: impl Display) {
        if good {
            self.good += 1;
            return;
        }
        self.bad += 1;
        self.first.get_or_insert(name);
        if self.bad <= MAX_PRINTED {
            println!("GUEST-CHECK {name} bad {detail}");
        }
    }

    /// Checks that something holds.
    pub fn holds(&mut self, name: &'static str, condition: bool) {
        self.check(name, condition, "does not hold");
    }

    /// Checks that a value is the expected one.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: &'static str, got: T, want: T) {
        let good = got == want;
        self.check(name, good, format_args!("got {got:x?}, want {want:x?}"));
    }

    /// Checks that a hypercall failed with an error.
    pub fn fails(&mut self, name: &'static str, got: i64, want: Errno) {
        self.check(name, got == error(want), format_args!("got {got}, want -{}", want.name()));
    }

    /// Checks that a hypercall failed with one of some errors.
    pub fn fails_any(&mut self, name: &'static str, got: i64, want: &[Errno]) {
        let good = want.iter().any(|errno| got == error(*errno));
        self.check(name, good, format_args!("got {got}, want one of -{want:?}"));
    }

    /// Checks that a hypercall gave 0.
    pub fn succeeds(&mut self, name: &'static str, got: i64) {
        self.check(name, got == 0, format_args!("got {got}, want 0"));
    }

    /// Checks that an instruction raised a fault of `vector`.
    pub fn faults<T: Debug>(&mut self, name: &'static str, got: Result<T, Fault>, vector: u8) {
        let good = matches!(&got, Err(fault) if fault.vector == vector);
        self.check(name, good, format_args!("got {got:x?}, want fault {vector}"));
    }

    /// Checks that an instruction raised no fault, and gives its value.
    pub fn runs<T>(&mut self, name: &'static str, got: Result<T, Fault>) -> Option<T> {
        match got {
            Ok(value) => {
                self.good += 1;
                Some(value)
            }
            Err(fault) => {
                self.check(name, false, format_args!("{fault:?}"));
                None
            }
        }
    }

    /// Whether a check has been bad.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        self.bad != 0
    }

    /// Prints how many checks were bad, and a verdict only if some were: for a program that shows another one's.
    pub fn finish_as_host(&self) {
        println!("GUEST-INFO {}: {} good checks, {} bad", name(), self.good, self.bad);
        if let Some(first) = self.first {
            println!("GUEST-TEST {} FAIL {first}", name());
        }
    }

    /// Prints the verdict.
    pub fn finish(&self) {
        println!("GUEST-INFO {} good checks, {} bad", self.good, self.bad);
        match self.first {
            Some(first) => println!("GUEST-TEST {} FAIL {first}", name()),
            None if self.good == 0 => println!("GUEST-TEST {} FAIL nothing was checked", name()),
            None => println!("GUEST-TEST {} PASS", name()),
        }
    }
}

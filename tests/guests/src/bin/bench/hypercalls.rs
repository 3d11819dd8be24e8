//! Hypercalls that do little or nothing: the way in and out.

use guests::{Test, call};
use public_abi::Hypercall;
use public_abi::domid::DOMID_SELF;
use public_abi::grant_table::{GrantTableOp, QuerySize};

use crate::row::measure;

/// A number that no hypercall has.
const UNKNOWN: u64 = 60;

pub(crate) fn run(test: &mut Test) {
    measure(test, "nothing", || true);
    measure(test, "null-hypercall", || call::raw(Hypercall::XenVersion, [0; 5]) > 0);
    measure(test, "unknown-hypercall", || rt::hypercall(UNKNOWN, [0; 5]) < 0);
    measure(test, "sched-yield", || call::yield_cpu() == 0);
    measure(test, "gnttab-query-size", || {
        call::grant(GrantTableOp::QuerySize, &mut QuerySize { dom: DOMID_SELF, ..Default::default() }) == 0
    });
}

//! One row: samples of one operation, and the line that tells them.
//!
//!     BENCH name minimum median      ticks of the time stamp counter
//!     BENCH name failed              the operation did not do what it should: its cost would mean nothing
//!     FIGURE name value              a number that is no time

use guests::{Test, println};

const REPEATS: usize = 101;

/// Measures an operation that can be repeated as it is. It says whether it did what it should.
pub(crate) fn measure(test: &mut Test, name: &'static str, mut operation: impl FnMut() -> bool) {
    measure_between(test, name, || Some(()), |()| operation().then_some(()), |()| true);
}

/// Measures `operation` between a preparation and a clean-up that do not count. Each of them fails by None or false.
pub(crate) fn measure_between<B, M>(
    test: &mut Test,
    name: &'static str,
    mut before: impl FnMut() -> Option<B>,
    mut operation: impl FnMut(B) -> Option<M>,
    mut after: impl FnMut(M) -> bool,
) {
    let mut once = || {
        let prepared = before()?;
        rt::marker_begin();
        let begin = rt::timestamp();
        let made = operation(prepared);
        let end = rt::timestamp();
        rt::marker_end();
        after(made?).then_some(end - begin)
    };
    // The first time warms up whatever is kept.
    let mut good = once().is_some();
    rt::marker_row();
    let mut samples = [0_u64; REPEATS];
    for sample in &mut samples {
        if !good {
            break;
        }
        match once() {
            Some(ticks) => *sample = ticks,
            None => good = false,
        }
    }
    test.holds(name, good);
    if !good {
        println!("BENCH {name} failed");
        return;
    }
    samples.sort_unstable();
    let [first, ..] = samples;
    println!("BENCH {name} {first} {}", samples.get(REPEATS / 2).copied().unwrap_or(first));
}

/// Tells a number that is no time.
pub(crate) fn figure(name: &str, value: u64) {
    println!("FIGURE {name} {value}");
}

/// Ends the last row.
pub(crate) fn end() {
    rt::marker_row();
}

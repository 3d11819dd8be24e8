//! Beginning and end of a guest.

use core::panic::PanicInfo;

use public_abi::sched::{SchedOp, SchedShutdown, ShutdownReason};

use crate::check::{self, Test};
use crate::{call, console, environment, println};

/// Names a guest and the function that makes its checks: `fn(&mut Test)`.
#[macro_export]
macro_rules! guest {
    ($name:literal, $run:path) => {
        fn main(start_info: u64) -> ! {
            $crate::start($name, start_info, $run)
        }
        rt::entry!(main);
    };
}

/// Runs a guest from its entry to the end of its domain.
pub fn start(name: &'static str, start_info: u64, run: fn(&mut Test)) -> ! {
    rt::init();
    check::set_name(name);
    environment::init(start_info);
    console::init();
    let mut test = Test::new();
    run(&mut test);
    test.finish();
    shut_down(ShutdownReason::Poweroff)
}

/// Ends the domain.
pub fn shut_down(reason: ShutdownReason) -> ! {
    console::drain();
    let mut shutdown = SchedShutdown { reason: reason.number() };
    call::sched(SchedOp::Shutdown, &mut shutdown);
    rt::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("GUEST-TEST {} FAIL {}", check::name(), info.message());
    if let Some(place) = info.location() {
        println!("GUEST-INFO panic at {place}");
    }
    shut_down(ShutdownReason::Crash)
}

//! The parts that need the machine.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use public_abi::Hypercall;

/// Prints to the hypervisor's console.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const CONSOLEIO_WRITE: u64 = 0;
        let arguments = [CONSOLEIO_WRITE, text.len() as u64, text.as_ptr().expose_provenance() as u64, 0, 0];
        rt::hypercall(Hypercall::ConsoleIo.number(), arguments);
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // The console cannot fail; a Display that fails cuts its own line short.
        writeln!($crate::Console, $($argument)*).ok();
    }};
}

/// Ends the domain with a shutdown reason (public/sched.h).
pub fn shut_down(reason: u32) -> ! {
    const SHUTDOWN: u64 = 2;
    let address = core::ptr::from_ref(&reason).expose_provenance() as u64;
    rt::hypercall(Hypercall::SchedOp.number(), [SHUTDOWN, address, 0, 0, 0]);
    rt::halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("GUEST-TEST panic FAIL {info}");
    shut_down(3)
}

//! The debug key that makes the hypervisor panic: its epitaph, and what `noreboot` makes of the machine.
//!
//! Xen starts its crash kernel by this key; Oxen has none, and leaves its epitaph in memory for a dump reader.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, call, environment};
    use public_abi::GuestPtr;
    use public_abi::Hypercall;
    use public_abi::sysctl::{DebugKeys, Sysctl, SysctlOp};

    guests::guest!("panic_key", run);

    fn press(keys: &mut [u8]) -> i64 {
        let pressed = DebugKeys {
            keys: GuestPtr::from_address(call::address(keys)),
            nr_keys: keys.len() as u32,
            ..Default::default()
        };
        let Ok(mut request) = Sysctl::with(SysctlOp::DebugKeys, &pressed) else { return i64::MIN };
        call::raw(Hypercall::Sysctl, [call::address(&mut request), 0, 0, 0, 0])
    }

    fn run(test: &mut Test) {
        test.succeeds("a key without a meaning", press(&mut [b'~']));
        test.succeeds("help", press(&mut [b'h']));
        if environment::is_oxen() {
            test.finish();
            press(&mut [b'C']);
            test.holds("the hypervisor panics", false);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! The smallest guest: prints through console_io and shuts down.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    rt::entry!(main);

    fn main(start_info: u64) -> ! {
        guests::println!("hello from a guest, start info at {start_info:#x}");
        guests::println!("GUEST-TEST hello PASS");
        guests::shut_down(0)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

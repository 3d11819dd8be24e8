//! What operations cost, for `cargo xtask bench`: each is done many times, between marker NOPs and between two RDTSC.
//!
//! Under an emulator that counts instructions as time, the numbers are instructions. Interrupts are off but where a row needs
//! them. The rows are in the other files, by family; their names are the keys of xtask's table (`bench/rows.rs`).

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod between;
#[cfg(target_os = "none")]
mod domains;
#[cfg(target_os = "none")]
mod events;
#[cfg(target_os = "none")]
mod exits;
#[cfg(target_os = "none")]
mod hypercalls;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod row;

#[cfg(target_os = "none")]
guests::guest!("bench", run);

#[cfg(target_os = "none")]
fn run(test: &mut guests::Test) {
    guests::println!("GUEST-INFO TSC at {} kHz, role {:?}", guests::clock::khz(), guests::role());
    if between::run(test) {
        return row::end();
    }
    hypercalls::run(test);
    exits::run(test);
    events::run(test);
    memory::run(test);
    if guests::role() == guests::Role::Control {
        domains::run(test);
    }
    events::with_interrupts(test);
    row::end();
}

#[cfg(not(target_os = "none"))]
fn main() {}

//! The serial console, the log and the debug keys, through the hypercalls that reach them.

use super::support::{LAST, World, error, put, room, take_array, with_world};
use crate::domain::console::{announce_output, drain};
use crate::outcome::Stop;
use machine::cpu::Work;
use machine::{DomId, log};
use public_abi::sysctl::{DebugKeys, ReadConsole, SysctlOp};
use public_abi::{Errno, GuestPtr};

extern crate std;
use std::string::String;

const CONTROL: DomId = DomId::CONTROL;

fn read_input(world: &World, count: u32) -> String {
    let buffer = room::<u8>(256, 0);
    let length = world.console(CONTROL, 1, count, buffer).unwrap();
    String::from_utf8(take_array(buffer, length)).unwrap()
}

#[test]
fn what_is_typed_reaches_the_control_domain() {
    with_world(|world| {
        world.machine.type_text("root\n");
        drain(&world.host);
        assert_eq!(read_input(world, 2), "ro");
        assert_eq!(read_input(world, 200), "ot\n");
        assert_eq!(read_input(world, 200), "");
        assert_eq!(world.console(CONTROL, 1, 0x8000_0000, room(1, 0)), error(Errno::E2BIG));
    });
}

#[test]
fn three_switches_and_a_key_print_help() {
    with_world(|world| {
        world.machine.type_text("\x01\x01\x01h\x01\x01\x01x");
        drain(&world.host);
        let text = world.machine.console();
        assert!(text.contains("(XEN) *** Serial input to Xen (type 'CTRL-a' three times to switch input)\n"), "{text}");
        assert!(text.contains("key 'q' (ascii '71') => dump domain"), "{text}");
        assert!(text.contains("*** Serial input to DOM0"), "{text}");
        assert_eq!(read_input(world, 200), "x");
    });
}

#[test]
fn output_passes_through_unchanged() {
    with_world(|world| {
        let text: String = ('a'..='z').cycle().take(300).collect();
        let buffer = put(&<[u8; 300]>::try_from(text.as_bytes()).unwrap());
        assert_eq!(world.console(CONTROL, 0, 300, buffer.cast()), Ok(0));
        assert!(world.machine.console().contains(&text));
        assert_eq!(world.console(CONTROL, 0, 0, buffer.cast()), Ok(0));
        assert_eq!(world.console(CONTROL, 0, 200, GuestPtr::from_address(LAST)), error(Errno::EFAULT));
        // Input that cannot be handed over is not lost.
        world.machine.type_text("typed");
        drain(&world.host);
        assert_eq!(world.console(CONTROL, 1, 200, GuestPtr::from_address(LAST)), error(Errno::EFAULT));
        assert_eq!(read_input(world, 200), "typed");
    });
}

fn read_log(world: &World, clear: u8, incremental: u8, index: u32, count: u32) -> (String, u32) {
    let buffer = room::<u8>(20_000, 0);
    let request = ReadConsole { clear, incremental, index, buffer, count, ..ReadConsole::default() };
    let (reply, answer) = world.sysctl(SysctlOp::ReadConsole, request);
    assert_eq!(reply, Ok(0));
    (String::from_utf8_lossy(&take_array(buffer, u64::from(answer.count))).into_owned(), answer.index)
}

#[test]
fn the_log_is_read_once_again_and_in_pieces() {
    with_world(|world| {
        log!(Info, "a line that only this test prints");
        let (all, index) = read_log(world, 0, 0, 0, 20_000);
        assert!(all.contains("(XEN) a line that only this test prints\n"), "{all}");
        log!(Info, "and one more");
        let (more, index) = read_log(world, 0, 1, index, 20_000);
        assert!(more.contains("(XEN) and one more\n"), "{more}");
        assert!(!more.contains("that only this test"));
        let (_, cleared) = read_log(world, 1, 0, 0, 20_000);
        assert!(cleared >= index);
        let (rest, _) = read_log(world, 0, 0, 0, 20_000);
        assert!(!rest.contains("and one more"), "cleared: {rest}");
        assert_eq!(read_log(world, 0, 0, 0, 0).0, "");
    });
}

#[test]
fn the_log_has_nothing_of_what_the_control_domain_prints() {
    // Or `xl dmesg` on the control domain's console would read for ever what it has just printed.
    with_world(|world| {
        let before = read_log(world, 0, 0, 0, 20_000);
        assert_eq!(world.console(CONTROL, 0, 11, put(b"(d0) twice\n").cast()), Ok(0));
        assert!(world.machine.console().contains("(d0) twice"));
        assert_eq!(read_log(world, 0, 0, 0, 20_000), before);
    });
}

#[test]
fn every_debug_key_prints_something_real() {
    with_world(|world| {
        let press = |keys: &[u8]| {
            let request = DebugKeys {
                keys: room::<u8>(keys.len(), keys[0]),
                nr_keys: u32::try_from(keys.len()).unwrap(),
                ..DebugKeys::default()
            };
            let before = world.machine.console().len();
            assert_eq!(world.sysctl(SysctlOp::DebugKeys, request).0, Ok(0));
            world.machine.console()[before..].to_owned()
        };
        assert!(press(b"q").contains("General information for domain 1:"));
        assert!(press(b"q").contains("handle=01010101-0101-"));
        let memory = press(b"m");
        assert!(memory.contains("16384 KiB of RAM"), "{memory}");
        let free = memory.split("Dom heap: ").nth(1).and_then(|rest| rest.split("kB free").next());
        assert!(free.is_some_and(|kib| kib.parse::<u64>().is_ok_and(|kib| kib > 0 && kib < 16384)), "{memory}");
        assert!(memory.contains(" bytes beside a frame table of 16 bytes a page"), "{memory}");
        assert!(press(b"r").contains("CPU1: 0 vCPUs wait"));
        assert!(press(b"d").contains("d1v1: Wait(DOWN)"));
        assert!(press(b"0").contains("rip 000000000000fff0"), "{}", press(b"0"));
        assert!(press(b"t").contains("2000000 kHz"));
        assert!(press(b"e").contains("Event channel information for domain 0:"));
        assert!(press(b"*").contains("[r: dump run queues]"));
        assert_eq!(press(b"Z"), "", "unknown keys do nothing");
        let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| press(b"C")));
        let words = crash.expect_err("ends the hypervisor").downcast::<&str>();
        assert_eq!(words.ok().as_deref(), Some(&"a crash was asked for by a debug key"));
        let long = DebugKeys { keys: room::<u8>(1, b'Z'), nr_keys: 1000, ..DebugKeys::default() };
        assert_eq!(world.sysctl(SysctlOp::DebugKeys, long).0, error(Errno::E2BIG));
        announce_output(&world.host);
    });
}
use std::borrow::ToOwned;

#[test]
fn a_long_text_is_printed_in_turns() {
    with_world(|world| {
        let text: String = ('a'..='z').cycle().take(300).collect();
        let buffer = put(&<[u8; 300]>::try_from(text.as_bytes()).unwrap());
        world.machine.note_work(0, Work::KICK);
        let (mut address, mut left, mut turns) = (buffer.address(), 300u64, 0);
        loop {
            turns += 1;
            match world.console(CONTROL, 0, u32::try_from(left).unwrap(), GuestPtr::from_address(address)) {
                Ok(0) => break,
                Err(Stop::Restart(Some(cursor))) => {
                    let changes: std::vec::Vec<_> = cursor.changes().collect();
                    assert_eq!(changes, [(1, left - 128), (2, address + 128)], "count and buffer");
                    (left, address) = (changes[0].1, changes[1].1);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(turns, 3, "each turn gets on");
        assert!(world.machine.console().contains(&text), "nothing twice, nothing left out");
    });
}

//! Lists of calls: results in their places, what a wild count means, and lists that others interrupt.

use super::support::{GUEST, LAST, World, error, put_bytes, read_arena, with_world, write_arena};
use crate::hypercall::dispatch;
use crate::outcome::{Reply, Stop};
use machine::cpu::Work;
use public_abi::multicall::MulticallEntry;
use public_abi::{Errno, Hypercall};
use std::vec::Vec;
use zerocopy::{FromZeros, IntoBytes};

extern crate std;

fn entry(call: Hypercall, args: [u64; 6]) -> MulticallEntry {
    MulticallEntry { op: call.number(), result: 0xeeee, args }
}

fn version() -> MulticallEntry {
    entry(Hypercall::XenVersion, [0; 6])
}

fn put_list(list: &[MulticallEntry]) -> u64 {
    put_bytes(&list.iter().flat_map(|entry| entry.as_bytes().to_vec()).collect::<Vec<u8>>())
}

fn result(list: u64, index: u64) -> u64 {
    let mut entry = MulticallEntry::new_zeroed();
    read_arena(list + index * 64, entry.as_mut_bytes());
    entry.result
}

fn call(world: &World, list: u64, count: u64) -> Reply {
    world.call(GUEST, |caller| dispatch(caller, Hypercall::Multicall.number(), [list, count, 0, 0, 0, 0]))
}

const VERSION: u64 = 4 << 16 | 17;

#[test]
fn each_call_has_its_result() {
    with_world(|world| {
        let inner = entry(Hypercall::Multicall, [0; 6]);
        let list = put_list(&[version(), inner, MulticallEntry { op: 999, ..version() }, version()]);
        assert_eq!(call(world, list, 3), Ok(0));
        let minus = |errno: Errno| i64::from(errno.number()).wrapping_neg().cast_unsigned();
        assert_eq!([0, 1, 2].map(|index| result(list, index)), [VERSION, minus(Errno::EINVAL), minus(Errno::ENOSYS)]);
        assert_eq!(result(list, 3), 0xeeee, "not asked for");
        assert_eq!(call(world, list, 0), Ok(0));
    });
}

#[test]
fn the_count_is_the_lower_half_of_its_register() {
    with_world(|world| {
        let list = put_list(&[version()]);
        for upper in [1, 0x7777_7777, 0xffff_ffff] {
            write_arena(list, version().as_bytes());
            assert_eq!(call(world, list, upper << 32 | 1), Ok(0));
            assert_eq!(result(list, 0), VERSION, "garbage above is ignored");
        }
        assert_eq!(call(world, u64::MAX, u64::MAX), error(Errno::EFAULT));
        assert_eq!(call(world, LAST - 62, 1), error(Errno::EFAULT), "one byte too few");
    });
}

#[test]
fn a_list_that_is_interrupted_goes_on_where_it_was() {
    with_world(|world| {
        let yields = entry(Hypercall::SchedOp, [0; 6]);
        let mut list = put_list(&[version(), yields, version(), yields]);
        let (start, mut count, mut turns) = (list, 4, 0);
        world.machine.note_work(0, Work::KICK);
        while count != 0 {
            turns += 1;
            match call(world, list, count) {
                Ok(0) => break,
                Err(Stop::Restart(Some(cursor))) => {
                    let changes: Vec<_> = cursor.changes().collect();
                    assert_eq!(changes, [(0, list + 64), (1, count - 1)], "one call in each turn");
                    (list, count) = (changes[0].1, changes[1].1);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(turns, 4);
        assert_eq!([0, 1, 2, 3].map(|index| result(start, index)), [VERSION, 0, VERSION, 0]);
    });
}

#[test]
fn a_call_that_is_interrupted_inside_goes_on_there() {
    with_world(|world| {
        // The control domain prints 300 bytes: three turns, between which the entry's own arguments change.
        let text = put_bytes(&[b'x'; 300]);
        let list = put_list(&[entry(Hypercall::ConsoleIo, [0, 300, text, 0, 0, 0]), version()]);
        world.machine.note_work(0, Work::KICK);
        let control = |list: u64, count: u64| {
            world.call(machine::DomId::CONTROL, |caller| {
                dispatch(caller, Hypercall::Multicall.number(), [list, count, 0, 0, 0, 0])
            })
        };
        for left in [300 - 128, 300 - 256] {
            assert_eq!(control(list, 2), Err(Stop::Restart(Some(crate::outcome::Cursor::two(0, list, 2)))));
            let mut entry = MulticallEntry::new_zeroed();
            read_arena(list, entry.as_mut_bytes());
            assert_eq!((entry.args[1], entry.args[2]), (left, text + 300 - left));
            assert_eq!(entry.result, 0xeeee);
        }
        assert!(matches!(control(list, 2), Err(Stop::Restart(_))), "the second call is another turn's");
        assert_eq!(result(list, 0), 0);
        assert_eq!(control(list + 64, 1), Ok(0));
        assert_eq!(result(list, 1), VERSION);
        assert_eq!(world.machine.console().matches('x').count(), 300);
    });
}

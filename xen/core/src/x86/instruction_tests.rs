//! Tests of recognising instructions in guest memory: what is remembered, and when that must not be believed.

use super::super::walk::tests::{TestMemory, changed, long_mode};
use super::*;
use crate::domain::Role;
use crate::x86::testing::with_guest;

const ROOT: u64 = 0x1000;
const CODE: u64 = 0x7000;
const LINEAR: u64 = 0x40_0ffe;

/// Code page at linear 0x400000 → 0x7000, next page → 0x9000.
fn memory_with(code: &[u8]) -> (TestMemory, GuestState) {
    let memory = TestMemory::default();
    memory.write_entry(ROOT, 0x2007);
    memory.write_entry(0x2000, 0x3007);
    memory.write_entry(0x3000 + 8 * 2, 0x4007);
    memory.write_entry(0x4000, CODE | 0x25);
    memory.write_entry(0x4008, 0x9025);
    memory.write(CODE, &[0x90]);
    memory.write(0x9000, &[0x90]);
    let inside = code.len().min(2);
    memory.write(CODE + 0xffe, &code[..inside]);
    memory.write(0x9000, &code[inside..]);
    (memory, changed(long_mode(ROOT), |state| state.rip = LINEAR))
}

fn length(memory: &TestMemory, remembered: &mut Remembered<WordOf>, state: &GuestState) -> Option<u8> {
    recognise(memory, remembered, state, Instruction::Cpuid).map(|found| found.length)
}

type WordOf = <TestMemory as PhysicalMemory>::Word;

#[test]
fn a_second_look_costs_no_look_up() {
    let (memory, state) = memory_with(&[0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    let lookups = memory.lookups.get();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    assert_eq!(memory.lookups.get(), lookups);
    // A hypercall in between does not push it out.
    assert_eq!(recognise(&memory, &mut remembered, &state, Instruction::Vmmcall), None);
    let lookups = memory.lookups.get();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    assert_eq!(memory.lookups.get(), lookups);
}

#[test]
fn rewritten_code_is_seen() {
    let (memory, state) = memory_with(&[0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    memory.write(CODE + 0xffe, &[0x66, 0x0f]);
    memory.write(0x9000, &[0xa2]);
    assert_eq!(length(&memory, &mut remembered, &state), Some(3));
    memory.write(CODE + 0xffe, &[0x90, 0x90]);
    assert_eq!(length(&memory, &mut remembered, &state), None);
}

#[test]
fn rewritten_tables_are_seen() {
    let (memory, state) = memory_with(&[0x0f, 0xa2]);
    memory.write(0xa000 + 0xffe, &[0x48, 0x0f]);
    memory.write(0x9000, &[0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    memory.write_entry(0x4000, 0xa025);
    assert_eq!(length(&memory, &mut remembered, &state), Some(3), "the leaf leads elsewhere now");
    memory.write_entry(0x3000 + 8 * 2, 0);
    assert_eq!(length(&memory, &mut remembered, &state), None, "a table is gone");
}

#[test]
fn other_modes_roots_and_code_sizes_do_not_hit() {
    // Code that reads differently: DEC EAX before CPUID outside of 64-bit code.
    let (memory, state) = memory_with(&[0x48, 0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(3));
    let mut compatibility = state.clone();
    compatibility.cs.attributes = 0x49b;
    assert_eq!(length(&memory, &mut remembered, &compatibility), None);
    let (memory, state) = memory_with(&[0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    let lookups = memory.lookups.get();
    assert_eq!(length(&memory, &mut remembered, &changed(state.clone(), |state| state.cr3 = 0x5000)), None);
    assert!(memory.lookups.get() > lookups);
}

#[test]
fn a_page_that_was_taken_away_is_not_read() {
    let (memory, state) = memory_with(&[0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    memory.remove(CODE >> 12);
    assert_eq!(length(&memory, &mut remembered, &state), None);
    memory.write(CODE + 0xffe, &[0x0f, 0xa2]);
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    assert!(remembered.other.is_some());
    memory.epoch.set(99);
    let lookups = memory.lookups.get();
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
    assert!(memory.lookups.get() > lookups, "another epoch: what is remembered may be gone");
    remembered.forget();
    assert!(remembered.other.is_none());
}

#[test]
fn what_rests_on_a_frame_goes_with_it_and_the_rest_stays() {
    // All frames that the recognition rests on: the tables of each level, and the code.
    for gone in [1, 2, 3, 4, CODE >> 12, 0x99] {
        let (memory, vmcb) = memory_with(&[0x0f, 0xa2]);
        let mut remembered = Remembered::default();
        assert_eq!(length(&memory, &mut remembered, &vmcb), Some(2));
        let page = memory.page(machine::Gfn::new(gone));
        let before = memory.epoch();
        memory.remove(gone);
        remembered.renew(before, memory.epoch(), |(content, _)| {
            page.as_ref().is_some_and(|page| std::rc::Rc::ptr_eq(page, content))
        });
        assert_eq!(remembered.other.is_some(), gone == 0x99, "{gone:#x}");
        let lookups = memory.lookups.get();
        let expected = (gone == 0x99).then_some(2);
        assert_eq!(length(&memory, &mut remembered, &vmcb), expected, "{gone:#x}");
        assert_eq!(memory.lookups.get() == lookups, gone == 0x99, "{gone:#x}");
    }
    // What was remembered earlier than the epoch before the change is not known to be good.
    let (memory, vmcb) = memory_with(&[0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &vmcb), Some(2));
    let before = memory.epoch() + 1;
    remembered.renew(before, before + 1, |_| false);
    assert!(remembered.other.is_none());
}

#[test]
fn instructions_cross_pages() {
    let (memory, state) = memory_with(&[0x2e, 0x66, 0x0f, 0xa2]);
    let mut remembered = Remembered::default();
    assert_eq!(length(&memory, &mut remembered, &state), Some(4));
    assert!(remembered.other.is_none(), "not remembered: its bytes are in two pages");
    memory.write_entry(0x4008, 0);
    assert_eq!(length(&memory, &mut remembered, &state), None, "the second page is gone");
    // A whole instruction at the page's end does not need the next page.
    memory.write(CODE + 0xffe, &[0x0f, 0xa2]);
    assert_eq!(length(&memory, &mut remembered, &state), Some(2));
}

#[test]
fn advancing_ends_shadow_and_resume_flag() {
    with_guest(Role::Guest, &[], |_, _, _, _, hardware| {
        let long = hardware.guest().clone();
        *hardware.guest_mut() =
            changed(GuestState::ZERO, |state| (state.rip, state.rflags) = (0xffff_fffe, 2 | rflags::RF));
        hardware.set_interrupt_shadow(InterruptShadow::OneInstruction);
        advance(hardware, 2);
        assert_eq!((hardware.guest().rip, hardware.guest().rflags), (0, 2), "outside of 64-bit code addresses wrap");
        assert_eq!(hardware.control().interrupt_shadow, 0);
        *hardware.guest_mut() = changed(long, |state| state.rip = 0xffff_fffe);
        advance(hardware, 2);
        assert_eq!(hardware.guest().rip, 0x1_0000_0000);
        assert_eq!(hardware.control().event_injection, 0);
        hardware.guest_mut().rflags |= rflags::TF;
        advance(hardware, 2);
        assert_eq!(hardware.guest().dr6 & DR6_SINGLE_STEP, DR6_SINGLE_STEP);
        assert_eq!(hardware.control().event_injection, event::VALID | event::EXCEPTION | 1);
    });
}

#[test]
fn words_hold_the_bytes_and_nothing_else() {
    assert_eq!(words_of(&[0x0f, 0xa2], 0), Some([(0xa20f, 0xffff), (0, 0)]));
    assert_eq!(words_of(&[0x0f, 0xa2], 7), Some([(0x0f << 56, 0xff << 56), (0xa2, 0xff)]));
    assert_eq!(words_of(&[0; 11], 5).map(|words| words[1].1), Some(u64::MAX));
    assert_eq!(words_of(&[0; 11], 6), None);
    // Every byte of a remembered instruction counts, also where it crosses words; those around it do not.
    for skip in 0..8u64 {
        let (memory, mut state) = memory_with(&[]);
        state.rip = 0x40_0100 + skip;
        memory.write(CODE + 0x100 + skip, &[0x2e, 0x66, 0x0f, 0xa2]);
        let mut remembered = Remembered::default();
        assert_eq!(length(&memory, &mut remembered, &state), Some(4));
        memory.write(CODE + 0x100 + skip + 4, &[0x55]);
        memory.write(CODE + 0x100 + skip - 1, &[0x66]);
        let lookups = memory.lookups.get();
        assert_eq!(length(&memory, &mut remembered, &state), Some(4));
        assert_eq!(memory.lookups.get(), lookups);
        for byte in 0..4 {
            memory.write(CODE + 0x100 + skip, &[0x2e, 0x66, 0x0f, 0xa2]);
            assert_eq!(length(&memory, &mut remembered, &state), Some(4));
            memory.write(CODE + 0x100 + skip + byte, &[0x90]);
            assert_eq!(length(&memory, &mut remembered, &state), None, "byte {byte} at {skip}");
        }
    }
}

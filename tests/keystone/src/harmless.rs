//! Which random calls are not made, because they end the caller or the machine, or take away what the tests themselves need.
//!
//! `random` makes the calls; `tests/random.rs` lets the control domain ask for what is left.

use crate::random::{
    ARENA, ARENA_BYTES, DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, MEMORY_OP, MULTICALL, Random, SCHED_OP,
    SYSCTL, Subject, VCPU_OP,
};

/// Bytes that the control domain writes before each call, from the arena's beginning: to the end of what a structure at the
/// arena's end can have in it.
const WRITTEN_BYTES: usize = ARENA_BYTES as usize + 0x200;
/// Addresses from which on nothing is that the control domain could have written: above RAM and the frames of others.
const NOTHING_FROM: u64 = 1 << 36;

impl Subject {
    /// A random hypercall that does not end the caller or the machine, as [`Subject::hypercall`] gives it.
    pub fn harmless_hypercall(&self, random: &mut Random) -> (u64, [u64; 6], Vec<u8>) {
        loop {
            let (number, arguments, arena) = self.hypercall(random);
            if !self.is_left_out(random, number, &arguments, &arena) {
                return (number, arguments, arena);
            }
        }
    }

    /// Whether a call is left out: it ends the caller, or the machine.
    fn is_left_out(&self, random: &mut Random, number: u64, arguments: &[u64; 6], arena: &[u8]) -> bool {
        let command = arguments[0] & 0xffff_ffff;
        let pointer = if matches!(number, SYSCTL | DOMCTL) { arguments[0] } else { arguments[1] };
        let is_in_arena = (ARENA..ARENA + ARENA_BYTES).contains(&pointer);
        if self.is_control && matches!(number, MEMORY_OP | SYSCTL | DOMCTL) && !is_in_arena && pointer < NOTHING_FROM {
            // Nobody knows what is there.
            return true;
        }
        // What the hypervisor will find need not begin where the arena does.
        let start = pointer.checked_sub(ARENA).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(usize::MAX);
        let byte = |at: usize| start.checked_add(at).and_then(|at| arena.get(at)).copied().unwrap_or(0);
        let half = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        match number {
            // Shutting down, by the watchdog or at once: now and then by a guest, never by the control domain.
            SCHED_OP if matches!(command, 2 | 4 | 5 | 6) => self.is_control || !random.once_in(64),
            // Waiting without an end is nothing to find out about.
            SCHED_OP if matches!(command, 1 | 3) => true,
            VCPU_OP if self.is_control && command == 10 => true,
            VCPU_OP if command == 3 || command == 2 => self.is_control || !random.once_in(64),
            // Keys such as 'R' restart the machine.
            SYSCTL if word(0) == 7 => true,
            // A list of calls may have all of the above in it.
            MULTICALL => self.is_control,
            // The control domain's own registers are this program.
            DOMCTL if self.is_control && half(8) == 0 => {
                // Nor does it take its own page tables away (set_paging_mempool_size): who may map nothing builds nothing.
                matches!(word(0), 12 | 13 | 28 | 34 | 86)
            }
            // Its own kernel and its shared page stay where they are: only others' frames are moved, and none is mapped.
            MEMORY_OP if self.is_control && is_in_arena => {
                let target = match command & 63 {
                    0 | 1 | 6 | 11 => half(24),
                    7 | 15 | 23 => half(0),
                    28 => 0,
                    _ => 1,
                };
                matches!(target, 0 | 0x7ff0)
            }
            GRANT_TABLE_OP if self.is_control => command == 0,
            // How it hears of events, and the switch to another ABI of events.
            HVM_OP if self.is_control => matches!(command, 0 | 23),
            EVENT_CHANNEL_OP if self.is_control => matches!(command, 10 | 11),
            _ => false,
        }
    }
}

/// All that the control domain writes before a call: no older call's bytes stay behind the arena's contents.
pub fn written(arena: &[u8]) -> Vec<u8> {
    let mut bytes = arena.to_vec();
    bytes.resize(WRITTEN_BYTES, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: Subject = Subject { domain: 0, neighbour: 1, ram_frames: 0x400, is_control: true };

    fn is_left_out(number: u64, arguments: [u64; 6], arena: &[u8]) -> bool {
        CONTROL.is_left_out(&mut Random::new(1), number, &arguments, arena)
    }

    #[test]
    fn what_a_call_names_is_looked_for_where_it_points() {
        // add_to_physmap of domain 5, and 64 bytes further on of the caller itself: it would move its own shared page.
        let mut arena = vec![0; 512];
        arena[0] = 5;
        assert!(!is_left_out(MEMORY_OP, [7, ARENA, 0, 0, 0, 0], &arena));
        assert!(is_left_out(MEMORY_OP, [7, ARENA + 64, 0, 0, 0, 0], &arena));
        // Behind what was written there are zeros, and a structure at the arena's end is among them.
        assert!(is_left_out(MEMORY_OP, [7, ARENA + 0xfd7, 0, 0, 0, 0], &arena));
        assert_eq!(written(&arena)[512..], vec![0; WRITTEN_BYTES - 512]);
        assert!(is_left_out(MEMORY_OP, [7, 0, 0, 0, 0, 0], &arena), "others' memory");
        assert!(!is_left_out(MEMORY_OP, [7, u64::MAX, 0, 0, 0, 0], &arena), "no memory");
        // set_paging_mempool_size, of domain 5 and of the caller.
        arena[8..12].copy_from_slice(&86u32.to_le_bytes());
        arena[16] = 5;
        assert!(!is_left_out(DOMCTL, [ARENA + 8, 0, 0, 0, 0, 0], &arena));
        arena[16] = 0;
        assert!(is_left_out(DOMCTL, [ARENA + 8, 0, 0, 0, 0, 0], &arena));
    }
}

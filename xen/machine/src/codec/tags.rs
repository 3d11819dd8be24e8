//! Address-space tags: the names under which a processor caches translations (AMD APM volume 2, 15.16), and when it must
//! forget all of them. Pure: `x86::svm` and the fake machine hand out tags by the same rules.
//!
//! Each processor has an allocator of its own, and a vCPU keeps the tag that it got last. A tag names something only on the
//! processor and in the round that it was given in; everywhere else the vCPU gets a new one. So a vCPU that comes back to a
//! processor after it ran elsewhere never meets what it left there.

use crate::units::CpuId;

/// One round further, in the upper bits of a generation; the lower 16 bits name the processor.
const ROUND: u64 = 1 << 16;

/// Names what a processor may have cached of a vCPU's translations. The default names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpaceTag {
    /// Which processor, counted from 1, and in which of its rounds; 0 for no tag.
    generation: u64,
    /// The number that the processor knows (ASID). 0 is the hypervisor's own.
    number: u32,
}

impl AddressSpaceTag {
    /// The number for the control block.
    #[inline]
    pub const fn number(self) -> u32 {
        self.number
    }
}

/// What the processor must do before it uses a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a tag of a new round shows what others have left under its number"]
pub enum Flush {
    /// Nothing: the number is unused since the last flush.
    No,
    /// Forget all translations of all tags.
    All,
}

/// One processor's tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    generation: u64,
    /// The next unused number of this round; the largest number when the round is over.
    next: u32,
}

impl Tags {
    /// Those of a processor of which it is not known what it has cached: its first tag begins a round.
    pub const fn new(cpu: CpuId) -> Self {
        Self { generation: cpu.0 as u64 + 1, next: u32::MAX }
    }

    /// Whether a tag still names something here.
    #[inline]
    pub const fn is_current(&self, tag: AddressSpaceTag) -> bool {
        self.generation == tag.generation
    }

    /// A tag that nobody had in this round, or the first of a new round. `limit` is how many numbers the processor knows
    /// (CPUID 8000000A EBX), that of the hypervisor included; at least 2.
    pub fn allocate(&mut self, limit: u32) -> (AddressSpaceTag, Flush) {
        let flush = if self.next >= limit {
            self.generation = self.generation.wrapping_add(ROUND);
            self.next = 1;
            Flush::All
        } else {
            Flush::No
        };
        let tag = AddressSpaceTag { generation: self.generation, number: self.next };
        self.next += 1;
        (tag, flush)
    }

    /// Ends the round: no tag is current any more, and the next begins with a flush.
    pub fn end_round(&mut self) {
        self.generation = self.generation.wrapping_add(ROUND);
        self.next = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[test]
    fn the_first_tags_of_two_processors_differ_and_ask_for_a_flush() {
        let (mut one, mut two) = (Tags::new(CpuId(0)), Tags::new(CpuId(1)));
        let ((first, flush), (second, flush_too)) = (one.allocate(16), two.allocate(16));
        assert_eq!((flush, flush_too), (Flush::All, Flush::All));
        assert_ne!(first, second);
        assert!(one.is_current(first) && two.is_current(second));
        assert!(!one.is_current(second) && !two.is_current(first));
    }

    #[test]
    fn nothing_is_current_before_it_was_given() {
        for cpu in [0, 1, 0xfffe] {
            let mut tags = Tags::new(CpuId(cpu));
            assert!(!tags.is_current(AddressSpaceTag::default()));
            tags.allocate(16).0.number();
            assert!(!tags.is_current(AddressSpaceTag::default()));
        }
    }

    #[test]
    fn a_vcpu_that_comes_back_gets_a_new_tag() {
        let mut cpus = [Tags::new(CpuId(0)), Tags::new(CpuId(1))];
        let mut seen = Vec::new();
        let mut tag = AddressSpaceTag::default();
        for cpu in [0, 1, 0, 1, 0] {
            assert!(!cpus[cpu].is_current(tag));
            (tag, _) = cpus[cpu].allocate(16);
            assert!(cpus[cpu].is_current(tag));
            assert!(!seen.contains(&tag));
            seen.push(tag);
        }
    }

    #[test]
    fn within_a_round_every_number_is_given_once_and_a_round_begins_with_a_flush() {
        let mut tags = Tags::new(CpuId(3));
        let mut round = BTreeSet::new();
        for _ in 0..100 {
            let (tag, flush) = tags.allocate(16);
            if flush == Flush::All {
                assert!(round.is_empty() || round.len() == 15, "all numbers but the hypervisor's are used");
                round.clear();
            }
            assert!((1..16).contains(&tag.number()));
            assert!(round.insert(tag.number()));
        }
    }

    #[test]
    fn a_round_that_is_ended_leaves_nothing_current() {
        let mut tags = Tags::new(CpuId(0));
        let (tag, _) = tags.allocate(16);
        tags.end_round();
        assert!(!tags.is_current(tag));
        assert!(!tags.is_current(AddressSpaceTag::default()));
        let (next, flush) = tags.allocate(16);
        assert_eq!(flush, Flush::All);
        assert_ne!(next, tag);
    }
}

//! What VMRUNs, exits and markers add up to.
//!
//! Fed by `qemu` with the number of instructions that the processor has retired so far; read by `report`.

use std::collections::BTreeMap;

/// What the guest says with a marker NOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// A sample begins.
    Begin,
    /// A sample ends.
    End,
    /// Another operation is measured from now on.
    Row,
}

impl Marker {
    /// The marker in an instruction's bytes: `nopl 0x4b4d00NN(%rax)`, seven bytes, NN from 1.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x0f, 0x1f, 0x80, number, 0x00, 0x4d, 0x4b] => match number {
                1 => Some(Self::Begin),
                2 => Some(Self::End),
                3 => Some(Self::Row),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Instructions of guest and hypervisor, and exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Instructions outside of the hypervisor.
    pub(crate) guest: u64,
    /// Instructions from the one behind VMRUN to the next VMRUN, both included.
    pub(crate) host: u64,
    /// How many times the guest was left.
    pub(crate) exits: u64,
}

/// One finished row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Which one, from 0.
    pub(crate) number: u64,
    /// The samples in their order.
    pub(crate) samples: Vec<Counts>,
    /// Exit codes of all samples, and how often each came.
    pub(crate) codes: BTreeMap<u64, u64>,
    /// Hypercalls of all samples by number, whoever made them.
    pub(crate) calls: BTreeMap<u64, u64>,
    /// Instructions of all samples by address, if they were recorded.
    pub(crate) addresses: BTreeMap<u64, u64>,
}

/// One processor's state.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Retired instructions that are in `counts` already.
    seen: u64,
    counts: Counts,
    in_guest: bool,
    /// Counts when the sample began.
    begun: Option<Counts>,
    row: Row,
    /// Instructions by address when the sample began, if they are recorded.
    before: BTreeMap<u64, u64>,
    started: bool,
}

impl Meter {
    fn settle(&mut self, retired: u64) {
        let new = retired - self.seen;
        *(if self.in_guest { &mut self.counts.guest } else { &mut self.counts.host }) += new;
        self.seen = retired;
    }

    /// A VMRUN has been executed; `retired` counts it.
    pub(crate) fn enter(&mut self, retired: u64) {
        self.settle(retired);
        self.in_guest = true;
    }

    /// The instruction behind a VMRUN is about to be executed. `code` is the exit code, if it could be read.
    pub(crate) fn leave(&mut self, retired: u64, code: Option<u64>) {
        if !self.in_guest {
            return;
        }
        self.settle(retired);
        self.in_guest = false;
        self.counts.exits += 1;
        if let (Some(code), Some(_)) = (code, self.begun) {
            *self.row.codes.entry(code).or_default() += 1;
        }
    }

    /// A marker is about to be executed. Gives the row that it ends.
    pub(crate) fn mark(&mut self, marker: Marker, retired: u64) -> Option<Row> {
        self.settle(retired);
        match marker {
            Marker::Begin => self.begun = Some(self.counts),
            Marker::End => {
                if let Some(begun) = self.begun.take() {
                    self.row.samples.push(Counts {
                        guest: self.counts.guest - begun.guest,
                        host: self.counts.host - begun.host,
                        exits: self.counts.exits - begun.exits,
                    });
                }
            }
            Marker::Row => {
                self.begun = None;
                let number = if self.started { self.row.number + 1 } else { 0 };
                let row = std::mem::replace(&mut self.row, Row { number, ..Row::default() });
                return std::mem::replace(&mut self.started, true).then_some(row);
            }
        }
        None
    }

    /// Whether the row of this number is being sampled.
    pub(crate) fn samples(&self, row: u64) -> bool {
        self.started && self.begun.is_some() && self.row.number == row
    }

    /// A hypercall of this number is about to be made.
    pub(crate) fn call(&mut self, number: u64) {
        if self.begun.is_some() {
            *self.row.calls.entry(number).or_default() += 1;
        }
    }

    /// Says how many instructions each address has executed so far, before a mark of a sample whose addresses count.
    pub(crate) fn executed(&mut self, marker: Marker, addresses: BTreeMap<u64, u64>) {
        match marker {
            Marker::Begin => self.before = addresses,
            Marker::End => {
                let before = std::mem::take(&mut self.before);
                for (address, count) in addresses {
                    let new = count - before.get(&address).copied().unwrap_or(0);
                    if new != 0 {
                        *self.row.addresses.entry(address).or_default() += new;
                    }
                }
            }
            Marker::Row => self.before.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_known_by_all_their_bytes() {
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x80, 1, 0, 0x4d, 0x4b]), Some(Marker::Begin));
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x80, 3, 0, 0x4d, 0x4b]), Some(Marker::Row));
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x80, 1, 0, 0x4d, 0x4c]), None);
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x80, 9, 0, 0x4d, 0x4b]), None);
        assert_eq!(Marker::decode(&[0x0f, 0x1f, 0x80, 1, 0, 0x4d, 0x4b, 0x90]), None);
    }

    #[test]
    fn a_sample_is_split_at_the_exits_inside_of_it() {
        let mut meter = Meter::default();
        meter.enter(1000);
        assert_eq!(meter.mark(Marker::Row, 1010), None, "no row was before the first");
        meter.mark(Marker::Begin, 1020);
        meter.leave(1023, Some(0x81));
        meter.enter(1223);
        meter.mark(Marker::End, 1230);
        let row = meter.mark(Marker::Row, 1300).unwrap();
        assert_eq!(row.samples, [Counts { guest: 10, host: 200, exits: 1 }]);
        assert_eq!(row.codes, BTreeMap::from([(0x81, 1)]));
        assert_eq!(meter.mark(Marker::Row, 1300).unwrap().number, 1);
    }

    #[test]
    fn exits_between_samples_do_not_count() {
        let mut meter = Meter::default();
        meter.enter(0);
        meter.mark(Marker::Row, 0);
        meter.leave(5, Some(0x60));
        meter.enter(500);
        meter.mark(Marker::Begin, 501);
        assert!(meter.samples(0) && !meter.samples(1));
        meter.executed(Marker::Begin, BTreeMap::from([(0x1000, 7), (0x2000, 1)]));
        meter.executed(Marker::End, BTreeMap::from([(0x1000, 9), (0x2000, 1)]));
        meter.mark(Marker::End, 505);
        assert!(!meter.samples(0));
        let row = meter.mark(Marker::Row, 600).unwrap();
        assert_eq!(row.samples, [Counts { guest: 4, host: 0, exits: 0 }]);
        assert!(row.codes.is_empty());
        assert_eq!(row.addresses, BTreeMap::from([(0x1000, 2)]));
    }

    #[test]
    fn hypercalls_count_inside_of_samples() {
        let mut meter = Meter::default();
        meter.mark(Marker::Row, 0);
        meter.call(12);
        meter.mark(Marker::Begin, 1);
        meter.call(12);
        meter.call(36);
        meter.call(12);
        meter.mark(Marker::End, 9);
        meter.call(12);
        assert_eq!(meter.mark(Marker::Row, 10).unwrap().calls, BTreeMap::from([(12, 2), (36, 1)]));
    }

    #[test]
    fn the_instruction_behind_vmrun_is_an_exit_only_after_a_vmrun() {
        let mut meter = Meter::default();
        meter.leave(10, None);
        meter.enter(20);
        meter.leave(30, None);
        meter.leave(40, None);
        assert_eq!(meter.counts.exits, 1);
    }
}

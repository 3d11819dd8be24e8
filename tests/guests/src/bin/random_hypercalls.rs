//! Random hypercalls with random arguments, from a seed; afterwards the guest and its console still work.
//!
//! `seed=N` and `calls=N` on the command line repeat another run. Calls that would rightly end or stop this guest are
//! left out: shutting down, blocking without end, giving its own code away.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, environment, println, role};
    use public_abi::version::{FeatureInfo, VersionOp};
    use rt::memory;

    guests::guest!("random_hypercalls", run);

    const DEFAULT_SEED: u64 = 0x6f78_656e;
    const GRANT_TABLE_OP: u64 = 20;
    const DEFAULT_CALLS: u64 = 20_000;

    /// What the hypervisor may write to: the first half of what is set aside.
    const SCRATCH_BYTES: u64 = 8192;
    /// The addresses of code, tables and stacks. Below are but pages that nobody uses, and gfns.
    const OWN_ADDRESSES: core::ops::Range<u64> = UNUSED_END..1 << 30;
    const UNUSED_END: u64 = 0x8000;
    /// grant_table_op copy, how many copies at once, and where an element has the destination's frame (`struct gnttab_copy`).
    const COPY: u64 = 5;
    const COPIES: u64 = 4;
    const COPY_WORDS: u64 = 5;
    const DESTINATION_WORD: u64 = 2;

    struct Random(u64);

    impl Random {
        /// xorshift64* (Vigna 2016).
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.next() % end
        }

        /// A number such as structures hold: small, special, or anything; as an address nothing that this guest lives on.
        fn value(&mut self, scratch: u64) -> u64 {
            let value = self.any_value(scratch);
            if OWN_ADDRESSES.contains(&value) { scratch + value % SCRATCH_BYTES } else { value }
        }

        fn any_value(&mut self, scratch: u64) -> u64 {
            match self.below(10) {
                0..=2 => self.below(16),
                3 => self.below(5000),
                4 => 0x7ff0,
                5 => scratch + self.below(SCRATCH_BYTES),
                6 => (scratch >> 12) + self.below(4),
                7 => u64::MAX >> self.below(64),
                8 => 1 << self.below(64),
                _ => self.next(),
            }
        }
    }

    fn run(test: &mut Test) {
        let seed = environment::option("seed").unwrap_or(DEFAULT_SEED);
        let calls = environment::option("calls").unwrap_or(DEFAULT_CALLS);
        println!("GUEST-INFO seed={seed} calls={calls}");
        let mut random = Random(seed | 1);
        let scratch = memory::take_pages(4);
        let mut answered = 0_u64;
        for _ in 0..calls {
            for word in 0..24 {
                let value = random.value(scratch);
                // Low ports are the console's and xenstore's.
                memory::write(scratch + word * 8, value);
            }
            let number = random.below(56);
            let command = random.below(48);
            let mut arguments = match random.below(3) {
                0 => [scratch, random.below(4), scratch, scratch, scratch],
                1 => [command, scratch, random.below(3), scratch, random.value(scratch)],
                _ => [command, random.value(scratch), scratch, random.value(scratch), random.value(scratch)],
            };
            if number == GRANT_TABLE_OP {
                // An array of this many elements is worked on to its end, as it should be.
                arguments[2] = random.below(64);
                if arguments[0] & 0xffff_ffff == COPY {
                    // By its frame, a copy reaches this guest's code as well: it goes to the scratch memory instead.
                    for copy in 0..COPIES {
                        let place = scratch + (copy * COPY_WORDS + DESTINATION_WORD) * 8;
                        memory::write(place, (scratch >> 12) + random.below(2));
                    }
                    arguments[1] = scratch;
                    arguments[2] = random.below(COPIES + 1);
                }
            }
            if forbidden(number, &arguments) {
                continue;
            }
            let result = rt::hypercall(number, arguments);
            answered += u64::from(result >= 0);
        }
        println!("GUEST-INFO {answered} calls succeeded");
        let mut info = FeatureInfo::default();
        test.succeeds("alive", call::version(VersionOp::GetFeatures, &mut info));
        test.check("some calls made sense", answered > calls / 1000, answered);
    }

    /// What would end, stop or silence this guest, or the machine of a control domain.
    fn forbidden(number: u64, arguments: &[u64; 5]) -> bool {
        let command = arguments[0];
        let low = command & 0xffff_ffff;
        // What older calls have left in the unused pages may be any address, such as that of a map of memory to be written to.
        let leads_on = match number {
            12 | 20 => arguments[1] < UNUSED_END,
            24 => arguments[2] < UNUSED_END,
            _ => false,
        };
        match number {
            _ if leads_on => true,
            // memory_op: giving frames away, or replacing them, whichever number they have. The upper bits are a cursor.
            12 => matches!(command & 63, 0 | 1 | 6 | 7 | 11 | 15 | 23),
            // multicall and the continuation of a domctl: as below, from a list.
            13 => true,
            // console_io: noise in the log of the control domain.
            18 => role() == Role::Control,
            // vcpu_op: down, and starting vCPUs at random addresses.
            24 => matches!(low, 0..=2 | 11),
            // sched_op: all but yield.
            29 => low != 0,
            // event_channel_op: closing, resetting, rerouting the console's port, and the switch to FIFO.
            32 => matches!(low, 3 | 8 | 10 | 11),
            // hvm_op set_param: ACPI sleep states and the console's place are parameters, too.
            34 => command & 0xff == 0,
            // The machine itself.
            7 | 33 | 35 | 36 | 37 | 41 | 42 | 49 => role() == Role::Control,
            // mmuext_op of a control domain pins page tables.
            26 => role() == Role::Control,
            _ => false,
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}

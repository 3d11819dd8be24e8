//! What random hypercalls were answered: by number and command, how often, and with which errors; and which commands that the
//! ABI has were never asked for, or never succeeded.

use public_abi::Errno;
use public_abi::console_io::ConsoleIoOp;
use public_abi::domctl::DomctlOp;
use public_abi::event_channel::EventChannelOp;
use public_abi::grant_table::GrantTableOp;
use public_abi::hvm_op::HvmOp;
use public_abi::hypercall::TABLE;
use public_abi::memory::MemoryOp;
use public_abi::physdev::PhysdevOp;
use public_abi::platform::PlatformOp;
use public_abi::sched::SchedOp;
use public_abi::sysctl::SysctlOp;
use public_abi::vcpu::VcpuOp;
use public_abi::version::VersionOp;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// The answers to one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// How many there were.
    pub all: u64,
    /// How many were no errors.
    pub succeeded: u64,
    /// Errors, by number.
    pub errors: BTreeMap<i32, u64>,
}

/// All answers, by hypercall and command.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    calls: BTreeMap<(u64, u32), Answers>,
    all: u64,
}

/// Commands that are random numbers would make the tally grow without end: above this they are one.
const MOST_COMMANDS: u32 = 256;

/// The hypercalls whose commands are known, and these.
fn families() -> Vec<(u64, Vec<(u32, &'static str)>)> {
    macro_rules! commands {
        ($($number:literal $kind:ident),*) => {
            vec![$(($number, $kind::ALL.iter().map(|op| (op.number(), op.name())).collect())),*]
        };
    }
    commands![
        7 PlatformOp, 12 MemoryOp, 17 VersionOp, 18 ConsoleIoOp, 20 GrantTableOp, 24 VcpuOp, 29 SchedOp, 32 EventChannelOp,
        33 PhysdevOp, 34 HvmOp, 35 SysctlOp, 36 DomctlOp
    ]
}

/// How far commands were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Hypercalls and commands that the ABI has.
    pub known: u64,
    /// Never asked for.
    pub untouched: Vec<String>,
    /// Asked for, with nothing but ENOSYS, EOPNOTSUPP and EPERM as answers: not there, or not for the caller.
    pub refused: Vec<String>,
    /// There, but every answer was an error.
    pub failed: Vec<String>,
}

impl Tally {
    /// Counts an answer: what is in RAX.
    pub fn count(&mut self, number: u64, command: u32, answer: i64) {
        self.all += 1;
        let answers = self.calls.entry((number, command.min(MOST_COMMANDS))).or_default();
        answers.all += 1;
        // Results can be large numbers, which look negative; errors are small ones.
        match i32::try_from(answer) {
            Ok(error @ -4095..0) => *answers.errors.entry(-error).or_default() += 1,
            _ => answers.succeeded += 1,
        }
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.all += other.all;
        for (call, answers) in &other.calls {
            let sum = self.calls.entry(*call).or_default();
            sum.all += answers.all;
            sum.succeeded += answers.succeeded;
            for (error, count) in &answers.errors {
                *sum.errors.entry(*error).or_default() += count;
            }
        }
    }

    /// All answers.
    pub fn all(&self) -> u64 {
        self.all
    }

    /// How many kinds of calls have ever succeeded.
    pub fn succeeded(&self) -> usize {
        self.calls.values().filter(|answers| answers.succeeded > 0).count()
    }

    /// How far the commands of the ABI were reached.
    pub fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::default();
        for (number, commands) in families() {
            for (command, name) in commands {
                let name = format!("{}.{name}", call_name(number));
                coverage.note(name, self.calls.get(&(number, command)));
            }
        }
        let with_commands: Vec<u64> = families().iter().map(|(number, _)| *number).collect();
        for call in TABLE.iter().filter(|call| !with_commands.contains(&call.number)) {
            let mut sum = Answers::default();
            for answers in self.calls.range((call.number, 0)..=(call.number, u32::MAX)).map(|(_, answers)| answers) {
                sum.all += answers.all;
                sum.succeeded += answers.succeeded;
                answers.errors.iter().for_each(|(error, count)| *sum.errors.entry(*error).or_default() += count);
            }
            coverage.note(call.name.into(), Some(&sum));
        }
        coverage
    }
}

fn call_name(number: u64) -> &'static str {
    TABLE.iter().find(|call| call.number == number).map_or("unknown", |call| call.name)
}

impl Coverage {
    fn note(&mut self, name: String, answers: Option<&Answers>) {
        const ABSENT: [i32; 3] = [Errno::ENOSYS as i32, Errno::EOPNOTSUPP as i32, Errno::EPERM as i32];
        self.known += 1;
        match answers.filter(|answers| answers.all > 0) {
            None => self.untouched.push(name),
            Some(answers) if answers.succeeded > 0 => {}
            Some(answers) if answers.errors.keys().all(|error| ABSENT.contains(error)) => self.refused.push(name),
            Some(answers) => {
                let mut text = name;
                for error in answers.errors.keys() {
                    let error = Errno::try_from(*error).map_or("?", Errno::name);
                    write!(text, " {error}").unwrap_or(());
                }
                self.failed.push(text);
            }
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, untouched, refused, failed } = self;
        let succeeded = *known as usize - untouched.len() - refused.len() - failed.len();
        writeln!(f, "{known} commands: {succeeded} succeeded at least once")?;
        writeln!(f, "{} always failed: {}", failed.len(), failed.join(", "))?;
        writeln!(f, "{} not there, or not for this caller: {}", refused.len(), refused.join(", "))?;
        write!(f, "{} never asked for: {}", untouched.len(), untouched.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let mut tally = Tally::default();
        tally.count(29, 0, 0);
        tally.count(29, 1, -22);
        tally.count(29, 1, i64::MIN);
        tally.count(29, 2, -1);
        tally.count(29, 3, -14);
        tally.count(29, u32::MAX, -38);
        let coverage = tally.coverage();
        let has = |list: &[String], name: &str| list.iter().any(|text| text == name);
        assert_eq!((tally.all(), tally.succeeded()), (6, 2));
        assert!(has(&coverage.refused, "sched_op.shutdown"), "{coverage}");
        assert!(has(&coverage.failed, "sched_op.poll EFAULT"), "{coverage}");
        assert!(has(&coverage.untouched, "sched_op.remote_shutdown"), "{coverage}");
        assert!(!coverage.to_string().contains("sched_op.block "), "{coverage}");
        let mut twice = tally.clone();
        twice.add(&tally);
        assert_eq!((twice.all(), twice.succeeded(), twice.coverage()), (12, 2, coverage));
    }
}

//! Every thing that a command of xl asks for is refused once, in each way it can be, and the process is killed at each of them.
//!
//! A command runs with its first hypercall refused, then its second, and so on until one run passes untouched; the same with mappings,
//! requests to xenstored, the connection to it (a cut one must not even be noticed), what it asks of the machine, and the hypervisor's own allocations. After each failure the message
//! names what was refused, and everything (pages, references, event channels, nodes, devices, files) is as before; where a
//! command takes something away, the same command again must get to its end instead. After each kill the domain can be destroyed, and
//! nothing is left then. Prints how many faults there were; `OXEN_SOAK` in the environment means more kinds of
//! errors, `OXEN_FAULT="store ENOSPC"` only one.

mod common;

use common::with_toolstack;
use keystone::command::{Bench, Ended, Process, State, kill};
use libxc::fault::{self, How, Kind, Plan, Report};
use public_abi::Errno;
use std::collections::BTreeMap;
use std::fmt;
use xl::failure::Outcome;

/// A command under test. The domain of `prepare` is its argument.
struct Command {
    name: &'static str,
    /// Makes what the command works on.
    prepare: fn(&Bench<'_>) -> u16,
    act: fn(&Bench<'_>, &Process, u16) -> Outcome,
    /// Takes away what there is after a success.
    clear: fn(&Bench<'_>, u16),
    /// What holds after a failure.
    after: After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Everything is as before.
    AsBefore,
    /// The same command again goes on to the end.
    AgainWorks,
}

fn created(bench: &Bench<'_>) -> u16 {
    bench.succeed(|bench, process| bench.create(process))
}

fn destroyed(bench: &Bench<'_>, domid: u16) {
    bench.succeed(|bench, process| bench.destroy(process, domid));
    bench.toolstack.control.world().machine.forget_scripts(machine::DomId(domid));
}

/// A domain without a disk xvdb and a second interface; there is one for all runs of a command.
fn one_domain(bench: &Bench<'_>) -> u16 {
    let all = bench.toolstack.handle().domains().expect("can be asked");
    all.iter().map(|info| info.domid).find(|domid| *domid != 0).unwrap_or_else(|| created(bench))
}

fn with_disk(bench: &Bench<'_>) -> u16 {
    let domid = one_domain(bench);
    bench.succeed(|bench, process| bench.block_attach(process, domid));
    domid
}

fn with_interface(bench: &Bench<'_>) -> u16 {
    let domid = one_domain(bench);
    bench.succeed(|bench, process| bench.network_attach(process, domid));
    domid
}

const CREATE: Command = Command {
    name: "create",
    prepare: |_| 0,
    act: |bench, process, _| bench.create(process).map(drop),
    clear: |bench, _| destroyed(bench, one_domain(bench)),
    after: After::AsBefore,
};

const DESTROY: Command = Command {
    name: "destroy",
    prepare: created,
    act: |bench, process, domid| bench.destroy(process, domid),
    clear: |_, _| (),
    after: After::AgainWorks,
};

const BLOCK_ATTACH: Command = Command {
    name: "block-attach",
    prepare: one_domain,
    act: |bench, process, domid| bench.block_attach(process, domid),
    clear: |bench, domid| bench.succeed(|bench, process| bench.block_detach(process, domid)),
    after: After::AsBefore,
};

const BLOCK_DETACH: Command = Command {
    name: "block-detach",
    prepare: with_disk,
    act: |bench, process, domid| bench.block_detach(process, domid),
    clear: |_, _| (),
    after: After::AgainWorks,
};

const NETWORK_ATTACH: Command = Command {
    name: "network-attach",
    prepare: one_domain,
    act: |bench, process, domid| bench.network_attach(process, domid),
    clear: |bench, domid| bench.succeed(|bench, process| bench.network_detach(process, domid)),
    after: After::AsBefore,
};

const NETWORK_DETACH: Command = Command {
    name: "network-detach",
    prepare: with_interface,
    act: |bench, process, domid| bench.network_detach(process, domid),
    clear: |_, _| (),
    after: After::AgainWorks,
};

const MEM_SET: Command = Command {
    name: "mem-set",
    prepare: |bench| {
        let domid = one_domain(bench);
        bench.succeed(|bench, process| bench.mem_set(process, domid, 4));
        domid
    },
    act: |bench, process, domid| bench.mem_set(process, domid, 3),
    clear: |bench, domid| bench.succeed(|bench, process| bench.mem_set(process, domid, 4)),
    after: After::AsBefore,
};

/// What is made to fail, and how.
#[derive(Clone, Copy)]
enum Fault {
    /// Something that the toolstack asks for.
    Asked(Kind, How),
    /// An allocation of the hypervisor's.
    Allocation,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Allocation => f.write_str("allocation"),
            Fault::Asked(kind, How::Error(errno)) => write!(f, "{} {}", kind.name(), errno.name()),
            Fault::Asked(kind, How::Cut) => write!(f, "{} cut", kind.name()),
            Fault::Asked(kind, How::End(_)) => write!(f, "{} kill", kind.name()),
        }
    }
}

impl Fault {
    fn arm(self, bench: &Bench<'_>, number: u64) {
        match self {
            Fault::Asked(kind, how) => fault::arm(Plan { kind: Some(kind), number, how }),
            Fault::Allocation => bench.toolstack.control.world().fail_allocation(Some(number)),
        }
    }

    fn disarm(self, bench: &Bench<'_>) -> Option<String> {
        match self {
            Fault::Asked(..) => fault::disarm().and_then(|Report { failed, .. }| failed),
            Fault::Allocation => {
                let world = bench.toolstack.control.world();
                let has_failed = !world.failure_is_due();
                world.fail_allocation(None);
                has_failed.then(String::new)
            }
        }
    }

    /// Whether a command must not notice: the client connects again, and begins a transaction again.
    fn must_pass(self) -> bool {
        matches!(self, Fault::Asked(Kind::Store, How::Cut))
    }

    /// Whether a command may go on: what is absent need not be there, what others are in the way of is tried again, and a large
    /// page that cannot be had is made of small ones.
    fn may_pass(self) -> bool {
        match self {
            Fault::Allocation => true,
            // A transaction that is told EIO is tried again.
            Fault::Asked(Kind::Store, How::Error(Errno::EIO)) => true,
            Fault::Asked(_, How::Error(errno)) => matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::EAGAIN),
            Fault::Asked(_, How::Cut) => self.must_pass(),
            Fault::Asked(_, How::End(_)) => false,
        }
    }
}

/// All faults that are tried.
fn faults() -> Vec<Fault> {
    use Errno::{
        E2BIG, EACCES, EAGAIN, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, EIO, ENODATA, ENODEV, ENOENT, ENOMEM, ENOSPC,
        ENOSYS, EOPNOTSUPP, EPERM, ERANGE, ESRCH,
    };
    let all = std::env::var_os("OXEN_SOAK").is_some();
    // No ENOENT of xenstored's, or of files: who is told that there is nothing has nothing to take away.
    // What is told apart somewhere, and one of those that are not; then the rest of what the other side can answer.
    let kinds: [(Kind, &[Errno], &[Errno]); 4] = [
        (
            Kind::Hypercall,
            &[ENOMEM, ESRCH, EINVAL, EAGAIN],
            &[
                EPERM, ENOENT, EINTR, E2BIG, EACCES, EFAULT, EBUSY, EEXIST, ENODEV, ENOSPC, ENOSYS, EOPNOTSUPP,
                ENODATA, ERANGE,
            ],
        ),
        (Kind::Map, &[ENOMEM], &[EPERM, ENOENT, EINTR, EINVAL, EFAULT]),
        (Kind::Store, &[ENOSPC, EAGAIN], &[EACCES, EINVAL, EIO, EBUSY, EEXIST]),
        (Kind::Host, &[EPERM], &[ENOSPC, EIO, EBUSY, ENODEV]),
    ];
    let mut faults = vec![Fault::Allocation, Fault::Asked(Kind::Store, How::Cut)];
    for (kind, usual, others) in kinds {
        let others = if all { others } else { &[] };
        faults.extend(usual.iter().chain(others).map(|errno| Fault::Asked(kind, How::Error(*errno))));
    }
    faults
}

/// Lets a command fail in one way at each point. How often it did.
fn walk(bench: &Bench<'_>, command: &Command, fault: Fault) -> u64 {
    let Command { name, prepare, act, clear, after } = command;
    let domid = prepare(bench);
    if *after == After::AgainWorks {
        bench.succeed(|bench, process| act(bench, process, domid));
        clear(bench, domid);
    }
    let base = bench.state();
    for number in 0.. {
        let domid = prepare(bench);
        fault.arm(bench, number);
        let ended = bench.run(|bench, process| act(bench, process, domid));
        let failed = fault.disarm(bench);
        let Ended::Alone(outcome) = ended else { panic!("nobody kills here") };
        let what = format!("{name}, {fault} {number} ({})", failed.as_deref().unwrap_or("none"));
        match (outcome, &failed) {
            (Ok(()), None) => clear(bench, domid),
            (Err(failure), None) => panic!("{what}: {failure}"),
            (Ok(()), Some(_)) => {
                assert!(fault.may_pass() || *name == "destroy", "{what}: nobody noticed");
                if *after == After::AgainWorks {
                    // It may have been told that there is nothing to take away.
                    let (Ended::Alone(Ok(()) | Err(_)) | Ended::Killed) =
                        bench.run(|bench, process| act(bench, process, domid));
                }
                clear(bench, domid);
            }
            (Err(failure), Some(_)) if fault.must_pass() => panic!("{what}: {failure}"),
            (Err(failure), Some(named)) => {
                let message = failure.to_string();
                assert!(message.contains(named.trim()) || fault.may_pass(), "{what}: the message is: {message}");
                assert!(message.len() > 10 && !message.contains("failed, too"), "{what}: {message}");
                if *after == After::AgainWorks {
                    let again = bench.run(|bench, process| act(bench, process, domid));
                    assert!(matches!(again, Ended::Alone(Ok(()))), "{what}: {message}; again: {again:?}");
                    clear(bench, domid);
                }
            }
        }
        assert_same(&base, &bench.state(), &what);
        if failed.is_none() {
            return number;
        }
    }
    unreachable!("there is an end")
}

fn assert_same(before: &State, after: &State, what: &str) {
    let difference = before.difference(after);
    assert_eq!(difference, "", "{what}");
}

/// Lets commands fail in every way, on one host each, and prints how often each did.
fn fail_everywhere(name: &str, commands: &[Command], least: u64) {
    with_toolstack(|toolstack| {
        let bench = Bench::new(toolstack, name);
        // What only grows has grown after this.
        let domid = created(&bench);
        for command in [&BLOCK_ATTACH, &NETWORK_ATTACH, &MEM_SET] {
            bench.succeed(|bench, process| (command.act)(bench, process, domid));
            (command.clear)(&bench, domid);
        }
        destroyed(&bench, domid);
        let empty = bench.state();
        let mut all = 0;
        for command in commands {
            let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
            let wanted = std::env::var("OXEN_FAULT").unwrap_or_default();
            for fault in faults().into_iter().filter(|fault| fault.to_string().starts_with(&wanted)) {
                let count = walk(&bench, command, fault);
                let kind = match fault {
                    Fault::Allocation => "allocation",
                    Fault::Asked(_, How::Cut) => "cut",
                    Fault::Asked(kind, _) => kind.name(),
                };
                *sums.entry(kind).or_default() += count;
            }
            println!("FAULTS {} {sums:?}", command.name);
            all += sums.values().sum::<u64>();
        }
        if let Some(info) = toolstack.handle().domains().expect("can be asked").iter().find(|info| info.domid != 0) {
            destroyed(&bench, info.domid);
        }
        assert_same(&empty, &bench.state(), "at the end");
        assert!(all > least || std::env::var_os("OXEN_FAULT").is_some(), "only {all} faults");
    });
}

#[test]
fn creating_a_domain_fails_without_a_trace() {
    fail_everywhere("create", &[CREATE], 500);
}

#[test]
fn destroying_a_domain_goes_on_where_it_failed() {
    fail_everywhere("destroy", &[DESTROY], 150);
}

#[test]
fn block_devices_come_and_go_whole() {
    fail_everywhere("block", &[BLOCK_ATTACH, BLOCK_DETACH], 180);
}

#[test]
fn interfaces_come_and_go_whole_and_so_does_memory() {
    fail_everywhere("network", &[NETWORK_ATTACH, NETWORK_DETACH, MEM_SET], 180);
}

#[test]
fn a_domain_that_another_process_destroys_meanwhile_is_destroyed() {
    with_toolstack(|toolstack| {
        let bench = Bench::new(toolstack, "race");
        destroyed(&bench, created(&bench));
        let empty = bench.state();
        let domid = created(&bench);
        let other = bench.process();
        let destroy = move || other.handle.domain_destroy(domid).expect("is destroyed");
        bench.machine.host.meanwhile.replace(Some(Box::new(destroy)));
        destroyed(&bench, domid);
        assert!(bench.machine.host.meanwhile.borrow().is_none(), "nobody has raced");
        assert_same(&empty, &bench.state(), "destroyed twice");
        let Ended::Alone(Err(failure)) = bench.run(|bench, process| bench.destroy(process, domid)) else {
            panic!("there is nothing to destroy")
        };
        assert!(failure.to_string().contains("there is no domain"), "{failure}");
    });
}

/// Kills a command at each point. How often it was killed.
fn kill_everywhere(bench: &Bench<'_>, command: &Command, empty: &State) -> u64 {
    let Command { name, prepare, act, .. } = command;
    for number in 0.. {
        let domid = prepare(bench);
        fault::arm(Plan { kind: None, number, how: How::End(kill) });
        let ended = bench.run(|bench, process| act(bench, process, domid));
        let failed = fault::disarm().and_then(|report| report.failed);
        match (&ended, &failed) {
            (Ended::Killed, Some(_)) | (Ended::Alone(Ok(())), None) => {}
            _ => panic!("{name}, kill {number}: {ended:?}, {failed:?}"),
        }
        // Whatever there is can be destroyed, if it is there at all, and nothing is left then.
        for info in toolstack_domains(bench) {
            destroyed(bench, info);
        }
        assert_same(empty, &bench.state(), &format!("{name}, killed at {number} ({failed:?})"));
        if failed.is_none() {
            return number;
        }
    }
    unreachable!("there is an end")
}

fn toolstack_domains(bench: &Bench<'_>) -> Vec<u16> {
    let all = bench.toolstack.handle().domains().expect("can be asked");
    all.iter().map(|info| info.domid).filter(|domid| *domid != 0).collect()
}

#[test]
fn a_command_that_is_killed_leaves_a_domain_that_can_be_destroyed() {
    with_toolstack(|toolstack| {
        let bench = Bench::new(toolstack, "kill");
        destroyed(&bench, with_disk(&bench));
        let empty = bench.state();
        for command in [CREATE, DESTROY, BLOCK_ATTACH, BLOCK_DETACH, NETWORK_ATTACH, NETWORK_DETACH, MEM_SET] {
            let kills = kill_everywhere(&bench, &command, &empty);
            println!("KILLS {} {kills}", command.name);
            assert!(kills > 5, "{kills}");
        }
    });
}

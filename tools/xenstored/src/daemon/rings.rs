//! Bytes between rings and the engine: requests in, then, when the records are safe, answers out.

use public_abi::io::xs_wire::ERROR_RINGIDX;

use super::machine::Machine;
use super::poison::Work;
use crate::engine::{ConnectionId, Engine, Host};

/// Takes requests from every ring that has some.
pub(super) fn read(engine: &mut Engine, machine: &mut Machine) {
    let ready: Vec<u16> = machine.lines.iter().filter(|(_, line)| line.is_ready).map(|(domain, _)| *domain).collect();
    for domain in ready {
        if let Some(id) = engine.connection_of(domain) {
            let _work = Work::begin(domain);
            read_one(engine, machine, domain, id);
        }
    }
}

fn read_one(engine: &mut Engine, machine: &mut Machine, domain: u16, id: ConnectionId) {
    let Some(line) = machine.lines.get_mut(&domain) else {
        return;
    };
    line.is_ready = false;
    if domain != 0 && line.ring.wants_reconnection() {
        line.ring.clear();
        line.has_taken = true;
        engine.reconnected(domain, line.ring.place());
        return;
    }
    engine.proceed(machine, id);
    let Some(line) = machine.lines.get_mut(&domain) else {
        return;
    };
    if !engine.wants_input(id) {
        return;
    }
    match line.ring.take() {
        Ok(bytes) if bytes.is_empty() => {}
        Ok(bytes) => {
            line.has_taken = true;
            // The domain may have written more meanwhile.
            line.is_ready = true;
            let taken = line.ring.place().taken;
            engine.receive_from_ring(machine, id, &bytes, taken);
        }
        Err(_) => {
            machine.log(&format!("domain {domain}: an index of its ring makes no sense"));
            engine.fail(id, ERROR_RINGIDX);
        }
    }
}

/// Gives answers and events, and shows what was taken. Whether a ring has more to do.
pub(super) fn write(engine: &mut Engine, machine: &mut Machine) -> bool {
    let domains: Vec<u16> = machine.lines.keys().copied().collect();
    for domain in domains {
        let Some(id) = engine.connection_of(domain) else {
            continue;
        };
        if write_one(engine, machine, domain, id) {
            machine.notify(domain);
        }
    }
    machine.lines.values().any(|line| line.is_ready)
}

/// Whether the domain must be notified.
fn write_one(engine: &mut Engine, machine: &mut Machine, domain: u16, id: ConnectionId) -> bool {
    let Some(line) = machine.lines.get_mut(&domain) else {
        return false;
    };
    let mut has_news = std::mem::take(&mut line.has_taken);
    if has_news {
        line.ring.publish();
    }
    let was_full = !engine.wants_input(id);
    let has_failed = engine.failure(id).is_some();
    while let Some(output) = engine.output(id).filter(|output| output.len() > 0 && !has_failed) {
        match line.ring.give(output.front()) {
            Ok(0) => break,
            Ok(count) => {
                output.take(count);
                has_news = true;
            }
            Err(_) => {
                engine.fail(id, ERROR_RINGIDX);
                break;
            }
        }
    }
    if let Some(error) = engine.failure(id).filter(|_| !line.has_failed) {
        line.has_failed = true;
        line.ring.fail(error);
        has_news = true;
    }
    line.is_ready |= was_full && engine.wants_input(id);
    has_news
}

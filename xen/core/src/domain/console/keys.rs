//! Debug keys: one letter prints one view of the hypervisor's state.
//!
//! Before: the serial line, while input goes to the hypervisor, and sysctl debug_keys (`xl debug-keys`). The letters are
//! Xen's (common/keyhandler.c). What is printed is copied out of its lock first, because the serial line is slow.

use crate::domain::Domain;
use crate::domain::info;
use crate::domain::lifecycle::Stage;
use crate::host::Host;
use crate::timer::TimerKind;
use core::sync::atomic::Ordering;
use machine::codec::registers::Register;
use machine::{DomId, frame, log};
use public_abi::domctl_domain::DomainInfoFlags;

/// A debug key.
struct Key {
    key: u8,
    about: &'static str,
    /// Whether `*` runs it as well.
    diagnostic: bool,
    run: fn(&Host),
}

/// The registry, in the order of `h`.
const KEYS: &[Key] = &[
    Key { key: b'*', about: "print all diagnostics", diagnostic: false, run: everything },
    Key { key: b'0', about: "dump Dom0 registers", diagnostic: true, run: control_registers },
    Key { key: b'C', about: "trigger a crashdump", diagnostic: false, run: crash },
    Key { key: b'R', about: "reboot machine", diagnostic: false, run: reboot },
    Key { key: b'd', about: "dump registers", diagnostic: true, run: all_registers },
    Key { key: b'e', about: "dump evtchn info", diagnostic: true, run: events },
    Key { key: b'h', about: "show this message", diagnostic: false, run: help },
    Key { key: b'm', about: "memory info", diagnostic: true, run: memory },
    Key { key: b'q', about: "dump domain (and guest debug) info", diagnostic: true, run: domains },
    Key { key: b'r', about: "dump run queues", diagnostic: true, run: queues },
    Key { key: b't', about: "display multi-cpu clock and timer info", diagnostic: true, run: timers },
];

/// Runs the handler of a key; unknown keys do nothing, as in Xen.
pub fn press(host: &Host, key: u8) {
    if let Some(found) = KEYS.iter().find(|candidate| candidate.key == key) {
        log!(Info, "'{}' pressed -> {}", char::from(key), found.about);
        (found.run)(host);
    }
}

fn help(_host: &Host) {
    for key in KEYS {
        log!(Info, " key '{}' (ascii '{:02x}') => {}", char::from(key.key), key.key, key.about);
    }
}

fn everything(host: &Host) {
    for key in KEYS.iter().filter(|key| key.diagnostic) {
        log!(Info, "[{}: {}]", char::from(key.key), key.about);
        (key.run)(host);
    }
}

/// Leaves what a dump reader finds, as any panic does, on request: Xen starts its crash kernel here, and there is none.
fn crash(_host: &Host) {
    panic!("a crash was asked for by a debug key");
}

fn reboot(_host: &Host) {
    machine::cpu::restart();
}

/// Calls `visit` for every domain, in the order of numbers.
fn each_domain(host: &Host, mut visit: impl FnMut(&Domain)) {
    let mut next = Some(DomId(0));
    while let Some(domain) = next.and_then(|from| host.domains.next_from(from)) {
        visit(&domain);
        next = domain.id.0.checked_add(1).map(DomId);
    }
}

fn all_registers(host: &Host) {
    each_domain(host, registers);
}

fn control_registers(host: &Host) {
    match host.domains.get(DomId::CONTROL) {
        Some(domain) => registers(&domain),
        None => log!(Info, "there is no control domain"),
    }
}

/// The registers of a domain's vCPUs. Those on a CPU belong to that CPU and cannot be looked at.
fn registers(domain: &Domain) {
    for vcpu in domain.vcpus() {
        let Some(hardware) = vcpu.hardware.try_lock() else {
            log!(Info, "{}v{}: running on CPU{}", domain.id, vcpu.index, vcpu.sched.cpu().0);
            continue;
        };
        let state = hardware.guest();
        let (rip, rflags, cr0, cr3, cr4, efer) =
            (state.rip, state.rflags, state.cr0, state.cr3, state.cr4, state.efer());
        let general = GENERAL.map(|(name, register)| (name, hardware.register(register)));
        drop(hardware);
        log!(Info, "{}v{}: {:?}, last on CPU{}", domain.id, vcpu.index, vcpu.wait(), vcpu.sched.cpu().0);
        log!(Info, "  rip {rip:016x} rflags {rflags:08x} cr0 {cr0:08x} cr3 {cr3:016x} cr4 {cr4:08x} efer {efer:08x}");
        for line in general.chunks(4) {
            if let [(a, x), (b, y), (c, z), (d, w)] = line {
                log!(Info, "  {a} {x:016x} {b} {y:016x} {c} {z:016x} {d} {w:016x}");
            }
        }
    }
}

const GENERAL: [(&str, Register); 16] = [
    ("rax", Register::Rax),
    ("rbx", Register::Rbx),
    ("rcx", Register::Rcx),
    ("rdx", Register::Rdx),
    ("rsi", Register::Rsi),
    ("rdi", Register::Rdi),
    ("rbp", Register::Rbp),
    ("rsp", Register::Rsp),
    ("r8 ", Register::R8),
    ("r9 ", Register::R9),
    ("r10", Register::R10),
    ("r11", Register::R11),
    ("r12", Register::R12),
    ("r13", Register::R13),
    ("r14", Register::R14),
    ("r15", Register::R15),
];

fn domains(host: &Host) {
    log!(Info, "now = {} ns", host.clock.now());
    each_domain(host, |domain| {
        let about = info::domain(host, domain);
        let flags = DomainInfoFlags::from_bits_truncate(about.flags & 0xffff);
        let dying = domain.lifecycle.stage() != Stage::Alive;
        log!(Info, "General information for domain {}:", domain.id.0);
        log!(Info, "    flags={flags:?} dying={dying} shutdown={:?}", domain.lifecycle.shutdown_reason());
        log!(
            Info,
            "    nr_pages={} max_pages={} claimed={} shared_info={:#x}",
            about.tot_pages,
            about.max_pages,
            about.outstanding_pages,
            about.shared_info_frame
        );
        log!(Info, "    handle={}", Uuid(about.handle));
        for vcpu in domain.vcpus() {
            let state = info::vcpu(host, vcpu);
            let (hard, soft) = (vcpu.sched.affinity(), vcpu.sched.soft_affinity());
            log!(
                Info,
                "    VCPU{}: CPU{} {:?} running={} ran={} ns affinity: hard={hard:#x} soft={soft:#x}",
                vcpu.index,
                state.cpu,
                vcpu.wait(),
                state.running,
                state.cpu_time
            );
        }
    });
}

/// A domain's handle in the usual notation.
struct Uuid([u8; 16]);

impl core::fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

fn memory(host: &Host) {
    let kib = |pages: u64| pages.saturating_mul(machine::PAGE_SIZE_U64 / 1024);
    log!(Info, "Physical memory information: {} KiB of RAM", kib(frame::total_pages()));
    // Xen's words (common/page_alloc.c, pagealloc_info), which scripts look for. There is one heap here for all.
    log!(Info, "    Dom heap: {}kB free", kib(frame::free_pages()));
    log!(Info, "Highest page: {:?}", frame::last_page());
    // What neither is free nor was given to a domain, domains' page tables and structures included.
    let mut own = frame::total_pages().saturating_sub(frame::free_pages());
    each_domain(host, |domain| own = own.saturating_sub(domain.accounting.pages()));
    let table = frame::total_pages().saturating_mul(frame::RECORD_BYTES);
    log!(
        Info,
        "Hypervisor's own memory: {} bytes beside a frame table of {} bytes a page",
        own.saturating_mul(machine::PAGE_SIZE_U64).saturating_sub(table),
        frame::RECORD_BYTES
    );
    each_domain(host, |domain| {
        log!(
            Info,
            "{}: {} KiB of at most {} KiB, {} KiB claimed, {} KiB of {} KiB for page tables",
            domain.id,
            kib(domain.accounting.pages()),
            kib(domain.accounting.max_pages.load(Ordering::Relaxed)),
            kib(domain.accounting.claimed.load(Ordering::Relaxed)),
            kib(domain.p2m.table_pages()),
            kib(domain.p2m.table_limit())
        );
    });
}

fn queues(host: &Host) {
    log!(Info, "now = {} ns, {} CPUs", host.clock.now(), host.cpus.len());
    for (number, cpu) in host.cpus.iter().enumerate() {
        let waiting = cpu.queue.lock().len();
        let idle = host.clock.scale().nanoseconds(cpu.idle_time.load(Ordering::Acquire));
        log!(Info, "CPU{number}: {waiting} vCPUs wait, idle for {idle} ns");
    }
    each_domain(host, |domain| {
        let weight = domain.control.lock().records.weight;
        log!(Info, "{}: weight {weight}", domain.id);
        for vcpu in domain.vcpus() {
            let place = if vcpu.sched.is_running() { "on" } else { "off" };
            let ran = host.clock.scale().nanoseconds(vcpu.sched.run_time());
            log!(Info, "    VCPU{}: {place} CPU{}, {:?}, ran {ran} ns", vcpu.index, vcpu.sched.cpu().0, vcpu.wait());
        }
    });
}

fn timers(host: &Host) {
    let now = machine::cpu::timestamp();
    log!(Info, "TSC {now} at {} kHz, system time {} ns", machine::cpu::timestamp_khz(), host.clock.now());
    let kinds = [TimerKind::Singleshot, TimerKind::Lapic, TimerKind::Poll, TimerKind::Periodic, TimerKind::Watchdog];
    each_domain(host, |domain| {
        for vcpu in domain.vcpus() {
            for kind in kinds {
                let Some(deadline) = vcpu.timers.deadline(kind) else {
                    continue;
                };
                let left = host.clock.scale().nanoseconds(deadline.saturating_sub(now));
                log!(Info, "{}v{}: {kind:?} in {left} ns", domain.id, vcpu.index);
            }
        }
    });
}

fn events(host: &Host) {
    each_domain(host, |domain| {
        log!(Info, "Event channel information for domain {}:", domain.id.0);
        let count = domain.events.table().count();
        for number in 0..count {
            // Copied out of the lock: others raise events meanwhile.
            let found = {
                let table = domain.events.table();
                let pending = table.is_pending(domain.events.shared_info(), number).unwrap_or(false);
                table.port(number).ok().map(|port| (port.state, port.vcpu, port.priority, pending))
            };
            let Some((state, vcpu, priority, pending)) = found.filter(|(state, ..)| state.is_usable()) else {
                continue;
            };
            log!(Info, "    {number:4} VCPU{vcpu} priority {priority} pending={} {state:?}", u8::from(pending));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn every_key_is_there_once() {
        for key in KEYS {
            assert_eq!(KEYS.iter().filter(|other| other.key == key.key).count(), 1, "{}", char::from(key.key));
        }
    }

    #[test]
    fn a_handle_is_written_as_tools_write_it() {
        let uuid = Uuid(core::array::from_fn(|index| u8::try_from(index).unwrap()));
        assert_eq!(format!("{uuid}"), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}

//! Recognises a hypervisor's panic and dom0's crash in the console's text.
//!
//! Lines of the hypervisor begin with `(XEN) ` (Oxen's may begin with `(OXEN) `) and perhaps a time in brackets. Their
//! words are those of Xen 4.17: "Panic on CPU N:", "Hardware Dom0 crashed: ", "… halted: " and
//! "… shutdown: ". A kernel's own panic message alone is
//! only a suspicion, since a script may show the console of a guest that panics.

/// How a domain ended; Xen's shutdown reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainEnd {
    /// SHUTDOWN_poweroff.
    PowerOff,
    /// SHUTDOWN_reboot.
    Reboot,
    /// SHUTDOWN_crash or SHUTDOWN_watchdog.
    Crash,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The hypervisor stopped.
    HypervisorPanic,
    /// The hypervisor did not come up, for this reason.
    NoBoot(String),
    /// The hypervisor says how dom0 ended.
    Dom0(DomainEnd),
    /// Some kernel panicked, probably dom0's.
    KernelPanic,
}

/// Collects lines from pieces of text.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    line: Vec<u8>,
}

/// Enough of a line to know it by.
const LONGEST: usize = 512;

impl Detector {
    /// Takes more console text and gives the signs in it.
    pub(crate) fn feed(&mut self, text: &[u8]) -> Vec<Sign> {
        let mut signs = Vec::new();
        for &byte in text {
            if byte == b'\n' {
                signs.extend(classify(&String::from_utf8_lossy(&self.line)));
                self.line.clear();
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
        signs
    }
}

fn classify(line: &str) -> Option<Sign> {
    let line = line.trim();
    if let Some(words) = ["(XEN)", "(OXEN)"].iter().find_map(|prefix| line.strip_prefix(prefix)) {
        let words = without_time(words);
        if words.starts_with("Panic on CPU") {
            return Some(Sign::HypervisorPanic);
        }
        if let Some(reason) = words.strip_prefix("Oxen cannot ") {
            return Some(Sign::NoBoot(format!("Oxen cannot {reason}")));
        }
        let end = words.strip_prefix("Hardware Dom0 ")?;
        return if end.starts_with("crashed") || end.starts_with("shutdown: watchdog") {
            Some(Sign::Dom0(DomainEnd::Crash))
        } else if end.starts_with("halted") {
            Some(Sign::Dom0(DomainEnd::PowerOff))
        } else if end.starts_with("shutdown: rebooting") {
            Some(Sign::Dom0(DomainEnd::Reboot))
        } else {
            None
        };
    }
    without_time(line).starts_with("Kernel panic - not syncing").then_some(Sign::KernelPanic)
}

/// The text after a time such as `[    3.141593]`.
fn without_time(text: &str) -> &str {
    let text = text.trim_start();
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_in_the_hypervisors_own_lines() {
        let mut detector = Detector::default();
        assert!(detector.feed(b"(XEN) [   12.3] Panic on").is_empty());
        assert_eq!(detector.feed(b" CPU 0:\r\n(XEN) x\r\n"), [Sign::HypervisorPanic]);
        assert_eq!(
            detector.feed(b"(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting.\r\n"),
            [Sign::Dom0(DomainEnd::Crash)]
        );
        assert_eq!(
            detector.feed(b"(XEN) Oxen cannot go on: no module was loaded\n"),
            [Sign::NoBoot("Oxen cannot go on: no module was loaded".into())]
        );
        assert_eq!(detector.feed(b"[    4.1] Kernel panic - not syncing: sysrq\r\n"), [Sign::KernelPanic]);
    }

    #[test]
    fn talk_about_panics_is_no_panic() {
        let mut detector = Detector::default();
        assert!(detector.feed(b"echo Panic on CPU 0\n(d1) Kernel panic - not syncing\n").is_empty());
        let text = b"(XEN) Hardware Dom0 halted: halting machine\n";
        assert_eq!(detector.feed(text), [Sign::Dom0(DomainEnd::PowerOff)]);
    }
}

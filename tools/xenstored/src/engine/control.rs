//! CONTROL: what an administrator may ask of the daemon itself (`xenstore-control`).
//!
//! The commands of Xen 4.17's C xenstored but live-update. Their answers are text.

use public_abi::Errno;

use super::request::{Answer, OK, fields, number};
use super::{Engine, Host, Peer};

/// Commands and what may follow them.
const COMMANDS: [(&str, &str); 7] = [
    ("check", ""),
    ("help", ""),
    ("log", "on|off"),
    ("logfile", "<file>"),
    ("memreport", "[<file>]"),
    ("print", "<string>"),
    ("quota", "[set <name> <value>|<domid>]"),
];

impl Engine {
    pub(super) fn control(&mut self, host: &mut dyn Host, payload: &[u8]) -> Answer {
        let texts: Option<Vec<&str>> = fields(payload).iter().map(|field| std::str::from_utf8(field).ok()).collect();
        let texts = texts.ok_or(Errno::EINVAL)?;
        match texts.as_slice() {
            ["help"] => Ok(text(COMMANDS.iter().map(|(name, rest)| format!("{name} {rest}\n")).collect())),
            ["check"] => self.check(host),
            ["log", "on"] => {
                self.is_tracing = true;
                Ok(OK.to_vec())
            }
            ["log", "off"] => {
                self.is_tracing = false;
                Ok(OK.to_vec())
            }
            ["logfile", file] => host.log_to(file).map(|()| OK.to_vec()),
            ["print", words] => {
                host.log(words);
                Ok(OK.to_vec())
            }
            ["memreport"] => {
                host.log(&self.report());
                Ok(OK.to_vec())
            }
            ["memreport", file] => host.write_file(file, &self.report()).map(|()| OK.to_vec()),
            ["quota"] => Ok(text(self.limits.print())),
            ["quota", "set", name, value] => {
                let value = number(value.as_bytes())?;
                if self.limits.set(name, value) { Ok(OK.to_vec()) } else { Err(Errno::EINVAL) }
            }
            ["quota", domain] => self.domain_quota(number(domain.as_bytes())?),
            _ => Err(Errno::EINVAL),
        }
    }

    fn check(&self, host: &mut dyn Host) -> Answer {
        let is_good = self.store.is_consistent();
        host.log(if is_good { "check: all sums are right" } else { "check: sums of nodes are wrong" });
        if is_good { Ok(OK.to_vec()) } else { Err(Errno::EIO) }
    }

    fn domain_quota(&self, domain: u16) -> Answer {
        let known = self.connection_of(domain).ok_or(Errno::ENOENT)?;
        let connection = self.connections.get(&known).ok_or(Errno::ENOENT)?;
        let usage = self.store.usage(domain);
        Ok(text(format!(
            "Domain {domain}:\n{:17}: {:8}\n{:17}: {:8}\n{:17}: {:8}\n{:17}: {:8}\n{:17}: {:8}\n",
            "nodes",
            usage.nodes,
            "watches",
            connection.watches,
            "transactions",
            connection.transactions.len(),
            "outstanding",
            connection.output.answers(),
            "memory",
            usage.bytes + self.other_bytes(known),
        )))
    }

    /// What there is, and what it costs.
    fn report(&self) -> String {
        let mut lines = format!(
            "{} nodes, {} connections, {} watches\n",
            self.store.len(),
            self.connections.len(),
            self.watches.iter().count()
        );
        for (domain, usage) in self.store.usages() {
            lines += &format!("domain {domain}: {} nodes, {} bytes\n", usage.nodes, usage.bytes);
        }
        for (id, connection) in &self.connections {
            let peer = match connection.peer {
                Peer::Socket => "a socket".to_owned(),
                Peer::Domain(domain) => format!("domain {domain}"),
            };
            lines += &format!(
                "connection {} of {peer}: {} watches, {} transactions, {} bytes in, {} bytes out\n",
                id.0,
                connection.watches,
                connection.transactions.len(),
                connection.reader.rest().len(),
                connection.output.len()
            );
        }
        lines
    }
}

/// An answer that is text; cut to what a message holds.
fn text(mut text: String) -> Vec<u8> {
    text.truncate(public_abi::io::xs_wire::PAYLOAD_MAX - 1);
    text.push('\0');
    text.into_bytes()
}

//! `tests/guests/guests.list`: which tiny guests there are, where each runs and how its domain must end.
//!
//! One line per guest: name, roles (`control`, `guest` or both with a comma), number of vCPUs, MiB of memory, end
//! (`poweroff`, `reboot`, `crash`; `panic`, if it takes the hypervisor with it); and words for QEMU, for a control domain that
//! needs a device. Read by [`super::guests`] and [`super::tiny`].

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::console::crash::DomainEnd;

/// Where the list is.
const LIST: &str = "tests/guests/guests.list";

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// As the control domain.
    Control,
    /// Made by xl.
    Guest,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// The program.
    pub(crate) name: String,
    /// Where it runs.
    pub(crate) roles: Vec<Role>,
    /// How many vCPUs it wants.
    pub(crate) vcpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// How it must end.
    pub(crate) end: WantedEnd,
    /// Arguments for QEMU.
    pub(crate) qemu_args: Vec<String>,
}

/// How a guest must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WantedEnd {
    /// Its domain ends so.
    Domain(DomainEnd),
    /// The hypervisor panics, on request.
    Panic,
}

impl Guest {
    /// The test's name: the program's, with the devices that it needs, or for a guest made by xl "guest PROGRAM".
    pub(crate) fn test_name(&self, role: Role) -> String {
        match role {
            Role::Control if !self.qemu_args.is_empty() => format!("{} [{}]", self.name, self.qemu_args.join(" ")),
            Role::Control => self.name.clone(),
            Role::Guest => format!("guest {}", self.name),
        }
    }
}

/// Reads the list and gives the guests of one role whose test names contain the filter.
///
/// # Errors
/// The list cannot be read; a line that is wrong is named.
pub(crate) fn read(root: &Path, role: Role, filter: Option<&str>) -> Result<Vec<Guest>> {
    let path = root.join(LIST);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let guests = parse(&text).with_context(|| format!("{}", path.display()))?;
    Ok(guests
        .into_iter()
        .filter(|guest| guest.roles.contains(&role))
        .filter(|guest| filter.is_none_or(|filter| guest.test_name(role).contains(filter)))
        .collect())
}

fn parse(text: &str) -> Result<Vec<Guest>> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| parse_line(line).with_context(|| format!("line {number}: {line}")))
        .collect()
}

fn parse_line(line: &str) -> Result<Guest> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, roles, vcpus, memory, end, qemu_args @ ..] = words.as_slice() else {
        bail!("expected name, roles, vCPUs, MiB and end");
    };
    let roles = roles
        .split(',')
        .map(|role| match role {
            "control" => Ok(Role::Control),
            "guest" => Ok(Role::Guest),
            _ => bail!("`{role}` is no role"),
        })
        .collect::<Result<_>>()?;
    let roles: Vec<Role> = roles;
    if *end == "panic" && roles.contains(&Role::Guest) {
        bail!("only the control domain may make the hypervisor panic");
    }
    if !qemu_args.is_empty() && roles.contains(&Role::Guest) {
        bail!("only the control domain has devices of the machine");
    }
    Ok(Guest {
        qemu_args: qemu_args.iter().map(|word| (*word).to_owned()).collect(),
        name: (*name).to_owned(),
        roles,
        vcpus: vcpus.parse().context("number of vCPUs")?,
        memory_mib: memory.parse().context("MiB of memory")?,
        end: match *end {
            "poweroff" => WantedEnd::Domain(DomainEnd::PowerOff),
            "reboot" => WantedEnd::Domain(DomainEnd::Reboot),
            "crash" => WantedEnd::Domain(DomainEnd::Crash),
            "panic" => WantedEnd::Panic,
            _ => bail!("`{end}` is no end of a domain"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_comments() {
        let guests =
            parse("# name roles\n\nspin  control,guest 2 64 poweroff\ntriple_fault control 1 32 reboot\n").unwrap();
        assert_eq!(guests.len(), 2);
        assert!(guests[0].qemu_args.is_empty());
        let with_device = &parse("spin control 1 64 poweroff -device edu").unwrap()[0];
        assert_eq!(with_device.qemu_args, ["-device", "edu"]);
        assert_eq!(with_device.test_name(Role::Control), "spin [-device edu]");
        assert_eq!(guests[0].roles, [Role::Control, Role::Guest]);
        assert_eq!(
            (guests[1].vcpus, guests[1].memory_mib, guests[1].end),
            (1, 32, WantedEnd::Domain(DomainEnd::Reboot))
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        for line in [
            "spin control 2 64",
            "spin somewhere 2 64 poweroff",
            "spin control x 64 poweroff",
            "spin control 1 1 off",
            "spin control,guest 1 64 panic",
            "spin control,guest 1 64 poweroff -device edu",
        ] {
            let error = format!("{:#}", parse(&format!("# x\n{line}\n")).unwrap_err());
            assert!(error.contains("line 2: spin"), "{error}");
        }
    }
}

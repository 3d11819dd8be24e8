//! The tables of `docs/xl-for-xen-users.md`, from the declarations that arguments and configurations are read with.
//!
//! `cargo xtask docs` writes them (examples/pages.rs) between the document's marks `<!-- begin NAME -->` and `<!-- end NAME -->`; a test
//! here fails when a command, an option or a key is not there as it is declared. What differs from Xen's xl is told by hand
//! ([`DIFFERENCES`]); its facts are from xl(1), xl.cfg(5) and xl.conf(5) of Xen 4.17.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;
use crate::config::schema::{Key, Tier, Use, keys};
use crate::host_config;

/// What differs from the command of the same name of Xen's xl 4.17; the same is what is not here. A `--json` is a difference of every
/// command that has one, and not told.
const DIFFERENCES: &[(&str, &str)] = &[
    ("button-press", "on Oxen an error: a PVH guest has no buttons"),
    ("channel-list", "always empty so far: `channel=` is refused"),
    ("config-update", "checks the whole configuration before it is kept"),
    ("console", "no serial or emulated console; goes on when xenconsoled is started again"),
    ("create", "says all mistakes at once, with line and column; `--plan`; no `-V` and `-A` (VNC)"),
    ("dump-core", "the file must be named"),
    ("help", "`help COMMAND`, but no `--long`"),
    ("block-attach", "refuses what is mounted, or in use by another domain; without scripts"),
    ("network-attach", "without scripts, but for your own"),
    ("pause", "of a domain that is not there: an error (Xen's xl ends with 0)"),
    ("unpause", "of a domain that is not there: an error (Xen's xl ends with 0)"),
    ("reboot", "of a domain that has stopped already returns at once"),
    ("shutdown", "of a domain that has stopped already returns at once"),
    ("sched-credit2", "one CPU pool; a weight is not set if the cap beside it is refused"),
    (
        "top",
        "a program of its own here, with xentop's options; xentop is not needed. A domain without a name is `(null)`; xentop leaves it out",
    ),
    ("trigger", "on Oxen only `nmi`; no `s3resume`"),
    ("vcpu-list", "without a domain of that name: an error (Xen's xl ends with 0)"),
];

/// The parts of the document that are made, by name.
pub fn parts() -> Vec<(&'static str, String)> {
    let mut parts = vec![("commands", commands())];
    for (name, tier) in [("keys-t1", Tier::T1), ("keys-t2", Tier::T2), ("keys-t3", Tier::T3), ("keys-t4", Tier::T4)] {
        parts.push((name, key_table(tier)));
    }
    parts.push(("xl-conf", host_keys()));
    parts
}

/// The document with its parts made anew.
///
/// # Errors
/// The name of a part whose marks are not there.
pub fn refresh(text: &str) -> Result<String, String> {
    let mut text = text.to_owned();
    for (name, content) in parts() {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let marks = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = marks.ok_or_else(|| format!("the marks of `{name}` are missing"))?;
        text = format!("{before}{begin}{content}{end}{after}");
    }
    Ok(text)
}

fn commands() -> String {
    let mut table = String::from("| command | what it does | what differs |\n|---|---|---|\n");
    let mut command = Cli::command();
    command.build();
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        let words: Vec<String> = inner.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(usage).collect();
        let name = inner.get_name();
        let line = format!("{name} {}", words.join(" "));
        let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
        let difference = DIFFERENCES.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text);
        writeln!(table, "| `{}` | {} | {} |", cell(line.trim()), cell(&about), cell(difference)).ok();
    }
    table
}

/// An argument as xl(1) writes it; none for the help that every command has.
fn usage(arg: &Arg) -> Option<String> {
    if arg.get_id() == "help" {
        return None;
    }
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
    if arg.is_positional() {
        let many = if arg.get_num_args().is_some_and(|count| count.max_values() > 1) { "..." } else { "" };
        return Some(if arg.is_required_set() { format!("{value}{many}") } else { format!("[{value}{many}]") });
    }
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    let long = arg.get_long().map(|word| format!("--{word}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    Some(format!("[{}{}]", names.join("/"), if takes_value { format!(" {value}") } else { String::new() }))
}

fn key_table(tier: Tier) -> String {
    if !keys().any(|key| key.tier == tier) {
        return "There are none.\n".into();
    }
    let mut table = String::from("| key | what it is for | what becomes of it |\n|---|---|---|\n");
    for key in keys().filter(|key| key.tier == tier) {
        writeln!(table, "| `{}` | {} | {} |", key.name, cell(key.purpose), cell(&fate(key))).ok();
    }
    table
}

fn fate(key: &Key) -> String {
    match key.usage {
        Use::Text(_) => "a string".into(),
        Use::Number(least, most, _) => format!("a number, {least} to {most}"),
        Use::Flag(_) => "0 or 1".into(),
        Use::EachText(_) => "a list of strings".into(),
        Use::Own(_) => "a value of its own form".into(),
        Use::NoEffect(why) => format!("warning: {why}"),
        Use::Refused(why) => format!("error, unless it is switched off: {why}"),
    }
}

fn host_keys() -> String {
    let mut table = String::from("| key of xl.conf | what becomes of it |\n|---|---|\n");
    for (name, fate) in host_config::keys() {
        writeln!(table, "| `{name}` | {} |", cell(&fate)).ok();
    }
    table
}

/// A text in a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// Names of commands, for whoever checks that each is told of.
pub fn names(command: &Command) -> Vec<&str> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(Command::get_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/xl-for-xen-users.md");
    const INTEROP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/interop.md");

    /// The commands of xl 4.17, by xl(1) and `xl help`.
    const XENS: &str = "button-press create config-update console destroy domid domname rename dump-core help list mem-set mem-max \
        migrate remus colo pause reboot restore save sharing shutdown suspend resume sysrq trigger unpause vcpu-set vcpu-list vcpu-pin \
        vm-list vncviewer debug-keys set-parameters dmesg info top uptime claims sched-credit sched-credit2 sched-rtds cpupool-create \
        cpupool-list cpupool-destroy cpupool-rename cpupool-cpu-add cpupool-cpu-remove cpupool-migrate cpupool-numa-split block-attach \
        block-detach block-list cd-insert cd-eject network-attach network-detach network-list channel-list vtpm-attach vtpm-detach \
        vtpm-list vdispl-attach vdispl-detach vdispl-list vsnd-attach vsnd-detach vsnd-list vkb-attach vkb-detach vkb-list \
        pci-assignable-list pci-assignable-add pci-assignable-remove pci-attach pci-detach pci-list usbctrl-attach usbctrl-detach \
        usbdev-attach usbdev-detach usb-list qemu-monitor-command getenforce setenforce loadpolicy psr-hwinfo psr-cmt-attach \
        psr-cmt-detach psr-cmt-show psr-cat-set psr-cat-show psr-mba-set psr-mba-show";

    fn document() -> String {
        std::fs::read_to_string(DOCUMENT).unwrap()
    }

    #[test]
    fn the_document_is_as_declared() {
        assert!(
            refresh(&document()).unwrap() == document(),
            "docs/xl-for-xen-users.md is behind: run cargo xtask docs"
        );
    }

    #[test]
    fn every_command_of_xens_is_told_of() {
        let text = document();
        for command in XENS.split_whitespace() {
            let is_there = text.contains(&format!("`{command}`")) || text.contains(&format!("| `{command} "));
            assert!(is_there, "{command}");
        }
    }

    #[test]
    fn every_command_is_in_the_interop_tables() {
        let text = std::fs::read_to_string(INTEROP).unwrap();
        let mut command = Cli::command();
        command.build();
        for name in names(&command) {
            assert!(text.contains(&format!("| `{name}` |")), "{name} is not in the table of docs/interop.md");
        }
    }

    #[test]
    fn differences_are_of_commands_that_there_are() {
        let mut command = Cli::command();
        command.build();
        let names = names(&command);
        for (name, _) in DIFFERENCES {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_row_has_options_and_differences() {
        let table = commands();
        assert!(table.contains("| `destroy DOMAIN [-f]` | Terminate a domain immediately |  |"), "{table}");
        assert!(table.contains("[-f/--defconfig FILE]") && table.contains("`--plan`"));
        assert!(!table.contains("monitor-domain") && !table.contains("--help"));
        assert!(refresh("no marks").is_err());
    }
}

//! The monitor: a process per domain that waits for it to stop and does what the configuration says then.
//!
//! `xl create` starts it as a process of its own (the same program with a hidden command, so that nothing has to be forked)
//! with the configuration on standard input and the log file /var/log/xen/xl-NAME.log as output. A stop shows as the
//! xenstore event `@releaseDomain`, after which the hypervisor is asked what the domain is like.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write, stdin};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, id};

use libxc::fault::VARIABLE;
use public_abi::sched::ShutdownReason;
use serde_json::{Value, json};

use super::core_dump;
use super::create::create;
use super::destroy::destroy;
use super::guest::Images;
use super::machine::Machine;
use super::present::present;
use super::preserve::preserve;
use crate::config::domain::{Action, DomainConfig};
use crate::config::{self, text::Text};
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::json as description;
use crate::output::{log, note};
use crate::session::Session;
use crate::userdata::{CONFIGURATION, UPDATED, UserData};

/// Name of the hidden command.
pub const COMMAND: &str = "monitor-domain";
/// Where logs are.
const LOGS: &str = "/var/log/xen";
/// Old logs that are kept.
const OLD_LOGS: u32 = 10;
/// The event of a domain that stopped or went.
const RELEASE: &str = "@releaseDomain";

/// What a monitor watches over.
pub struct Ward {
    /// The domain.
    pub domid: u16,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// The text of its configuration.
    pub text: Text,
    /// The configuration.
    pub config: DomainConfig,
}

/// Starts a monitor in the background.
pub fn start(ward: &Ward) -> Outcome {
    let (log, path) = open_log(&ward.config.name)?;
    let failed = |what: &str, error: std::io::Error| Failure::new(format!("starting the monitor: {what}: {error}"));
    let errors = log.try_clone().map_err(|error| failed(&path, error))?;
    let mut child = Command::new("/proc/self/exe")
        .env_remove(VARIABLE)
        .arg0("xl")
        .args([COMMAND, &ward.domid.to_string()])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| failed("/proc/self/exe", error))?;
    let order = json!({
        "file": ward.text.file(),
        "text": String::from_utf8_lossy(ward.text.bytes()),
        "uuid": libxc::plan::nodes::format_uuid(&ward.uuid),
    });
    match child.stdin.take() {
        Some(mut input) => input.write_all(order.to_string().as_bytes()).map_err(|error| failed("handing over", error)),
        None => Err(Failure::new("starting the monitor: it has no input")),
    }
}

/// The hidden command: takes the configuration from standard input and watches.
pub fn run(domid: u16) -> Outcome {
    // A session of its own: the terminal of `xl create` may close. It fails only for a leader of a process group.
    if let Err(error) = rustix::process::setsid() {
        note(format_args!("warning: the monitor stays in its creator's session: {error}"));
    }
    let mut order = String::new();
    stdin().read_to_string(&mut order).map_err(|error| Failure::new(format!("reading the configuration: {error}")))?;
    let order: Value =
        serde_json::from_str(&order).map_err(|error| Failure::new(format!("the configuration: {error}")))?;
    let field = |name: &str| order.get(name).and_then(Value::as_str).unwrap_or_default();
    let text = Text::new(field("file"), field("text").as_bytes(), &[]);
    let (mut config, report) = config::read_text(&text);
    if report.has_errors() {
        return Err(Failure::new("the configuration that was handed over has errors"));
    }
    HostConfig::load().complete(&mut config);
    let uuid = config::uuid(field("uuid")).map_err(Failure::new)?;
    watch(Ward { domid, uuid, text, config })
}

/// Opens the log of a domain; the one of an earlier life is kept under a number.
fn open_log(name: &str) -> Outcome<(File, String)> {
    let path = format!("{LOGS}/xl-{name}.log");
    let failed = |error: std::io::Error| Failure::new(format!("starting the monitor: {path}: {error}"));
    fs::create_dir_all(LOGS).map_err(failed)?;
    if fs::exists(&path).map_err(failed)? {
        for number in (1..OLD_LOGS).rev() {
            let old = format!("{path}.{number}");
            if fs::exists(&old).map_err(failed)? {
                fs::rename(&old, format!("{path}.{}", number + 1)).map_err(failed)?;
            }
        }
        fs::rename(&path, format!("{path}.1")).map_err(failed)?;
    }
    let log = OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
    Ok((log, path))
}

/// How a domain stopped.
enum Stop {
    /// It shut itself down, for a reason that is known or a number that is not.
    Shutdown(Result<ShutdownReason, u8>),
    /// It is gone, or on its way.
    Gone,
}

/// Watches over a domain, and over those that take its place, until there is nothing more to watch.
pub fn watch(mut ward: Ward) -> Outcome {
    let session = Session::open()?;
    session.store.watch(RELEASE, "monitor")?;
    loop {
        log(format_args!("Waiting for domain {} (domid {}) to die [pid {}]", ward.config.name, ward.domid, id()));
        match wait_for_stop(&session, ward.domid)? {
            Stop::Gone => {
                log(format_args!("Domain {} has been destroyed.", ward.domid));
                return Ok(());
            }
            Stop::Shutdown(reason) => {
                if !act(&session, &mut ward, reason)? {
                    log(format_args!("Done. Exiting now"));
                    return Ok(());
                }
            }
        }
    }
}

fn wait_for_stop(session: &Session, domid: u16) -> Outcome<Stop> {
    loop {
        match session.handle.domain_info(domid)? {
            None => return Ok(Stop::Gone),
            Some(info) if info.is_dying() => return Ok(Stop::Gone),
            Some(info) => match info.shutdown() {
                // It is being saved: its saver will resume or destroy it.
                None | Some(Ok(ShutdownReason::Suspend)) => {}
                Some(reason) => return Ok(Stop::Shutdown(reason)),
            },
        }
        // Without a time limit there is always an event.
        session.store.next_event(None)?;
    }
}

/// Does what the configuration says. Whether there is a domain to watch afterwards.
fn act(session: &Session, ward: &mut Ward, reason: Result<ShutdownReason, u8>) -> Outcome<bool> {
    let actions = ward.config.actions;
    let code = reason.map_or_else(u32::from, ShutdownReason::number);
    let action = match reason {
        Ok(ShutdownReason::Poweroff) => actions.poweroff,
        Ok(ShutdownReason::Reboot) => actions.reboot,
        Ok(ShutdownReason::Suspend) => Action::Preserve,
        Ok(ShutdownReason::Crash) => actions.crash,
        Ok(ShutdownReason::Watchdog) => actions.watchdog,
        Ok(ShutdownReason::SoftReset) => actions.soft_reset,
        _ => {
            log(format_args!("Unknown shutdown reason code {code}. Destroying domain."));
            Action::Destroy
        }
    };
    log(format_args!("Domain {} has shut down, reason code {code} {code:#x}", ward.domid));
    log(format_args!("Action for shutdown reason code {code} is {}", action.name()));
    match with_core_dump(session, ward, action) {
        Action::Preserve => Ok(false),
        Action::Restart => {
            reload(session, ward)?;
            match clean_up(session, ward.domid)? {
                Cleaned::ByUs => restart(session, ward),
                // Who destroyed it does not want it back.
                Cleaned::BySomeoneElse => Ok(false),
            }
        }
        Action::RenameRestart => {
            reload(session, ward)?;
            let name = preserve(session, ward.domid, &ward.config.name, &ward.uuid)?;
            log(format_args!("Domain {} is kept as {name}", ward.domid));
            restart(session, ward)
        }
        _ => clean_up(session, ward.domid).map(|_| false),
    }
}

/// Writes a core dump if the action begins with one; what is left of the action.
fn with_core_dump(session: &Session, ward: &Ward, action: Action) -> Action {
    let then = match action {
        Action::CoredumpDestroy => Action::Destroy,
        Action::CoredumpRestart => Action::Restart,
        Action::SoftReset => {
            log(format_args!("soft resets are not supported yet, so the action is destroy"));
            return Action::Destroy;
        }
        other => return other,
    };
    let path = core_dump::usual_place(&ward.config.name);
    log(format_args!("dumping core to {}", path.display()));
    match core_dump::write(session, ward.domid, &path) {
        Ok(dumped) => log(format_args!("{} pages and {} vCPUs were dumped", dumped.pages, dumped.vcpus)),
        // As with Xen's xl, what comes after the dump comes all the same.
        Err(failure) => log(format_args!("core dump failed: {failure}")),
    }
    then
}

/// Who has destroyed a domain that had stopped.
enum Cleaned {
    ByUs,
    BySomeoneElse,
}

fn clean_up(session: &Session, domid: u16) -> Outcome<Cleaned> {
    log(format_args!("Domain {domid} needs to be cleaned up: destroying the domain"));
    let Err(failure) = destroy(session, &Machine::this(), domid) else { return Ok(Cleaned::ByUs) };
    // A user's `xl destroy` may have come between.
    match session.handle.domain_info(domid)? {
        Some(info) if !info.is_dying() => Err(failure),
        _ => {
            log(format_args!("Domain {domid} has been destroyed."));
            Ok(Cleaned::BySomeoneElse)
        }
    }
}

/// Takes over what has changed about the domain since it was created.
fn reload(session: &Session, ward: &mut Ward) -> Outcome {
    let data = UserData::new(ward.domid, &ward.uuid);
    if let Some(updated) = data.read(UPDATED)? {
        let text = Text::new("<updated>", &updated, &[]);
        let (mut config, report) = config::read_text(&text);
        if !report.has_errors() {
            HostConfig::load().complete(&mut config);
            log(format_args!("\"xl\" configuration found, using it"));
            (ward.text, ward.config) = (text, config);
            return data.remove(UPDATED);
        }
        log(format_args!("the configuration left by config-update has errors. reusing old configuration"));
    }
    let Some(stored) = data.read(CONFIGURATION)? else { return Ok(()) };
    match description::from_text(&stored) {
        Ok(stored) => {
            // By xenstore and the hypervisor: `xl rename`, `mem-set` and `vcpu-set` do not change the file.
            let stored = match session.handle.domain_info(ward.domid)? {
                Some(info) => present(session, &info, stored)?,
                None => stored,
            };
            description::take_changes(&mut ward.config, &stored);
        }
        Err(error) => log(format_args!("failed to retrieve guest configuration ({error}). reusing old configuration")),
    }
    Ok(())
}

fn restart(session: &Session, ward: &mut Ward) -> Outcome<bool> {
    log(format_args!("Done. Rebooting now"));
    let images = Images::read(&ward.config)?;
    ward.domid = create(session, &Machine::this(), &ward.config, ward.uuid, &images)?;
    match session.handle.domain_unpause(ward.domid) {
        // Somebody has destroyed it already, which is seen next.
        Err(error) if error.is_absent() => Ok(true),
        started => Ok(started.map(|()| true)?),
    }
}

//! `xl create`: a configuration file becomes a running domain, with a monitor behind it.

use std::process::Command;

use libxc::fault::VARIABLE;
use libxc::plan::pvh::plan;

use crate::cli::{Cli, Create};
use crate::config::domain::DomainConfig;
use crate::config::report::Severity;
use crate::config::text::Text;
use crate::config::{self};
use crate::console::Console;
use crate::domain::create::{create, fresh_uuid};
use crate::domain::destroy::destroy;
use crate::domain::guest::{self, Images};
use crate::domain::machine::Machine;
use crate::domain::monitor::{self, Ward};
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::json;
use crate::output::{note, print};
use crate::session::Session;

/// The exit code when no configuration is given, and the one for everything that fails once it has been read: those of
/// Xen's xl. A configuration with errors gives 1.
const NO_CONFIGURATION: u8 = 6;
const FAILED: u8 = 3;

pub(super) fn run(cli: &Cli, options: &Create) -> Outcome {
    let text = read(options)?;
    if !options.quiet {
        note(format_args!("Parsing config from {}", text.file()));
    }
    let config = check(&text, options.quiet)?;
    carry_out(cli, options, text, config).map_err(|failure| failure.or_code(FAILED))
}

/// All that comes after a good configuration.
fn carry_out(cli: &Cli, options: &Create, text: Text, config: DomainConfig) -> Outcome {
    let dry_run = cli.dry_run || options.dry_run;
    let uuid = config.uuid.map_or_else(fresh_uuid, Ok)?;
    if dry_run && config.guest_type.is_none() {
        // The kernel decides what the configuration means.
        note_type(options, &Images::read(&config)?)?;
    }
    if dry_run || options.debug {
        let description = describe(&config, uuid)?;
        if dry_run {
            return print(description);
        }
        note(format_args!("{}", description.trim_end()));
    }
    let images = Images::read(&config)?;
    if config.guest_type.is_none() {
        note_type(options, &images)?;
    }
    if options.plan || cli.verbose > 0 {
        let plan = describe_plan(&config, uuid, &images)?;
        if options.plan {
            return print(plan);
        }
        note(format_args!("{}", plan.trim_end()));
    }
    start(options, Ward { domid: 0, uuid, text, config }, &images)
}

/// Says that a configuration without `type=` is taken for that of a PVH guest, which its kernel must be able to be.
fn note_type(options: &Create, images: &Images) -> Outcome {
    images.kernel()?;
    if !options.quiet {
        note(format_args!("xl: type= is not given, and the kernel has a PVH entry point: taking type=\"pvh\""));
    }
    Ok(())
}

/// The configuration's text: the file and the settings among the arguments.
fn read(options: &Create) -> Outcome<Text> {
    let (settings, mut files): (Vec<String>, Vec<String>) =
        options.arguments.iter().cloned().partition(|argument| argument.contains('='));
    files.extend(options.file.clone());
    let [file] = files.as_slice() else {
        return Err(match files.as_slice() {
            [] => Failure::new("create: a configuration file is needed").with_code(NO_CONFIGURATION),
            _ => {
                Failure::new(format!("create: one configuration file at a time, not {}", files.join(", "))).with_code(2)
            }
        });
    };
    let failed = |error| Failure::new(format!("unable to read {file}: {error}")).with_code(FAILED);
    let content = std::fs::read(file).map_err(failed)?;
    Ok(Text::new(file, &content, &settings))
}

/// Reads the configuration and prints all that is wrong with it.
pub(super) fn check(text: &Text, quiet: bool) -> Outcome<DomainConfig> {
    let (mut config, report) = config::read_text(text);
    for finding in report.findings() {
        if finding.severity == Severity::Error || !quiet {
            note(format_args!("{finding}"));
        }
    }
    if report.has_errors() {
        Err(Failure::new(format!("{} has errors; no domain was created", text.file())))
    } else {
        HostConfig::load().complete(&mut config);
        Ok(config)
    }
}

/// The configuration as xl prints it.
pub(super) fn describe(config: &DomainConfig, uuid: [u8; 16]) -> Outcome<String> {
    // Which CPUs a list means only the host knows; without a list it is not asked.
    let nodes = match (&config.cpus, &config.cpus_soft) {
        (None, None) => Vec::new(),
        _ => guest::nodes_of_cpus(&Session::open()?)?,
    };
    let description = json::domain_config(config, &json::Context { uuid, node_of_cpu: &nodes });
    Ok(json::to_text(&description))
}

/// The plan; away from a Xen host, the one for a usual host.
fn describe_plan(config: &DomainConfig, uuid: [u8; 16], images: &Images) -> Outcome<String> {
    let (nodes, pool, host) = match Session::open() {
        Ok(session) => {
            let pool = guest::cpu_pool(&session, config)?;
            (guest::nodes_of_cpus(&session)?, pool, guest::host_facts(&session)?)
        }
        Err(reason) => {
            note(format_args!(
                "xl: planning for a host with 8 CPUs and its daemons in domain 0, since this is none: {reason}"
            ));
            (vec![Some(0); 8], 0, guest::ABSENT_HOST)
        }
    };
    let spec = guest::specification(config, uuid, &nodes, pool)?;
    let kernel = images.kernel()?;
    let plan = plan(&spec, &kernel, images.ramdisk.len() as u64, &host)
        .map_err(|error| Failure::new(format!("planning domain \"{}\": {error}", config.name)))?;
    Ok(plan.to_string())
}

/// Creates the domain, lets it run, and leaves a monitor.
fn start(options: &Create, mut ward: Ward, images: &Images) -> Outcome {
    let session = Session::open()?;
    ward.domid = create(&session, &Machine::this(), &ward.config, ward.uuid, images)?;
    let console = match run_it(options, &session, &ward) {
        Ok(console) => console,
        Err(failure) => {
            destroy(&session, &Machine::this(), ward.domid)?;
            return Err(failure);
        }
    };
    // The console's relay and the monitor's watch need no hypervisor handle of this process.
    drop(session);
    match console {
        Some(Attached::Here(console)) => console.relay(),
        Some(Attached::Child) | None if options.foreground => monitor::watch(ward),
        Some(Attached::Child) | None => Ok(()),
    }
}

/// Where the console is relayed.
enum Attached {
    /// By this process.
    Here(Box<Console>),
    /// By a process of its own, since this one watches over the domain.
    Child,
}

/// Attaches the console before the guest says anything, unpauses it, and starts the monitor.
fn run_it(options: &Create, session: &Session, ward: &Ward) -> Outcome<Option<Attached>> {
    let console = match (options.console, options.foreground) {
        (false, _) => None,
        (true, false) => Some(Attached::Here(Box::new(Console::open(ward.domid)?))),
        (true, true) => {
            let child =
                Command::new("/proc/self/exe").env_remove(VARIABLE).args(["console", &ward.domid.to_string()]).spawn();
            child.map_err(|error| Failure::new(format!("starting the console client: {error}")))?;
            Some(Attached::Child)
        }
    };
    if !options.exit && !options.foreground {
        monitor::start(ward)?;
    }
    if !options.paused {
        session.handle.domain_unpause(ward.domid)?;
    }
    Ok(console)
}

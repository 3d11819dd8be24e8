//! One file per command; here is which command is in which.

mod console;
mod create;
mod debug_keys;
mod destroy;
mod dmesg;
mod domid;
mod domname;
mod info;
mod list;
mod pause;
mod shutdown;
mod vcpu_list;

use crate::cli::{Cli, Command};
use crate::domain::monitor;
use crate::failure::{Failure, Outcome};

/// Runs the command.
pub fn run(cli: &Cli) -> Outcome {
    if cli.dry_run && !matches!(cli.command, Command::Create(_)) {
        return Err(Failure::new("command does not implement -N (dryrun) option"));
    }
    match &cli.command {
        Command::Create(options) => create::run(cli, options),
        Command::List(options) => list::run(options),
        Command::Console(options) => console::run(options),
        Command::Info(options) => info::run(options),
        Command::Dmesg(options) => dmesg::run(options),
        Command::Pause(options) => pause::pause(options),
        Command::Unpause(options) => pause::unpause(options),
        Command::Shutdown(options) => shutdown::run(options, shutdown::Request::Poweroff),
        Command::Reboot(options) => shutdown::run(options, shutdown::Request::Reboot),
        Command::Destroy(options) => destroy::run(options),
        Command::VcpuList(options) => vcpu_list::run(options),
        Command::Domid(options) => domid::run(options),
        Command::Domname(options) => domname::run(options),
        Command::DebugKeys(options) => debug_keys::run(options),
        Command::Monitor(options) => monitor::run(options.domid),
    }
}

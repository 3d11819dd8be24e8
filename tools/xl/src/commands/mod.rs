//! One file per command; here is which command is in which.

mod block;
mod channel_list;
mod config_update;
mod console;
mod create;
mod debug_keys;
mod destroy;
mod dmesg;
mod domid;
mod domname;
mod dump_core;
mod info;
mod init_dom0;
mod list;
mod memory;
mod network;
mod pause;
mod rename;
mod sched_credit2;
mod shutdown;
mod sysrq;
mod top;
mod trigger;
mod uptime;
mod vcpu_list;
mod vcpu_pin;
mod vcpu_set;
mod vm_list;

use crate::cli::{Cli, Command};
use crate::domain::monitor;
use crate::failure::{Failure, Outcome};

/// Runs the command.
pub fn run(cli: &Cli) -> Outcome {
    if cli.dry_run && !has_dry_run(&cli.command) {
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
        Command::VcpuPin(options) => vcpu_pin::run(options, cli.dry_run),
        Command::VcpuSet(options) => vcpu_set::run(options),
        Command::MemMax(options) => memory::set_maximum(options),
        Command::MemSet(options) => memory::set_target(options),
        Command::Rename(options) => rename::run(options),
        Command::VmList(output) => vm_list::run(output),
        Command::Uptime(options) => uptime::run(options),
        Command::DumpCore(options) => dump_core::run(options),
        Command::Claims(output) => list::claims(output),
        Command::SchedCredit2(options) => sched_credit2::run(options),
        Command::Top(options) => top::run(options),
        Command::Trigger(options) => trigger::run(options),
        Command::ButtonPress(options) => trigger::button(options),
        Command::Sysrq(options) => sysrq::run(options),
        Command::ChannelList(options) => channel_list::run(options),
        Command::ConfigUpdate(options) => config_update::run(options, cli.dry_run),
        Command::BlockAttach(options) => block::attach(options, cli.dry_run),
        Command::BlockList(options) => block::list(options),
        Command::BlockDetach(options) => block::detach(options),
        Command::NetworkAttach(options) => network::attach(options, cli.dry_run),
        Command::NetworkList(options) => network::list(options),
        Command::NetworkDetach(options) => network::detach(options),
        Command::Domid(options) => domid::run(options),
        Command::Domname(options) => domname::run(options),
        Command::DebugKeys(options) => debug_keys::run(options),
        Command::Monitor(options) => monitor::run(options.domid),
        Command::InitDom0 => init_dom0::run(),
    }
}

/// The commands that can say what they would do.
fn has_dry_run(command: &Command) -> bool {
    matches!(
        command,
        Command::Create(_)
            | Command::VcpuPin(_)
            | Command::ConfigUpdate(_)
            | Command::BlockAttach(_)
            | Command::NetworkAttach(_)
    )
}

/// A number as xl prints it: -1 if there is none.
fn or_minus_one(number: Option<u32>) -> i64 {
    number.map_or(-1, i64::from)
}

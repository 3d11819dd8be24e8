//! The commands and their options, declared once: parsing, help, manual pages and completions (examples/pages.rs) come from
//! here.
//!
//! Names, options and their meaning are those of xl(1). After this, [`crate::commands`] does what was asked for.

mod host;

use clap::{Args, Parser, Subcommand};

pub use host::{Dmesg, Info, Keys, Output, SchedCredit2, Top};

/// Xen management tool, based on Oxen's libxc
#[derive(Debug, Parser)]
#[command(name = "xl", bin_name = "xl", version, disable_version_flag = true, arg_required_else_help = true)]
// As in Xen's xl, an unambiguous beginning stands for a command or a long option.
#[command(infer_subcommands = true, infer_long_args = true)]
pub struct Cli {
    /// Be verbose: `create` says how it builds the domain
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Dry run: do not actually execute the command; `create`, `config-update`, `vcpu-pin` and the two
    /// `-attach` have it
    #[arg(short = 'N')]
    pub dry_run: bool,
    /// Accepted for compatibility: there is no progress to be shown
    #[arg(short = 't')]
    pub tty_progress: bool,
    /// Accepted for compatibility: messages carry no time stamps
    #[arg(short = 'T')]
    pub timestamps: bool,
    /// Accepted for compatibility: nothing is refused that this would force
    #[arg(short = 'f')]
    pub force: bool,
    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a domain from config file <filename>
    Create(Create),
    /// List information about all/some domains
    List(List),
    /// Attach to domain's console
    Console(Console),
    /// Get information about Xen host
    Info(Info),
    /// Read and/or clear dmesg buffer
    Dmesg(Dmesg),
    /// Pause execution of a domain
    Pause(OneDomain),
    /// Unpause a paused domain
    Unpause(OneDomain),
    /// Issue a shutdown signal to a domain
    Shutdown(Shutdown),
    /// Issue a reboot signal to a domain
    Reboot(Shutdown),
    /// Terminate a domain immediately
    Destroy(Destroy),
    /// List the VCPUs for all/some domains
    VcpuList(VcpuList),
    /// Set which CPUs a VCPU can use
    VcpuPin(VcpuPin),
    /// Set the number of active VCPUs allowed for the domain
    VcpuSet(VcpuSet),
    /// Set the maximum amount reservation for a domain
    MemMax(Memory),
    /// Set the current memory usage for a domain
    MemSet(Memory),
    /// Convert a domain name to domain id
    Domid(Name),
    /// Convert a domain id to domain name
    Domname(Id),
    /// Rename a domain
    Rename(Rename),
    /// List guest domains, with their UUIDs
    VmList(Output),
    /// Print uptime for all/some domains
    Uptime(Uptime),
    /// List outstanding claims information about all domains
    Claims(Output),
    /// Get/set credit2 scheduler parameters
    SchedCredit2(SchedCredit2),
    /// Monitor a host and the domains in real time
    Top(Top),
    /// Core dump a domain
    DumpCore(DumpCore),
    /// Send a trigger to a domain
    Trigger(Trigger),
    /// Indicate an ACPI button press to the domain; deprecated in favour of `trigger`
    ButtonPress(Button),
    /// Send a sysrq to a domain
    Sysrq(Sysrq),
    /// List virtual channel devices for a domain
    ChannelList(Domains),
    /// Create a new virtual block device
    BlockAttach(Attach),
    /// List virtual block devices for a domain
    BlockList(Domains),
    /// Destroy a domain's virtual block device
    BlockDetach(BlockDetach),
    /// Create a new virtual network device
    NetworkAttach(NetworkAttach),
    /// List virtual network interfaces for a domain
    NetworkList(Domains),
    /// Destroy a domain's virtual network device
    NetworkDetach(NetworkDetach),
    /// Update a running domain's saved configuration, used when rebuilding the domain after reboot
    ConfigUpdate(ConfigUpdate),
    /// Send debug keys to Xen
    DebugKeys(Keys),
    /// Watch over a domain; `create` starts it
    #[command(hide = true, name = crate::domain::monitor::COMMAND)]
    Monitor(Monitor),
    /// Tell the toolstack about the control domain; the host's init system runs it at boot
    #[command(hide = true, name = "init-dom0")]
    InitDom0,
}

/// `xl create`
#[derive(Args, Debug, Default)]
pub struct Create {
    /// The config file, and settings KEY=VALUE that are appended to it
    #[arg(value_name = "CONFIGFILE|KEY=VALUE")]
    pub arguments: Vec<String>,
    /// Connect to the console after the domain is created
    #[arg(short = 'c')]
    pub console: bool,
    /// Enable debug messages
    #[arg(short = 'd')]
    pub debug: bool,
    /// Do not wait in the background for the death of the domain
    #[arg(short = 'e')]
    pub exit: bool,
    /// Run in foreground until death of the domain
    #[arg(short = 'F', conflicts_with = "exit")]
    pub foreground: bool,
    /// Use the given configuration file
    #[arg(short = 'f', long = "defconfig", value_name = "FILE")]
    pub file: Option<String>,
    /// Dry run - prints the resulting configuration
    #[arg(short = 'n', long = "dryrun")]
    pub dry_run: bool,
    /// Print how the domain would be built, step by step, and do not build it
    #[arg(long)]
    pub plan: bool,
    /// Leave the domain paused after it is created
    #[arg(short = 'p')]
    pub paused: bool,
    /// Quiet
    #[arg(short = 'q', long = "quiet")]
    pub quiet: bool,
}

/// `xl list`
#[derive(Args, Debug)]
pub struct List {
    /// The domain, by name or id; all without it
    pub domain: Option<String>,
    /// Output all VM details
    #[arg(short, long)]
    pub long: bool,
    /// Prints out UUIDs and security context
    #[arg(short, long)]
    pub verbose: bool,
    /// Prints out security context
    #[arg(short = 'Z', long)]
    pub context: bool,
    /// Prints the cpupool the domain is in
    #[arg(short, long)]
    pub cpupool: bool,
    /// Prints out NUMA node affinity
    #[arg(short, long)]
    pub numa: bool,
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
}

/// `xl console`
#[derive(Args, Debug)]
pub struct Console {
    /// The domain, by name or id
    pub domain: String,
    /// Console type: pv is the only one
    #[arg(short = 't', value_name = "TYPE", value_parser = ["pv"])]
    pub kind: Option<String>,
    /// Console number: 0 is the only one
    #[arg(short = 'n', value_name = "NUM", value_parser = clap::value_parser!(u32).range(0..=0))]
    pub number: Option<u32>,
}

/// A command on one domain without options.
#[derive(Args, Debug)]
pub struct OneDomain {
    /// The domain, by name or id
    pub domain: String,
}

/// `xl shutdown` and `xl reboot`
#[derive(Args, Debug)]
pub struct Shutdown {
    /// The domain, by name or id; or -a
    #[arg(conflicts_with = "all")]
    pub domain: Option<String>,
    /// All guest domains
    #[arg(short, long)]
    pub all: bool,
    /// Wait for guest(s) to shut down; given twice, to be destroyed
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub wait: u8,
    /// Fallback to ACPI power event for HVM guests with no PV drivers
    #[arg(short = 'F')]
    pub fallback: bool,
}

/// `xl destroy`
#[derive(Args, Debug)]
pub struct Destroy {
    /// The domain, by name or id
    pub domain: String,
    /// Permit destroying domain 0
    #[arg(short)]
    pub force: bool,
}

/// `xl vcpu-list`
#[derive(Args, Debug)]
pub struct VcpuList {
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
    /// The domains, by name or id; all without one
    pub domains: Vec<String>,
}

/// `xl domid`
#[derive(Args, Debug)]
pub struct Name {
    /// The domain's name
    pub name: String,
}

/// `xl domname`
#[derive(Args, Debug)]
pub struct Id {
    /// The domain's id
    pub id: String,
}

/// The monitor, which `xl create` starts; the configuration comes on its standard input.
#[derive(Args, Debug)]
pub struct Monitor {
    /// The domain's id
    pub domid: u16,
}

/// `xl vcpu-pin`
#[derive(Args, Debug)]
pub struct VcpuPin {
    /// Undo an override pinning done by the kernel
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for compatibility: there are no global masks
    #[arg(short, long)]
    pub ignore_global_affinity_masks: bool,
    /// The domain, by name or id
    pub domain: String,
    /// The vCPU's number, or "all"
    pub vcpu: String,
    /// CPUs it may run on, as in cpus=; "-" leaves them
    #[arg(allow_hyphen_values = true)]
    pub hard: String,
    /// CPUs it prefers; "-" leaves them
    #[arg(allow_hyphen_values = true)]
    pub soft: Option<String>,
}

/// `xl vcpu-set`
#[derive(Args, Debug)]
pub struct VcpuSet {
    /// Don't limit the vCPU based on the host CPU count
    #[arg(short, long)]
    pub ignore_host: bool,
    /// The domain, by name or id
    pub domain: String,
    /// How many vCPUs shall be up
    pub count: String,
}

/// `xl mem-set` and `xl mem-max`
#[derive(Args, Debug)]
pub struct Memory {
    /// The domain, by name or id
    pub domain: String,
    /// The size in MiB, or with one of the letters b, k, m, g, t behind it
    pub size: String,
}

/// `xl rename`
#[derive(Args, Debug)]
pub struct Rename {
    /// The domain, by name or id
    pub domain: String,
    /// Its new name
    pub name: String,
}

/// `xl uptime`
#[derive(Args, Debug)]
pub struct Uptime {
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
    /// Short, with the time of day
    #[arg(short)]
    pub short: bool,
    /// The domains, by name or id; all without one
    pub domains: Vec<String>,
}

/// `xl dump-core`
#[derive(Args, Debug)]
pub struct DumpCore {
    /// The domain, by name or id
    pub domain: String,
    /// The file
    pub file: String,
}

/// `xl trigger`
#[derive(Args, Debug)]
pub struct Trigger {
    /// The domain, by name or id
    pub domain: String,
    /// nmi, reset, init, power or sleep
    pub trigger: String,
    /// The vCPU; 0 without it
    pub vcpu: Option<String>,
}

/// `xl button-press`
#[derive(Args, Debug)]
pub struct Button {
    /// The domain, by name or id
    pub domain: String,
    /// power or sleep
    pub button: String,
}

/// `xl sysrq`
#[derive(Args, Debug)]
pub struct Sysrq {
    /// The domain, by name or id
    pub domain: String,
    /// The letter
    pub letter: String,
}

/// A list for one or more domains.
#[derive(Args, Debug)]
pub struct Domains {
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
    /// The domains, by name or id
    #[arg(required = true)]
    pub domains: Vec<String>,
}

/// `xl config-update`
#[derive(Args, Debug)]
pub struct ConfigUpdate {
    /// The domain, by name or id
    pub domain: Option<String>,
    /// The config file, and settings KEY=VALUE that are appended to it
    #[arg(value_name = "CONFIGFILE|KEY=VALUE")]
    pub arguments: Vec<String>,
    /// Use the given configuration file
    #[arg(short = 'f', long = "defconfig", value_name = "FILE")]
    pub file: Option<String>,
    /// Print the configuration
    #[arg(short)]
    pub debug: bool,
    /// Accepted for compatibility
    #[arg(short)]
    pub quiet: bool,
}

/// `xl block-attach`
#[derive(Args, Debug)]
pub struct Attach {
    /// The domain, by name or id
    pub domain: String,
    /// What disk= takes, in one part or several
    #[arg(required = true)]
    pub parts: Vec<String>,
}

/// `xl block-detach`
#[derive(Args, Debug)]
pub struct BlockDetach {
    /// Do not wait for the domain to release the device
    #[arg(short, long)]
    pub force: bool,
    /// The domain, by name or id
    pub domain: String,
    /// The device, by its name in the guest or its number
    pub device: String,
}

/// `xl network-attach`
#[derive(Args, Debug)]
pub struct NetworkAttach {
    /// The domain, by name or id
    pub domain: String,
    /// What vif= takes, in one part or several
    pub parts: Vec<String>,
}

/// `xl network-detach`
#[derive(Args, Debug)]
pub struct NetworkDetach {
    /// The domain, by name or id
    pub domain: String,
    /// The interface, by its number or its MAC address
    pub device: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_where_xl_takes_them() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let Ok(Command::Create(create)) = parse("xl -vvv create -c g.cfg memory=5 -p") else { panic!("is a create") };
        assert!(create.console && create.paused);
        assert_eq!(create.arguments, ["g.cfg", "memory=5"]);
        let Ok(Command::Shutdown(shutdown)) = parse("xl shutdown -wwa") else { panic!("is a shutdown") };
        assert_eq!((shutdown.wait, shutdown.all), (2, true));
        let Ok(Command::List(list)) = parse("xl li --lon --numa") else { panic!("is a list") };
        assert!(list.long && list.numa);
        assert!(parse("xl d 1").is_err(), "more than one command begins with this");
        assert!(parse("xl list -l -v g").is_ok());
        assert!(parse("xl create -eF g.cfg").is_err());
    }
}

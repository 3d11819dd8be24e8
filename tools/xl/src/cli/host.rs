//! Options of the commands about the host and its schedule, and of all listings. Part of [`super`], where the commands are.

use clap::Args;

/// How a listing is printed.
#[derive(Args, Debug, Default)]
pub struct Output {
    /// Print JSON instead of a table (Xen's xl does not have this)
    #[arg(long)]
    pub json: bool,
}

/// `xl sched-credit2`
#[derive(Args, Debug)]
pub struct SchedCredit2 {
    /// Domain to modify, or to show
    #[arg(short, long)]
    pub domain: Option<String>,
    /// Weight: share of busy CPUs, 1 to 65535
    #[arg(short, long, allow_hyphen_values = true)]
    pub weight: Option<String>,
    /// Cap: most CPU time in percent of a CPU, 0 for no limit
    #[arg(short, long, allow_hyphen_values = true)]
    pub cap: Option<String>,
    /// Query / modify scheduler parameters
    #[arg(short, long)]
    pub schedparam: bool,
    /// Set the scheduling rate limit, in microseconds
    #[arg(short, long = "ratelimit_us", value_name = "RLIMIT", allow_hyphen_values = true)]
    pub ratelimit: Option<String>,
    /// Restrict output to this CPU pool
    #[arg(short = 'p', long)]
    pub cpupool: Option<String>,
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
}

/// `xl top`, with xentop's options
#[derive(Args, Debug, Default)]
pub struct Top {
    /// Seconds between updates
    #[arg(short, long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub delay: u32,
    /// Output network interfaces
    #[arg(short, long)]
    pub networks: bool,
    /// Output block devices
    #[arg(short = 'x', long)]
    pub vbds: bool,
    /// Repeat the table's header before each domain
    #[arg(short, long)]
    pub repeat_header: bool,
    /// Output vCPUs
    #[arg(short, long)]
    pub vcpus: bool,
    /// Output in batch mode, no user input accepted; also if the output is no terminal
    #[arg(short, long)]
    pub batch: bool,
    /// Number of iterations before exiting
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: Option<u64>,
    /// Output the full domain name (not truncated)
    #[arg(short, long)]
    pub full_name: bool,
    /// Display domain 0 first (ignore sorting)
    #[arg(short = 'z', long)]
    pub dom0_first: bool,
}

/// `xl info`
#[derive(Args, Debug)]
pub struct Info {
    /// List host NUMA topology information
    #[arg(short, long)]
    pub numa: bool,
    /// How it is printed
    #[command(flatten)]
    pub output: Output,
    /// Print only the values of the lines whose names begin with this
    pub name: Option<String>,
}

/// `xl dmesg`
#[derive(Args, Debug)]
pub struct Dmesg {
    /// Clear dmesg buffer after printing
    #[arg(short, long)]
    pub clear: bool,
}

/// `xl debug-keys`
#[derive(Args, Debug)]
pub struct Keys {
    /// The keys, as typed at the hypervisor's serial console
    pub keys: String,
}

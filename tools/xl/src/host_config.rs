//! xl.conf: what holds for all domains of this host (xl.conf(5)).
//!
//! Read in the syntax of xl.cfg, each time that a command needs it; whatever is wrong in it costs a warning with file and
//! line, never the command. [`HostConfig::complete`] puts its defaults into a domain's configuration, before anything else
//! looks at that.

use std::io::ErrorKind;

use crate::config::domain::DomainConfig;
use crate::config::parse::{self, Setting};
use crate::config::report::Report;
use crate::config::schema::nearest;
use crate::config::text::Text;
use crate::config::value::number;
use crate::config::vif::Vif;
use crate::output::note;

/// The file.
const PATH: &str = "/etc/xen/xl.conf";
/// The lock file without `lockfile=`.
const LOCK: &str = "/var/lock/xl";

/// When the control domain gives memory up for a new domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autoballoon {
    /// Never.
    Off,
    /// Whenever it is needed.
    On,
    /// Unless dom0_mem= is on the hypervisor's command line.
    Auto,
}

/// The settings, with Xen's defaults where there are none.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// `autoballoon=`.
    pub autoballoon: Autoballoon,
    /// `claim_mode=`: whether the hypervisor sets a new domain's memory aside before it is built.
    pub claim_mode: bool,
    /// `lockfile=`: held while a domain is created.
    pub lock_file: String,
    /// `vif.default.*=`: what an interface has that does not say otherwise; empty: nothing.
    pub vif: Vif,
    /// `max_grant_frames=`; `None`: the hypervisor's.
    pub max_grant_frames: Option<u32>,
    /// `max_maptrack_frames=`; `None`: the hypervisor's.
    pub max_maptrack_frames: Option<u32>,
    /// `max_grant_version=`; `None`: the hypervisor's.
    pub max_grant_version: Option<u32>,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            autoballoon: Autoballoon::Auto,
            claim_mode: true,
            lock_file: LOCK.into(),
            vif: Vif::default(),
            max_grant_frames: None,
            max_maptrack_frames: None,
            max_grant_version: None,
        }
    }
}

/// What is done with a key's value.
enum Use {
    Text(fn(&mut HostConfig, &str) -> Result<(), String>),
    Number(i64, fn(&mut HostConfig, i64)),
    /// The old name of another key, whose value it sets.
    Old(&'static str),
    /// Understood, and without effect; why.
    NoEffect(&'static str),
}

/// One key.
struct Key {
    name: &'static str,
    usage: Use,
}

const fn row(name: &'static str, usage: Use) -> Key {
    Key { name, usage }
}

const MOST: i64 = i32::MAX as i64;
const REPLICATION: &str = "domains are not replicated yet (planned for later)";
const MASK: &str = "CPU masks for all domains are not kept; write cpus= for each";

/// All keys of xl.conf(5) of Xen 4.17.
const KEYS: &[Key] = &[
    row("autoballoon", Use::Text(|c, v| autoballoon(v).map(|mode| c.autoballoon = mode))),
    row("claim_mode", Use::Number(MOST, |c, v| c.claim_mode = v != 0)),
    row(
        "lockfile",
        Use::Text(|c, v| {
            c.lock_file = v.into();
            Ok(())
        }),
    ),
    row(
        "vif.default.script",
        Use::Text(|c, v| {
            c.vif.script = v.into();
            Ok(())
        }),
    ),
    row(
        "vif.default.bridge",
        Use::Text(|c, v| {
            c.vif.bridge = v.into();
            Ok(())
        }),
    ),
    row(
        "vif.default.gatewaydev",
        Use::Text(|c, v| {
            c.vif.gateway_dev = v.into();
            Ok(())
        }),
    ),
    row(
        "vif.default.backend",
        Use::Text(|c, v| {
            c.vif.backend = v.into();
            Ok(())
        }),
    ),
    row("vifscript", Use::Old("vif.default.script")),
    row("defaultbridge", Use::Old("vif.default.bridge")),
    row("max_grant_frames", Use::Number(MOST, |c, v| c.max_grant_frames = u32::try_from(v).ok())),
    row("max_maptrack_frames", Use::Number(MOST, |c, v| c.max_maptrack_frames = u32::try_from(v).ok())),
    row("max_grant_version", Use::Number(MOST, |c, v| c.max_grant_version = u32::try_from(v).ok())),
    row("output_format", Use::Text(|_, v| output_format(v))),
    row("run_hotplug_scripts", Use::NoEffect("this xl sets devices up by itself, without scripts of udev")),
    row("blkdev_start", Use::NoEffect("boot loaders are not run yet")),
    row("domid_policy", Use::Text(|_, v| domid_policy(v))),
    row("vm.cpumask", Use::NoEffect(MASK)),
    row("vm.hvm.cpumask", Use::NoEffect(MASK)),
    row("vm.pv.cpumask", Use::NoEffect("there are no PV guests")),
    row("remus.default.netbufscript", Use::NoEffect(REPLICATION)),
    row("colo.default.proxyscript", Use::NoEffect(REPLICATION)),
];

fn autoballoon(text: &str) -> Result<Autoballoon, String> {
    match text {
        "on" | "1" => Ok(Autoballoon::On),
        "off" | "0" => Ok(Autoballoon::Off),
        "auto" => Ok(Autoballoon::Auto),
        _ => Err(format!("`{text}' is unknown; there are on, off and auto")),
    }
}

fn output_format(text: &str) -> Result<(), String> {
    match text {
        "json" => Ok(()),
        "sxp" => Err("sxp is not offered: JSON is printed".into()),
        _ => Err(format!("`{text}' is unknown; there is json")),
    }
}

fn domid_policy(text: &str) -> Result<(), String> {
    match text {
        "xen" => Ok(()),
        "random" => Err("random is not offered: the hypervisor chooses, one after the other".into()),
        _ => Err(format!("`{text}' is unknown; there is xen")),
    }
}

impl HostConfig {
    /// Reads the file, and says what is wrong with it. Without a file everything is at its default.
    pub fn load() -> HostConfig {
        let content = match std::fs::read(PATH) {
            Ok(content) => content,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    note(format_args!("xl: warning: {PATH}: {error}"));
                }
                return HostConfig::default();
            }
        };
        let (config, report) = HostConfig::read(PATH, &content);
        for finding in report.findings() {
            note(format_args!("{finding}"));
        }
        config
    }

    /// Reads the settings; whatever is wrong is a warning in the report, or for what is no setting at all an error.
    pub fn read(file: &str, content: &[u8]) -> (HostConfig, Report) {
        let mut report = Report::default();
        let mut config = HostConfig::default();
        let settings = parse::parse(&Text::new(file, content, &[]), &mut report);
        // A key wins over its old name, whichever stands first.
        let is_old = |setting: &&Setting| matches!(find(&setting.key), Some(Key { usage: Use::Old(_), .. }));
        for setting in settings.iter().filter(is_old).chain(settings.iter().filter(|setting| !is_old(setting))) {
            if let Err(message) = config.apply(setting, &mut report) {
                report.warning(&setting.place, message);
            }
        }
        (config, report)
    }

    fn apply(&mut self, setting: &Setting, report: &mut Report) -> Result<(), String> {
        let name = &setting.key;
        let Some(mut key) = find(name) else {
            let near = nearest(name, KEYS.iter().map(|key| key.name));
            let hint = near.map_or_else(|| "xl.conf(5) has the list".into(), |near| format!("did you mean `{near}'?"));
            return Err(format!("{name}: unknown key, ignored; {hint}"));
        };
        if let Use::Old(new) = key.usage {
            report.warning(&setting.place, format!("{name}: the old name of {new}"));
            key = find(new).unwrap_or(key);
        }
        let Some(text) = setting.value.text() else { return Err(format!("{name}: it is a list; ignored")) };
        match key.usage {
            Use::Text(set) => set(self, text).map_err(|error| format!("{name}: {error}")),
            Use::Number(most, set) => match number(text) {
                Ok(value) if (0..=most).contains(&value) => {
                    set(self, value);
                    Ok(())
                }
                _ => Err(format!("{name}: `{}' is no number from 0 to {most}; ignored", text.escape_debug())),
            },
            Use::NoEffect(why) => Err(format!("{name}: has no effect: {why}")),
            Use::Old(_) => Ok(()),
        }
    }

    /// Fills in what a domain's configuration leaves open.
    pub fn complete(&self, config: &mut DomainConfig) {
        config.claim = self.claim_mode;
        config.max_grant_frames = config.max_grant_frames.or(self.max_grant_frames);
        config.max_maptrack_frames = config.max_maptrack_frames.or(self.max_maptrack_frames);
        config.max_grant_version = config.max_grant_version.or(self.max_grant_version);
        for vif in &mut config.vifs {
            self.complete_vif(vif);
        }
    }

    /// Fills in what an interface leaves open.
    pub fn complete_vif(&self, vif: &mut Vif) {
        let fields = [
            (&mut vif.script, &self.vif.script),
            (&mut vif.bridge, &self.vif.bridge),
            (&mut vif.gateway_dev, &self.vif.gateway_dev),
            (&mut vif.backend, &self.vif.backend),
        ];
        for (field, default) in fields {
            if field.is_empty() {
                field.clone_from(default);
            }
        }
    }

    /// Whether the control domain gives memory up for new domains, on a hypervisor with this command line.
    pub fn balloons(&self, command_line: &str) -> bool {
        match self.autoballoon {
            Autoballoon::Off => false,
            Autoballoon::On => true,
            Autoballoon::Auto => !command_line.split_ascii_whitespace().any(|word| word.starts_with("dom0_mem=")),
        }
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (HostConfig, Vec<String>) {
        let (config, report) = HostConfig::read("xl.conf", text.as_bytes());
        (config, report.findings().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_file_is_xens_defaults() {
        let (config, findings) = read("# nothing\n");
        assert_eq!((config, findings), (HostConfig::default(), vec![]));
        assert!(HostConfig::default().claim_mode);
    }

    #[test]
    fn what_is_set_reaches_a_domain() {
        let (host, findings) = read(
            "autoballoon=\"off\"\nclaim_mode=0\nlockfile='/run/xl'\nvif.default.bridge=\"br7\"\n\
             vif.default.script=\"vif-route\"\nvif.default.gatewaydev=\"eth5\"\nvif.default.backend=\"net\"\n\
             max_grant_frames=64\nmax_maptrack_frames=0x100\nmax_grant_version=1\noutput_format=\"json\"\n",
        );
        assert_eq!(findings, Vec::<String>::new());
        assert_eq!((host.autoballoon, host.lock_file.as_str()), (Autoballoon::Off, "/run/xl"));
        let own = Vif { bridge: "mine".into(), ..Vif::default() };
        let mut config =
            DomainConfig { vifs: vec![own, Vif::default()], max_grant_frames: Some(8), ..DomainConfig::default() };
        host.complete(&mut config);
        assert_eq!((config.claim, config.max_grant_frames), (false, Some(8)));
        assert_eq!((config.max_maptrack_frames, config.max_grant_version), (Some(256), Some(1)));
        let names: Vec<&str> = config.vifs.iter().map(|vif| vif.bridge.as_str()).collect();
        assert_eq!(names, ["mine", "br7"]);
        let last = &config.vifs[1];
        assert_eq!((&*last.script, &*last.gateway_dev, &*last.backend), ("vif-route", "eth5", "net"));
    }

    #[test]
    fn what_is_wrong_is_a_warning_with_file_and_line() {
        let (config, findings) =
            read("claim_mode = 0\nclaim_mod = 1\n\nautoballoon=\"maybe\"\nmax_grant_frames=\"-1\"\n");
        assert_eq!(config, HostConfig { claim_mode: false, ..HostConfig::default() });
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert_eq!(findings[0], "xl.conf:2:1: warning: claim_mod: unknown key, ignored; did you mean `claim_mode'?");
        assert!(findings[1].starts_with("xl.conf:4:1: warning: autoballoon: `maybe' is unknown"), "{}", findings[1]);
        assert!(findings[2].starts_with("xl.conf:5:1: warning: max_grant_frames: `-1'"), "{}", findings[2]);
        let (_, findings) = read("frobnicate=1\noutput_format=\"sxp\"\nremus.default.netbufscript='x'\n");
        assert!(findings[0].ends_with("xl.conf(5) has the list"), "{}", findings[0]);
        assert!(findings[2].contains("planned for later"), "{}", findings[2]);
    }

    #[test]
    fn old_names_count_less() {
        let (config, findings) = read("vif.default.bridge='new'\ndefaultbridge='old'\nvifscript='vif-nat'\n");
        assert_eq!((&*config.vif.bridge, &*config.vif.script), ("new", "vif-nat"));
        assert_eq!(findings.len(), 2);
        assert!(findings[0].contains("the old name of vif.default.bridge"), "{}", findings[0]);
    }

    #[test]
    fn auto_looks_at_the_hypervisors_command_line() {
        let auto = HostConfig::default();
        assert!(auto.balloons("console=com1"));
        assert!(!auto.balloons("console=com1 dom0_mem=1G"));
        let on = HostConfig { autoballoon: Autoballoon::On, ..HostConfig::default() };
        assert!(on.balloons("dom0_mem=1G"));
    }
}

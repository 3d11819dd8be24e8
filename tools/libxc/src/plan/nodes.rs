//! The xenstore nodes of a domain, as libxl 4.17 writes them, so that either toolstack can manage the other's domains.
//!
//! Three groups at three moments: the skeleton right after the domain exists (`libxl__domain_make`), what the guest reads
//! at boot once it is built (`libxl__build_post`), and its console (`libxl__device_console_add`). Paths and values that
//! depend on the domain id, which is not known yet, are kept symbolic.

use super::Channel;
use super::layout::SpecialPage;
use super::spec::{GuestSpec, HostFacts};

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `/local/domain/DOMID`
    Domain,
    /// `/vm/UUID`
    Vm,
    /// `/libxl/DOMID`
    Libxl,
    /// `/local/domain/BACKEND/backend/console/DOMID/0`, of the domain that runs xenconsoled.
    ConsoleBackend(u16),
}

/// A path in xenstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it starts.
    pub base: Base,
    /// What follows, without a leading slash; empty for the base itself.
    pub rest: String,
}

impl Path {
    /// `rest` under `base`.
    pub fn new(base: Base, rest: impl Into<String>) -> Path {
        Path { base, rest: rest.into() }
    }
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeValue {
    /// Nothing: the node is made empty if it is not there.
    Empty,
    /// This text.
    Text(String),
    /// The domain id.
    Domid,
    /// The guest's end of a channel.
    Port(Channel),
    /// Another node's path.
    Path(Path),
    /// The present time in seconds since 1970, with two decimals.
    Now,
}

/// A domain in a node's permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The new domain.
    Guest,
    /// A domain that is already there.
    Domain(u16),
}

/// Who may do what with a node: the owner everything, the reader read, all others nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Its owner.
    pub owner: Who,
    /// Who may read it besides.
    pub reader: Option<Who>,
}

/// Only the toolstack may read or write.
const HIDDEN: Permissions = Permissions { owner: Who::Domain(0), reader: None };
/// The guest may read.
const READABLE: Permissions = Permissions { owner: Who::Domain(0), reader: Some(Who::Guest) };
/// The guest may write.
const GUESTS: Permissions = Permissions { owner: Who::Guest, reader: None };

/// A node to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where.
    pub path: Path,
    /// What.
    pub value: NodeValue,
    /// Its permissions; `None`: inherited from the parent.
    pub permissions: Option<Permissions>,
}

/// Collects nodes.
#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    fn directory(&mut self, base: Base, rest: &str, permissions: Permissions) {
        self.add(base, rest, NodeValue::Empty, Some(permissions));
    }

    fn text(&mut self, base: Base, rest: &str, value: impl Into<String>) {
        self.add(base, rest, NodeValue::Text(value.into()), None);
    }

    fn add(&mut self, base: Base, rest: &str, value: NodeValue, permissions: Option<Permissions>) {
        self.0.push(Node { path: Path::new(base, rest), value, permissions });
    }
}

/// The roots of a domain's nodes, removed before they are written and when the domain goes.
pub fn roots() -> Vec<Path> {
    [Base::Domain, Base::Vm, Base::Libxl].map(|base| Path::new(base, "")).to_vec()
}

/// The skeleton.
pub fn skeleton(spec: &GuestSpec) -> Vec<Node> {
    let mut nodes = Nodes::default();
    nodes.directory(Base::Domain, "", READABLE);
    nodes.directory(Base::Vm, "", READABLE);
    nodes.directory(Base::Libxl, "", HIDDEN);
    nodes.directory(Base::Libxl, "device", HIDDEN);
    nodes.add(Base::Domain, "vm", NodeValue::Path(Path::new(Base::Vm, "")), None);
    nodes.text(Base::Domain, "name", &spec.name);
    for name in ["cpu", "memory", "device"] {
        nodes.directory(Base::Domain, name, READABLE);
    }
    nodes.directory(Base::Domain, "device/suspend/event-channel", GUESTS);
    nodes.directory(Base::Domain, "control", READABLE);
    for name in ["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"] {
        nodes.directory(Base::Domain, &format!("control/{name}"), GUESTS);
    }
    for name in ["data", "drivers", "feature", "attr", "error"] {
        nodes.directory(Base::Domain, name, GUESTS);
    }
    if spec.driver_domain {
        for name in ["libxl", "device-model"] {
            nodes.directory(Base::Domain, name, GUESTS);
        }
    }
    nodes.text(Base::Vm, "uuid", format_uuid(&spec.uuid));
    nodes.text(Base::Vm, "name", &spec.name);
    nodes.text(Base::Domain, "control/platform-feature-multiprocessor-suspend", "1");
    nodes.text(Base::Domain, "control/platform-feature-xs_reset_watches", "1");
    nodes.text(Base::Libxl, "type", "pvh");
    // A PVH guest has no device model; libxl writes its default all the same and reads it back when it destroys.
    nodes.text(Base::Libxl, "dm-version", "qemu_xen");
    nodes.0
}

/// What the guest reads at boot.
pub fn boot(spec: &GuestSpec) -> Vec<Node> {
    let mut nodes = Nodes::default();
    nodes.text(Base::Domain, "memory/static-max", spec.max_memory_kib.to_string());
    nodes.text(Base::Domain, "memory/target", spec.memory_kib.to_string());
    nodes.text(Base::Domain, "memory/videoram", "0");
    nodes.add(Base::Domain, "domid", NodeValue::Domid, None);
    nodes.add(Base::Domain, "store/port", NodeValue::Port(Channel::Xenstore), None);
    nodes.text(Base::Domain, "store/ring-ref", SpecialPage::Xenstore.gfn().to_string());
    for vcpu in 0..spec.max_vcpus {
        let state = if vcpu < spec.online_vcpus { "online" } else { "offline" };
        nodes.text(Base::Domain, &format!("cpu/{vcpu}/availability"), state);
    }
    nodes.add(Base::Vm, "start_time", NodeValue::Now, None);
    nodes.0
}

/// The console: the frontend's side, the backend's, and libxl's copy of the latter.
pub fn console(host: &HostFacts) -> Vec<Node> {
    let backend_domain = Who::Domain(host.console_domid);
    let backend_base = Base::ConsoleBackend(host.console_domid);
    let backends = Some(Permissions { owner: backend_domain, reader: Some(Who::Guest) });
    let frontends = Some(Permissions { owner: Who::Guest, reader: Some(backend_domain) });
    let frontend = Path::new(Base::Domain, "console");
    let backend = Path::new(backend_base, "");
    let mut nodes = Nodes::default();
    nodes.add(Base::Libxl, "device/console/0/frontend", NodeValue::Path(frontend.clone()), None);
    nodes.add(Base::Libxl, "device/console/0/backend", NodeValue::Path(backend.clone()), None);
    nodes.add(Base::Domain, "console", NodeValue::Empty, backends);
    nodes.add(Base::Domain, "console/backend", NodeValue::Path(backend), None);
    let number = |number: u64| NodeValue::Text(number.to_string());
    nodes.add(Base::Domain, "console/backend-id", number(host.console_domid.into()), frontends);
    // The limit is how much output xenconsoled keeps, in bytes.
    nodes.add(Base::Domain, "console/limit", number(1 << 20), backends);
    nodes.add(Base::Domain, "console/type", NodeValue::Text("xenconsoled".into()), backends);
    nodes.add(Base::Domain, "console/output", NodeValue::Text("pty".into()), backends);
    nodes.add(Base::Domain, "console/tty", NodeValue::Text(String::new()), backends);
    nodes.add(Base::Domain, "console/port", NodeValue::Port(Channel::Console), backends);
    nodes.add(Base::Domain, "console/ring-ref", number(SpecialPage::Console.gfn()), backends);
    nodes.add(backend_base, "", NodeValue::Empty, backends);
    nodes.add(backend_base, "frontend", NodeValue::Path(frontend), None);
    for (base, prefix) in [(backend_base, ""), (Base::Libxl, "device/console/0/")] {
        nodes.add(base, &format!("{prefix}frontend-id"), NodeValue::Domid, None);
        nodes.text(base, &format!("{prefix}online"), "1");
        nodes.text(base, &format!("{prefix}state"), "1");
        nodes.text(base, &format!("{prefix}protocol"), "vt100");
    }
    nodes.0
}

/// A UUID in the usual form.
pub fn format_uuid(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_print_as_usual() {
        let uuid = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        assert_eq!(format_uuid(&uuid), "00010203-0405-0607-0809-0a0b0c0d0eff");
    }

    /// A node can only be made under a parent with the right permissions if the parent comes first.
    #[test]
    fn parents_come_first() {
        let spec = GuestSpec::new("g", [0; 16], 1 << 20);
        let nodes = skeleton(&spec);
        let position = |rest: &str| nodes.iter().position(|node| node.path == Path::new(Base::Domain, rest));
        assert!(position("control") < position("control/shutdown"));
        assert!(position("") < position("name"));
    }
}

//! Backends of devices, as far as xenstore shows them: what the control domain's kernel does with a device's nodes.
//!
//! Part of [`crate::store`], which lets them react to each request.

use std::collections::BTreeMap;

/// How all backends behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backends {
    /// They take devices, and let go when asked.
    #[default]
    Willing,
    /// There are none: the modules are not loaded.
    Absent,
    /// They take devices, but the guest does not let go; they end when its half is taken away.
    Held,
    /// They refuse devices and say why.
    Refusing,
}

/// Nodes by path.
type Nodes = BTreeMap<String, Vec<u8>>;

/// Where the control domain's backends are.
const ROOT: &str = "/local/domain/0/backend/";

/// Lets every backend do its next step.
pub(crate) fn react(nodes: &mut Nodes, behaviour: Backends) {
    let states: Vec<(String, Vec<u8>)> = nodes
        .iter()
        .filter(|(path, _)| path.ends_with("/state"))
        .filter_map(|(path, value)| Some((path.strip_prefix(ROOT)?.strip_suffix("/state")?.to_string(), value.clone())))
        .collect();
    for (device, state) in states {
        let frontend = nodes.get(&format!("{ROOT}{device}/frontend")).cloned().unwrap_or_default();
        let has_frontend = nodes.contains_key(&format!("{}/state", String::from_utf8_lossy(&frontend)));
        let next = match (behaviour, state.as_slice()) {
            (Backends::Absent, _) => continue,
            (Backends::Refusing, b"1") => {
                nodes.insert(format!("/local/domain/0/error/backend/{device}/error"), b"19 no such thing".to_vec());
                "6"
            }
            (_, b"1") => "2",
            // Its driver lets go of a device whose other half is gone, without a word unless it was asked to close.
            (_, b"2") if !has_frontend => {
                nodes.insert(format!("{ROOT}{device}/let-go"), Vec::new());
                continue;
            }
            _ if nodes.contains_key(&format!("{ROOT}{device}/let-go")) => continue,
            (Backends::Held, b"5") if has_frontend => continue,
            (_, b"5") => "6",
            _ => continue,
        };
        nodes.insert(format!("{ROOT}{device}/state"), next.into());
    }
}

//! The xenstore side of building: symbolic nodes become paths and values, written in one transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Builder;
use crate::error::Result;
use crate::plan::Step;
use crate::plan::nodes::{Base, Node, NodeValue, Path, Permissions, Who, format_uuid, roots};
use crate::trap::Trap;
use crate::xenstore::{Change, Permission};

impl<T: Trap> Builder<'_, T> {
    /// Removes what is at `clear` and writes `nodes`, all or nothing.
    pub(super) fn write_nodes(&self, clear: &[Path], nodes: &[Node]) -> Result<()> {
        let domid = self.domid()?;
        let now = now();
        let mut changes: Vec<Change> = clear.iter().map(|path| Change::remove(&self.path(path, domid))).collect();
        for node in nodes {
            self.add_node(&mut changes, node, domid, &now);
        }
        self.store.transaction(|tx| self.store.change_all(tx, &changes))
    }

    fn add_node(&self, changes: &mut Vec<Change>, node: &Node, domid: u16, now: &str) {
        let path = self.path(&node.path, domid);
        changes.push(match &node.value {
            NodeValue::Empty => Change::mkdir(&path),
            NodeValue::Text(text) => Change::write(&path, text),
            NodeValue::Domid => Change::write(&path, &domid.to_string()),
            NodeValue::Port(channel) => Change::write(&path, &self.port(*channel).to_string()),
            NodeValue::Path(target) => Change::write(&path, &self.path(target, domid)),
            NodeValue::Now => Change::write(&path, now),
        });
        if let Some(permissions) = node.permissions {
            changes.push(Change::set_permissions(&path, &entries(permissions, domid)));
        }
    }

    fn path(&self, path: &Path, domid: u16) -> String {
        let base = match path.base {
            Base::Domain => format!("/local/domain/{domid}"),
            Base::Vm => format!("/vm/{}", format_uuid(&self.plan.uuid)),
            Base::Libxl => format!("/libxl/{domid}"),
            Base::ConsoleBackend(backend) => {
                format!("/local/domain/{backend}/backend/console/{domid}/0")
            }
        };
        if path.rest.is_empty() { base } else { format!("{base}/{}", path.rest) }
    }

    /// Removes all nodes of the plan.
    pub(super) fn remove_nodes(&self) -> Result<()> {
        let domid = self.domid()?;
        let written = self.plan.steps.iter().flat_map(|step| match step {
            Step::Store { nodes, .. } => nodes.as_slice(),
            _ => &[],
        });
        let backend = written.map(|node| node.path.base).find(|base| matches!(base, Base::ConsoleBackend(_)));
        let roots: Vec<String> = roots().iter().map(|path| self.path(path, domid)).collect();
        self.store.transaction(|tx| {
            roots.iter().try_for_each(|path| self.store.remove_with_empty_parents(tx, path))?;
            let backend = backend.map(|base| self.path(&Path::new(base, ""), domid));
            backend.map_or(Ok(()), |path| self.store.remove_with_empty_parents(tx, &path))
        })
    }
}

fn entries(permissions: Permissions, domid: u16) -> Vec<Permission> {
    let domain = |who| match who {
        Who::Guest => domid,
        Who::Domain(domain) => domain,
    };
    let mut entries = vec![Permission { domain: domain(permissions.owner), letter: 'n' }];
    entries.extend(permissions.reader.map(|reader| Permission { domain: domain(reader), letter: 'r' }));
    entries
}

/// Seconds since 1970 with two decimals.
fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:02}", now.as_secs(), now.subsec_millis() / 10)
}

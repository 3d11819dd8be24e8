//! The devices that a domain has: libxl's records, `/libxl/DOMID/device/KIND/NUMBER`.

use super::{Device, Kind};
use crate::error::Result;
use crate::xenstore::{Client, Tx};

/// A device as its record names it, whichever toolstack made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its kind, such as "vbd".
    pub kind: String,
    /// The guest.
    pub domain: u16,
    /// Its number.
    pub number: u32,
    /// The domain that serves it.
    pub backend: u16,
    /// The record.
    pub record: String,
    /// The guest's half.
    pub frontend: String,
    /// The serving half.
    pub backend_path: String,
}

impl Entry {
    /// A node of the record.
    pub fn recorded(&self, store: &Client, node: &str) -> Result<Option<String>> {
        store.read(Tx::NONE, &format!("{}/{node}", self.record))
    }

    /// A number in the guest's half; `None` if there is none yet.
    pub fn frontend_number(&self, store: &Client, node: &str) -> Result<Option<u32>> {
        let text = store.read(Tx::NONE, &format!("{}/{node}", self.frontend))?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// The device, if it is of a kind that this toolstack makes.
    pub fn device(&self) -> Option<Device> {
        let kind = [Kind::Block, Kind::Network, Kind::Share].into_iter().find(|kind| kind.name() == self.kind)?;
        Some(Device { kind, domain: self.domain, number: self.number, backend: self.backend })
    }
}

/// A domain's devices, of one kind or of all.
pub fn entries(store: &Client, domain: u16, kind: Option<&str>) -> Result<Vec<Entry>> {
    let list = format!("/libxl/{domain}/device");
    let children = |path: &str| store.children(Tx::NONE, path).map(Option::unwrap_or_default);
    let kinds = match kind {
        Some(kind) => vec![kind.to_string()],
        None => children(&list)?,
    };
    let mut entries = Vec::new();
    for kind in kinds {
        for name in children(&format!("{list}/{kind}"))? {
            let record = format!("{list}/{kind}/{name}");
            let backend_path = store.read(Tx::NONE, &format!("{record}/backend"))?;
            let (Ok(number), Some(backend_path)) = (name.parse(), backend_path) else { continue };
            let served_by = backend_path.strip_prefix("/local/domain/").and_then(|rest| rest.split('/').next());
            let Some(backend) = served_by.and_then(|domain| domain.parse().ok()) else { continue };
            let frontend = store.read(Tx::NONE, &format!("{record}/frontend"))?;
            // Only a path of the guest's own is its half.
            let frontend = frontend
                .filter(|path| path.starts_with(&format!("/local/domain/{domain}/")))
                .unwrap_or_else(|| format!("/local/domain/{domain}/device/{kind}/{name}"));
            entries.push(Entry { kind: kind.clone(), domain, number, backend, record, frontend, backend_path });
        }
    }
    Ok(entries)
}

/// The number for one more device of a kind.
pub fn next_number(store: &Client, domain: u16, kind: Kind) -> Result<u32> {
    let numbers = entries(store, domain, Some(kind.name()))?;
    Ok(numbers.iter().map(|entry| entry.number + 1).max().unwrap_or(0))
}

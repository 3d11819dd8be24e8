//! Core dumps: where they go, and what of a domain is in them.

use std::fs::{self, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libxc::core_dump::{Dumped, dump};
use libxc::plan::layout;
use libxc::xenstore::Tx;

use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// Where the monitor puts them (Xen's XEN_DUMP_DIR).
const DIRECTORY: &str = "/var/lib/xen/dump";
/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// Where the monitor puts the dump of a domain of that name.
pub fn usual_place(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name.replace('/', "_"))
}

/// Writes a domain's memory and registers to a file, which only its owner may read. A dump that fails leaves none.
pub fn write(session: &Session, domid: u16, path: &Path) -> Outcome<Dumped> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let node = format!("/local/domain/{domid}/memory/static-max");
    let most = session.store.read(Tx::NONE, &node)?.and_then(|text| text.parse().ok());
    let most: u64 =
        most.ok_or_else(|| Failure::new(format!("xenstore {node} does not say how much memory it may have")))?;
    let mut ranges = layout::ram(most);
    ranges.push(layout::special_pages());
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    let dumped = dump(&session.handle, domid, &ranges, &mut BufWriter::with_capacity(BUFFER, file));
    dumped.map_err(|error| {
        let failure = Failure::from(error).while_doing(path.display());
        match fs::remove_file(path) {
            Ok(()) => failure,
            Err(second) => Failure::new(format!("{failure}; it is left behind: {second}")),
        }
    })
}

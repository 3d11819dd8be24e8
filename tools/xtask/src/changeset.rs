//! What the hypervisor says it was built from: the revision of the sources.
//!
//! Asked of git by `artifacts` for each build; the image prints it in its banner and tells it by XENVER_changeset.

use std::path::Path;
use std::process::{Command, Stdio};

/// What the hypervisor's build reads. A builder without git, of a source archive for example, sets it by hand.
pub(crate) const VARIABLE: &str = "OXEN_CHANGESET";

/// The revision, as `git:0123456789ab`, with `-dirty` if tracked files differ from it; "unavailable" where git or its
/// history is not there.
pub(crate) fn of(root: &Path) -> String {
    if let Ok(given) = std::env::var(VARIABLE)
        && !given.is_empty()
    {
        return given;
    }
    let head = git(root, &["rev-parse", "--short=12", "HEAD"]);
    let changes = git(root, &["status", "--porcelain", "--untracked-files=no"]);
    describe(head.as_deref(), changes.as_deref())
}

fn describe(head: Option<&str>, changes: Option<&str>) -> String {
    match (head, changes) {
        (Some(head), Some("")) => format!("git:{head}"),
        // Who cannot say what has changed cannot say that nothing has.
        (Some(head), _) => format!("git:{head}-dirty"),
        (None, _) => "unavailable".to_owned(),
    }
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_changes() {
        assert_eq!(describe(Some("0123456789ab"), Some("")), "git:0123456789ab");
        assert_eq!(describe(Some("0123456789ab"), Some(" M README.md")), "git:0123456789ab-dirty");
        assert_eq!(describe(Some("0123456789ab"), None), "git:0123456789ab-dirty");
        assert_eq!(describe(None, None), "unavailable");
    }

    #[test]
    fn a_folder_without_history_is_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(git(folder.path(), &["rev-parse", "HEAD"]), None);
    }
}

//! Files that nothing compiles: named by no `mod` line, no `#[path]`, no `include!`, and no Cargo target.

use std::collections::BTreeMap;

/// The files of the workspace that are in no crate's tree.
pub(super) fn orphans(files: &BTreeMap<String, String>) -> Vec<String> {
    files.keys().filter(|file| !is_root(file) && !is_named(file, files)).cloned().collect()
}

/// Files where cargo begins to read.
fn is_root(file: &str) -> bool {
    let parts: Vec<&str> = file.split('/').collect();
    matches!(
        parts.as_slice(),
        [.., "src", "main.rs" | "lib.rs"]
            | [.., "build.rs"]
            | [.., "src", "bin", _]
            | [.., "src", "bin", _, "main.rs"]
            | [.., "tests" | "examples", _]
    )
}

fn is_named(file: &str, files: &BTreeMap<String, String>) -> bool {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let (module, folder) = match name {
        // A folder's own file is named where the folder is.
        "mod.rs" => folder.rsplit_once('/').map_or((folder, ""), |(above, module)| (module, above)),
        name => (name.trim_end_matches(".rs"), folder),
    };
    let parents = ["mod.rs", "lib.rs", "main.rs"].map(|parent| format!("{folder}/{parent}"));
    let is_parent = |other: &str| {
        parents.iter().any(|parent| parent == other)
            || other == format!("{folder}.rs")
            // Each test program is a crate of its own, whose modules stand beside it.
            || is_root(other) && other.rsplit_once('/').is_some_and(|(place, _)| place == folder)
    };
    let is_declared = |text: &str| {
        text.lines().any(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("pub").map_or(line, |rest| rest.trim_start_matches(|c| c != 'm'));
            line.strip_prefix("mod ").is_some_and(|rest| rest.trim_end() == format!("{module};"))
        })
    };
    files.iter().filter(|(other, _)| is_parent(other)).any(|(_, text)| is_declared(text)) || is_included(name, files)
}

/// Whether a file is named by its file name, in `#[path = "…"]` or `include!("…")`.
fn is_included(name: &str, files: &BTreeMap<String, String>) -> bool {
    let end = format!("{name}\"");
    files.values().flat_map(|text| text.lines()).any(|line| {
        (line.contains("#[path") || line.contains("include!("))
            && line
                .match_indices(end.as_str())
                .any(|(at, _)| matches!(&line[..at].chars().next_back(), Some('"' | '/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans_of(files: &[(&str, &str)]) -> Vec<String> {
        orphans(&files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn a_file_is_named_by_its_parent() {
        let good = [
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n#[path = \"three_tests.rs\"]\nmod tests;\n"),
            ("a/src/one.rs", "pub mod deep;\n"),
            ("a/src/one/deep.rs", ""),
            ("a/src/two/mod.rs", ""),
            ("a/src/three_tests.rs", ""),
            ("a/src/bin/tool.rs", ""),
            ("a/src/bin/large/main.rs", "mod part;\n"),
            ("a/src/bin/large/part.rs", ""),
            ("a/tests/all.rs", "mod common;\n"),
            ("a/tests/common/mod.rs", ""),
            ("a/build.rs", ""),
        ];
        assert_eq!(orphans_of(&good), Vec::<String>::new());
    }

    #[test]
    fn a_forgotten_file_is_found() {
        let files = [("a/src/lib.rs", "mod one;\n// mod two;\n"), ("a/src/one.rs", ""), ("a/src/two.rs", "")];
        assert_eq!(orphans_of(&files), ["a/src/two.rs"]);
    }
}

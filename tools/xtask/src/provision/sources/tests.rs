//! Tests of the source list parsers; hosts are the reserved example names.

use super::*;

const ONE_LINE: &str = "\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main contrib # tail
deb-src http://mirror.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
";

const DEB822: &str = "\
Types: deb deb-src
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm-backports
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm-backports
Components: main
";

#[test]
fn one_line_sources_keep_options_and_drop_comments_and_source_packages() {
    let sources = parse_one_line(ONE_LINE);
    assert_eq!(sources.len(), 2);
    assert_eq!(sources[0].uris, ["http://mirror.example/debian"]);
    assert_eq!(sources[0].components, ["main", "contrib"]);
    assert_eq!(sources[0].options[1].0, "signed-by");
}

#[test]
fn backports_in_one_line_syntax() {
    let entry = backports_entry(&parse_one_line(ONE_LINE), "bookworm").unwrap().unwrap();
    assert_eq!(entry.file_name, "oxen-backports.list");
    let added = parse_one_line(&entry.text);
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].suites, ["bookworm-backports"]);
    assert_eq!(added[0].uris, ["http://mirror.example/debian"]);
    assert_eq!(added[0].components, ["main", "contrib"]);
    assert_eq!(added[0].options, parse_one_line(ONE_LINE)[0].options, "the same key and architectures");
}

#[test]
fn backports_in_deb822_syntax() {
    let sources = parse_deb822(DEB822);
    assert_eq!(sources.len(), 1, "disabled and source-only paragraphs are out");
    let entry = backports_entry(&sources, "bookworm").unwrap().unwrap();
    assert_eq!(entry.file_name, "oxen-backports.sources");
    let added = parse_deb822(&entry.text);
    assert_eq!(added[0].suites, ["bookworm-backports"]);
    assert_eq!(added[0].components, ["main", "non-free-firmware"]);
    assert_eq!(added[0].options, [("Signed-By".to_owned(), "/usr/share/keyrings/debian.gpg".to_owned())]);
}

#[test]
fn an_embedded_key_survives() {
    let text = "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n abc\n";
    let sources = parse_deb822(text);
    let entry = backports_entry(&sources, "bookworm").unwrap().unwrap();
    assert!(entry.text.ends_with("Signed-By:\n -----BEGIN-----\n .\n abc\n"), "{}", entry.text);
    assert_eq!(parse_deb822(&entry.text)[0].options, sources[0].options);
}

#[test]
fn nothing_is_added_twice_and_a_foreign_machine_is_told() {
    let text = "deb http://m.example/debian bookworm-backports main\n";
    let both = format!("{ONE_LINE}{text}");
    assert_eq!(backports_entry(&parse_one_line(&both), "bookworm").unwrap(), None);
    let error = backports_entry(&parse_one_line(ONE_LINE), "trixie").unwrap_err();
    assert!(error.to_string().contains("trixie"), "{error}");
}

#[test]
fn a_source_is_written_for_other_suites_in_its_own_syntax() {
    let suites = ["x".to_owned(), "y".to_owned()];
    for (source, parse) in [
        (parse_one_line(ONE_LINE).remove(0), parse_one_line as fn(&str) -> Vec<Source>),
        (parse_deb822(DEB822).remove(0), parse_deb822),
    ] {
        let written = parse(&source.text_with(&suites));
        assert_eq!(written.iter().flat_map(|source| source.suites.clone()).collect::<Vec<_>>(), suites);
        for copy in written {
            assert_eq!(Source { suites: source.suites.clone(), ..copy }, source);
        }
    }
}

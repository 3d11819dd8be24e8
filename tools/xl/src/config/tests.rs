//! Tests of the whole way from text to a checked configuration, property tests of the language, and random bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::lex::lex;
use super::parse::{MAX_DEPTH, Settings, parse};
use super::report::{Place, Report, Severity};
use super::text::Text;
use super::value::{Content, Value};
use super::*;

fn settings(content: &str) -> (Settings, Vec<String>) {
    let mut report = Report::default();
    let text = Text::new("t.cfg", content.as_bytes(), &[]);
    let settings = parse(&text, &mut report);
    (settings, report.findings().iter().map(ToString::to_string).collect())
}

/// What `key` was set to, printed.
fn value(content: &str, key: &str) -> String {
    let (settings, findings) = settings(content);
    assert_eq!(findings, Vec::<String>::new(), "{content}");
    settings.get(key).map(|setting| setting.value.to_string()).unwrap_or_default()
}

fn findings(content: &str) -> Vec<String> {
    let (_, report) = read("t.cfg", content.as_bytes(), &[]);
    report.findings().iter().map(ToString::to_string).collect()
}

const GOOD: &str = "name='g'\nkernel='/k'\nmemory=64\n";

/// Findings of a configuration that is good but for the lines added (from line 4 on).
fn findings_of(lines: &str) -> Vec<String> {
    findings(&format!("{GOOD}{lines}"))
}

#[test]
fn statements_and_separators() {
    assert_eq!(value("a=1;b=2 # comment\n\n;c=3", "c"), "3");
    assert_eq!(value("a=1;b=2 # comment", "b"), "2");
    assert_eq!(value("a = 0x1f", "a"), "0x1f");
    assert_eq!(value("a.b_1 = 'x'", "a.b_1"), "\"x\"");
}

#[test]
fn strings_take_xens_escapes() {
    assert_eq!(value(r#"a = "q\"q'\\""#, "a"), r#""q\"q'\\""#);
    assert_eq!(value(r"a = 'q\'q\n\t\x41\101'", "a"), r#""q'q\n\tAA""#);
}

#[test]
fn lists_span_lines_nest_and_may_end_with_a_comma() {
    let text = "a = [ # first\n 'x',\n\n [ 1, 2, ],\n 'y'\n , \n]\n";
    assert_eq!(value(text, "a"), "[ \"x\", [ 1, 2, ], \"y\", ]");
    assert_eq!(value("a=[]", "a"), "[ ]");
}

#[test]
fn the_last_setting_wins_and_append_joins() {
    assert_eq!(value("a=1\na=2", "a"), "2");
    assert_eq!(value("a='x'\na+='y'", "a"), "\"xy\"");
    assert_eq!(value("a=[1]\na+=[2,3]", "a"), "[ 1, 2, 3, ]");
    assert_eq!(value("a+='new'", "a"), "\"new\"");
    assert_eq!(value("a=[1]\na+=[2]\na=3", "a"), "3");
}

#[test]
fn every_syntax_error_is_reported_with_its_place() {
    let (settings, findings) = settings(
        "a = 1 2\nB = 3\nc = foo\nd = 'open\ne = [ 1 2 ]\nf = -5\n= 7\ng = [ 1,\n  2\nh = 8\ni = \"\\q\"\nj += \n",
    );
    let expected = [
        "t.cfg:1:7: error: the number 2 where a new line or `;' after the value should be",
        "t.cfg:2:1: error: `B': keys are lower-case words, and strings need quotes",
        "t.cfg:3:5: error: `foo': a value is a number, a list, or a string in quotes: \"foo\"",
        "t.cfg:4:5: error: the string has no closing quote on its line",
        "t.cfg:5:9: error: the number 2 where `,' or `]' after a list element should be",
        "t.cfg:6:5: error: `-5': a negative number must stand in quotes",
        "t.cfg:7:1: error: `=' where a key should be",
        "t.cfg:8:5: error: the list has no closing `]'",
        "t.cfg:11:6: error: unknown escape: after a backslash come \" ' \\ a b f n r t v x or a digit",
        "t.cfg:12:6: error: the end of the line where a value should be",
    ];
    // Lexical errors are found first, so the order differs from the lines.
    let mut sorted = findings.clone();
    sorted.sort_by_key(|finding| finding.split(':').nth(1).and_then(|line| line.parse::<u32>().ok()));
    assert_eq!(sorted, expected);
    assert_eq!(settings.get("h").map(|setting| setting.value.to_string()).as_deref(), Some("8"));
}

#[test]
fn deep_lists_are_refused() {
    let deep = |depth: usize| format!("a = {}{}\n", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(settings(&deep(MAX_DEPTH)).1, Vec::<String>::new());
    assert_eq!(settings(&deep(MAX_DEPTH + 1)).1.len(), 1);
    assert_eq!(settings(&format!("a = {}", "[".repeat(100_000))).1.len(), 1);
}

#[test]
fn a_full_configuration_is_read() {
    let text = r#"
        name = "web"          # the name
        type = "pvh"
        uuid = "0bb1a8a2-7d7c-4c5a-9c1e-5a4f7f7f0c11"
        vcpus = 2; maxvcpus = 4
        memory = 0x100
        kernel = "/boot/vmlinuz"
        ramdisk = '/boot/initrd'
        root = "/dev/xvda1 ro"
        extra = "console=hvc0"
        on_crash = "preserve"
        cpus = [ "0", "1-3,^2" ]
        disk = [ '/dev/vg/web,raw,xvda,rw' ]
        disk += [ 'format=qcow2,vdev=xvdb,target=/srv/b.qcow2', ]
        vif = [ 'mac=00:16:3e:00:00:01,bridge=br0' ]
        p9 = [ 'tag=t,path=/srv,security_model=none' ]
        max_grant_frames = 64
        tsc_mode = "native"
    "#;
    let (config, report) = read("web.cfg", text.as_bytes(), &[]);
    assert_eq!(report.findings(), []);
    assert_eq!(config.name, "web");
    assert_eq!((config.online_vcpus(), config.most_vcpus()), (2, 4));
    assert_eq!((config.memory_kib(), config.max_memory_kib()), (256 << 10, 256 << 10));
    assert_eq!(config.command_line().as_deref(), Some("root=/dev/xvda1 ro console=hvc0"));
    assert_eq!(config.actions.crash, domain::Action::Preserve);
    assert_eq!(config.actions.reboot, domain::Action::Restart);
    assert_eq!((config.disks.len(), config.vifs.len(), config.p9s.len()), (2, 1, 1));
    assert_eq!(config.tsc_mode, domain::TscMode::Native);
}

#[test]
fn the_command_line_wins_and_is_named_in_errors() {
    let overrides = ["memory=128".to_string(), "vcpus=3;name='other'".to_string()];
    let (config, report) = read("g.cfg", GOOD.as_bytes(), &overrides);
    assert_eq!(report.findings(), []);
    assert_eq!((config.memory_mib, config.vcpus, config.name.as_str()), (Some(128), Some(3), "other"));
    let (_, report) = read("g.cfg", GOOD.as_bytes(), &["vcpus=x".into()]);
    let finding = report.findings().first().map(ToString::to_string).unwrap_or_default();
    assert!(finding.starts_with("command line `vcpus=x':1:7: error: `x': a value is"), "{finding}");
}

#[test]
fn every_mistake_in_the_values_is_reported() {
    let lines = "memroy = 5\nvcpus = 0\nmaxmem = [1]\non_crash = 'explode'\ndisk = 'a'\nvif = [ 'mac=1', [1] ]\nuuid='12'\ncpus='3-1'\nvcpus += 1\n";
    let found = findings_of(lines);
    let expected = [
        "t.cfg:4:1: error: memroy: unknown key; did you mean `memory' (memory at start in MiB)?",
        "t.cfg:12:1: error: vcpus: `+=' cannot be used with a number",
        "t.cfg:6:10: error: maxmem: it is a list but should be a number",
        "t.cfg:7:12: error: on_crash: `explode' is unknown; there are destroy, restart, rename-restart, preserve, coredump-destroy, coredump-restart, soft-reset",
        "t.cfg:8:8: error: disk: it is a single value but should be a list: disk = [ \"a\" ]",
        "t.cfg:9:9: error: vif: mac `1' is not of the form 00:16:3e:01:02:03",
        "t.cfg:9:18: error: vif: a list inside the list, where a string should be",
        "t.cfg:10:6: error: uuid: `12' is not a UUID such as 0bb1a8a2-7d7c-4c5a-9c1e-5a4f7f7f0c11",
        "t.cfg:11:6: error: cpus: `3-1': the range is empty, its end lies before its start",
    ];
    for line in expected {
        assert!(found.iter().any(|finding| finding == line), "missing: {line}\nfound: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn later_keys_warn_or_refuse() {
    let found = findings_of("vnc = 1\npci = [ '01:00.0' ]\nioports = []\nnestedhvm = 0\ntype = 'pv'\nserial='pty'\n");
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("t.cfg:4:1: warning: vnc: has no effect"), "{}", found[0]);
    assert!(found[0].ends_with("(planned with HVM guests and PCI passthrough)"), "{}", found[0]);
    assert!(
        found[1].starts_with("t.cfg:5:1: error: pci: PCI devices cannot be passed through yet (planned"),
        "{}",
        found[1]
    );
    assert!(
        found[2].starts_with("t.cfg:8:8: error: type: \"pv\" guests are not supported; write type=\"pvh\""),
        "{}",
        found[2]
    );
    assert!(found[3].starts_with("t.cfg:9:1: warning: serial"), "{}", found[3]);
}

#[test]
fn what_is_missing_and_what_contradicts() {
    let found = findings("vcpus=2\nmaxvcpus=1\nmemory=64\nmaxmem=32\n");
    assert_eq!(found.iter().filter(|finding| finding.contains("is missing")).count(), 2);
    assert!(found.contains(&"t.cfg:2:10: error: maxvcpus: 1 is less than vcpus, 2".into()));
    assert!(found.contains(&"t.cfg:4:8: error: maxmem: 32 is less than memory, 64".into()));
    let both = findings_of("cmdline='a'\nroot='b'\n");
    assert_eq!(both, ["t.cfg:5:1: warning: root: ignored, because cmdline= is given"]);
}

#[test]
fn no_key_has_two_rows() {
    let mut names: Vec<_> = schema::keys().map(|key| key.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

fn nowhere() -> Place {
    Place { source: "".into(), line: 0, column: 0 }
}

/// Any value the language can write.
fn any_value() -> impl Strategy<Value = Value> {
    let quoted = "[^\0]*".prop_map(|text| Content::Atom { text, quoted: true });
    let number = "[0-9][0-9a-fx]{0,8}".prop_map(|text| Content::Atom { text, quoted: false });
    let atom = prop_oneof![quoted, number].prop_map(|content| Value { content, place: nowhere() });
    atom.prop_recursive(4, 24, 6, |inner| {
        vec(inner, 0..6).prop_map(|values| Value { content: Content::List(values), place: nowhere() })
    })
}

proptest! {
    /// What is printed reads back as the same.
    #[test]
    fn printing_and_reading_are_inverse(
        entries in vec(("[a-z][._0-9a-z]{0,6}", any_value(), any::<bool>()), 0..8)
    ) {
        let mut first = String::new();
        for (key, value, append) in &entries {
            first.push_str(&format!("{key} {} {value}\n", if *append { "+=" } else { "=" }));
        }
        let (settings, _) = settings(&first);
        let (again, findings) = self::settings(&settings.to_string());
        prop_assert_eq!(findings, Vec::<String>::new());
        prop_assert_eq!(&again, &settings);
        for (key, value, append) in &entries {
            if !append && entries.iter().filter(|(other, ..)| other == key).count() == 1 {
                prop_assert_eq!(settings.get(key).map(|setting| &setting.value), Some(value));
            }
        }
    }

    /// No bytes make any stage panic, and every place lies inside the text.
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let (_, report) = read("r.cfg", &bytes, &[]);
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
        for place in report.findings().iter().filter_map(|finding| finding.place.as_ref()) {
            prop_assert!(usize::try_from(place.line).is_ok_and(|line| line >= 1 && line <= lines));
        }
    }

    /// Random sequences of what the language is made of get deeper than random bytes do.
    #[test]
    fn random_tokens_never_panic(words in vec(prop_oneof![
        Just("\n"), Just(";"), Just("="), Just("+="), Just("["), Just("]"), Just(","), Just("'"), Just("\""), Just("\\"),
        Just("#"), Just(" "), Just("name"), Just("disk"), Just("vif"), Just("cpus"), Just("memory"), Just("1"), Just("0x"),
        Just("'phy:/a,xvda,w'"), Just("'a=b'"), Just("'^1,node:2'"), Just("tsc_mode"), Just("uuid"), Just("''"), Just("é"),
    ], 0..60)) {
        let text = words.concat();
        let (_, report) = read("r.cfg", text.as_bytes(), &[]);
        // Text with an unbalanced quote or bracket, or the like, is never accepted silently.
        let mut lexical = Report::default();
        let tokens = lex(&Text::new("r.cfg", text.as_bytes(), &[]), &mut lexical);
        if tokens.iter().any(|token| token.kind == super::lex::Kind::Bad) {
            prop_assert!(report.has_errors());
        }
        prop_assert!(report.findings().iter().any(|finding| finding.severity == Severity::Error) == report.has_errors());
    }

    /// The parsers of list entries take any string, and a CPU list that was taken prints as one that is taken again.
    #[test]
    fn random_entries_never_panic(text in ".{0,80}") {
        let disk_or_error = disk::Disk::parse(&text).map(|disk| disk.vdev.is_empty());
        prop_assert_ne!(disk_or_error, Ok(true));
        let p9_or_error = p9::P9::parse(&text).map(|share| share.tag.is_empty());
        prop_assert_ne!(p9_or_error, Ok(true));
        drop(vif::Vif::parse(&text));
        if let Ok(set) = cpus::CpuSet::parse(&text) {
            prop_assert_eq!(cpus::CpuSet::parse(&set.to_string()), Ok(set));
        }
    }
}

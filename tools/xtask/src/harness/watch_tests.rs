//! Tests of the watcher with scripted consoles.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;

fn watch(files: usize, limit: Option<Duration>) -> Watch<'static> {
    let sinks = Sinks { log: tempfile::tempfile().unwrap(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    Watch::new("@m", files, limit, true, sinks)
}

fn exited() -> End {
    End::Exited { status: ExitStatus::from_raw(0), messages: String::new() }
}

/// The verdict after a console's whole output.
fn verdict(text: &str) -> Verdict {
    let mut watch = watch(0, None);
    let (mut link, _input) = Link::for_test();
    assert_eq!(watch.console(text.as_bytes(), &mut link), Flow::Continue);
    watch.verdict(&exited())
}

#[test]
fn a_status_is_the_verdict() {
    let text = "@m milestone script 3.1 ;\nhello\n@m status 7 ;\n@m end ;\n";
    assert_eq!(verdict(text), Verdict::Status(7));
}

#[test]
fn a_panic_outweighs_a_status() {
    assert_eq!(verdict("@m status 0 ;\n(XEN) Panic on CPU 1:\n"), Verdict::HypervisorPanic);
    let no_boot = verdict("(XEN) Oxen cannot go on: no nested paging\n");
    assert_eq!(no_boot, Verdict::Broken("Oxen cannot go on: no nested paging".into()));
    assert_eq!(no_boot.code(), 122);
    assert_eq!(verdict("(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting.\n"), Verdict::Dom0Crash);
}

#[test]
fn a_boot_that_stops_says_where() {
    let Verdict::Broken(reason) = verdict("@m milestone xenstored 2.0 ;\n") else {
        panic!("not broken");
    };
    assert!(reason.contains("xenstored"), "{reason}");
    assert_eq!(
        verdict("@m failed xenstored does not answer ;\n@m end ;\n"),
        Verdict::Broken("dom0 did not come up: xenstored does not answer".into())
    );
}

#[test]
fn a_guests_panic_shown_by_the_script_is_forgotten_when_dom0_goes_on() {
    let mut watch = watch(0, None);
    let (mut link, _input) = Link::for_test();
    watch.console(b"@m milestone script 1 ;\nKernel panic - not syncing: x\n", &mut link);
    assert!(link.has_deadline(), "suspicion sets a deadline");
    watch.console(b"@m status 0 ;\n", &mut link);
    assert!(!link.has_deadline());
    assert_eq!(watch.verdict(&exited()), Verdict::Status(0));
}

#[test]
fn a_kernel_panic_and_then_silence_is_a_crash() {
    let mut watch = watch(0, None);
    let (mut link, _input) = Link::for_test();
    watch.console(b"[ 1.0] Kernel panic - not syncing: x\n", &mut link);
    assert_eq!(watch.deadline(&mut link), Flow::Stop);
    assert_eq!(watch.verdict(&End::Stopped), Verdict::Dom0Crash);
}

#[test]
fn the_time_limit_stops_the_script_first_and_the_machine_later() {
    let mut watch = watch(0, Some(Duration::from_secs(9)));
    let (mut link, input) = Link::for_test();
    watch.console(b"@m milestone script 1 ;\n", &mut link);
    assert_eq!(watch.deadline(&mut link), Flow::Continue);
    assert_eq!(input.try_recv().unwrap(), b"stop\n");
    watch.console(b"@m status 137 ;\n@m end ;\n", &mut link);
    assert_eq!(watch.verdict(&exited()), Verdict::TimedOut);
}

#[test]
fn the_time_limit_before_the_script_stops_the_machine() {
    let mut watch = watch(0, Some(Duration::from_secs(9)));
    let (mut link, _input) = Link::for_test();
    assert_eq!(watch.deadline(&mut link), Flow::Stop);
    assert_eq!(watch.verdict(&End::Stopped), Verdict::TimedOut);
}

#[test]
fn damaged_files_are_asked_for_again() {
    let mut watch = watch(2, None);
    let (mut link, input) = Link::for_test();
    watch.console(b"@m file 0 missing ;\n@m file 1 begin ;\n@m file 1 end 4 ;\n@m await ;\n", &mut link);
    assert_eq!(input.try_recv().unwrap(), b"again 1\n");
    watch.console(b"@m file 1 missing ;\n@m await ;\n", &mut link);
    assert_eq!(input.try_recv().unwrap(), b"bye\n");
}

#[test]
fn a_case_is_told_once_although_it_is_said_twice() {
    let told = std::cell::RefCell::new(Vec::new());
    let news = |news: News<'_>| told.borrow_mut().push(format!("{news:?}"));
    let sinks = Sinks { log: tempfile::tempfile().unwrap(), screen: Box::new(std::io::sink()), news: Box::new(news) };
    let mut watch = Watch::new("@m", 0, None, false, sinks);
    let (mut link, _input) = Link::for_test();
    watch.console(b"@m begin a ;\n@m begin a ;\n@m case a 0 ;\n@m case a 0 ;\n@m begin b ;\n", &mut link);
    drop(watch);
    let wanted = [r#"CaseBegins("a")"#, r#"CaseEnded { name: "a", text: "0" }"#, r#"CaseBegins("b")"#];
    assert_eq!(*told.borrow(), wanted);
}

#[test]
fn each_case_has_its_own_time() {
    let mut watch = watch(0, Some(Duration::from_secs(100)));
    let (mut link, _input) = Link::for_test();
    let first = watch.limit.unwrap();
    let mut last = first;
    for text in ["@m begin a ;\n", "@m case a 0 ;\n", "@m begin b ;\n"] {
        watch.limit = Some(first - Duration::from_secs(50));
        watch.console(text.as_bytes(), &mut link);
        assert!(watch.limit.unwrap() >= last && link.has_deadline(), "{text}");
        last = watch.limit.unwrap();
    }
    // Said again, it gives no more time.
    watch.limit = Some(first);
    watch.console(b"@m begin b ;\n", &mut link);
    assert_eq!(watch.limit, Some(first));
    assert_eq!(watch.deadline(&mut link), Flow::Stop);
    assert_eq!(watch.verdict(&End::Stopped), Verdict::TimedOut);
}

#[test]
fn keys_wait_for_the_shell_and_ctrl_a_x_quits() {
    let mut watch = watch(0, None);
    let (mut link, input) = Link::for_test();
    watch.keys(b"xl list\r", &mut link);
    assert!(input.try_recv().is_err());
    watch.console(b"@m milestone shell 1 ;\n", &mut link);
    assert_eq!(input.try_recv().unwrap(), b"xl list\r");
    assert_eq!(watch.keys(b"\x01x", &mut link), Flow::Stop);
    let Verdict::Broken(reason) = watch.verdict(&End::Stopped) else {
        panic!("not broken");
    };
    assert!(reason.contains("Ctrl-A X"));
}

#[test]
fn a_machine_that_stays_on_is_noticed_and_keeps_its_status() {
    let mut watch = watch(0, None);
    let (mut link, _input) = Link::for_test();
    watch.console(b"@m status 0 ;\n@m end ;\n@m end ;\n", &mut link);
    assert_eq!(watch.deadline(&mut link), Flow::Stop);
    assert!(watch.power_off_failed());
    assert_eq!(watch.verdict(&End::Stopped), Verdict::Status(0));
}

#[test]
fn an_interrupted_run_is_no_success() {
    let mut watch = watch(0, None);
    let (mut link, _input) = Link::for_test();
    watch.console(b"@m status 0 ;\n", &mut link);
    assert_eq!(watch.verdict(&End::Interrupted).code(), 122);
}

//! Tests of the model, and the host that they and those of the screen look at.

use super::super::sample::{Requests, State};
use super::*;

fn domain(domid: u16, name: &str, cpu_ns: u64) -> Domain {
    let networks = vec![Network {
        number: 0,
        received: Traffic { bytes: 5 << 10, packets: 6, errors: 0, drops: 1 },
        sent: Traffic { bytes: u64::from(domid) << 20, packets: 9, errors: 2, drops: 0 },
    }];
    let requests = Requests { delayed: 1, reads: 10, writes: 123_456_789_012, sectors_read: 80, sectors_written: 7 };
    let disks = vec![
        Disk { number: 51712, requests: (domid != 2).then_some(requests) },
        Disk { number: 51728, requests: (domid == 0).then_some(requests) },
    ];
    Domain {
        domid,
        name: name.into(),
        state: State::default(),
        cpu_ns,
        memory_kib: 1 << 20,
        max_memory_kib: (domid != 0).then_some(2 << 20),
        vcpus: 2,
        vcpu_times: (0..7).map(|vcpu| (vcpu, u64::from(vcpu) * 1_000_000_000)).collect(),
        networks: if domid == 0 { Vec::new() } else { networks },
        disks,
    }
}

fn sample(seconds: u64, cpu_ns: [u64; 3]) -> Sample {
    let mut domains =
        vec![domain(0, "Domain-0", cpu_ns[0]), domain(1, "beta", cpu_ns[1]), domain(2, "alpha", cpu_ns[2])];
    domains[0].state.running = true;
    domains[1].state = State { shutdown: true, crashed: true, ..State::default() };
    domains[2].state.blocked = true;
    Sample {
        when: Duration::from_secs(seconds),
        time_of_day: 3_723,
        version: "4.17.7".into(),
        total_kib: 4 << 20,
        free_kib: 1 << 20,
        cpus: 2,
        mhz: 2000,
        domains,
    }
}

/// A view of three domains, after two looks 2 s apart.
pub(in super::super) fn view() -> View {
    let mut view = View::new(&Top { delay: 3, ..Top::default() });
    view.update(sample(10, [1_000_000_000, 0, 5_000_000_000]));
    view.update(sample(12, [2_500_000_000, 0, 5_500_000_000]));
    view
}

fn texts(view: &View) -> Vec<String> {
    view.rows().iter().map(Row::text).collect()
}

/// The names in the order in which they are shown.
fn names(view: &View) -> Vec<String> {
    let name = |row: &Row| match row {
        Row::Domain(cells) => Some(cells[0].trim().to_string()),
        _ => None,
    };
    view.rows().iter().filter_map(name).collect()
}

#[test]
fn a_row_is_xentops() {
    let rows = texts(&view());
    assert_eq!(rows.len(), 4);
    let row: Vec<&str> = rows[2].split_whitespace().collect();
    assert_eq!(
        row,
        [
            "beta",
            "-s-c--",
            "0",
            "0.0",
            "1048576",
            "25.0",
            "2097152",
            "50.0",
            "2",
            "1",
            "1024",
            "5",
            "2",
            "1",
            "10",
            "123456789012",
            "80",
            "7",
            "0"
        ]
    );
    // A large number makes its column wider, in the header, too.
    assert_eq!(rows[0].len(), rows[2].len());
    // Two disks without numbers are no zero, and no limit is none.
    let row: Vec<&str> = rows[1].split_whitespace().collect();
    assert_eq!(row[13..18], ["-"; 5]);
    assert!(rows[3].contains("  no limit       n/a "), "{}", rows[3]);
}

#[test]
fn percentages_are_of_the_time_between_two_looks() {
    let percent = |view: &View| -> Vec<String> {
        texts(view)[1..].iter().map(|row| row.split_whitespace().nth(3).unwrap_or_default().to_string()).collect()
    };
    assert_eq!(percent(&view()), ["25.0", "0.0", "75.0"]);
    let mut once = View::new(&Top::default());
    once.update(sample(10, [1, 1, 1]));
    assert_eq!(percent(&once), ["0.0"; 3]);
}

#[test]
fn every_column_sorts() {
    let mut view = view();
    let orders: Vec<Vec<String>> = COLUMNS
        .iter()
        .map(|_| {
            let names = names(&view);
            view.press(Key::Char('s'));
            names
        })
        .collect();
    assert_eq!(view.sorted_by(), 0, "once around");
    let at = |column: Column| {
        let index = COLUMNS.iter().position(|(other, _, _)| *other == column).expect("all are there");
        orders[index].iter().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!(at(Column::Name), ["alpha", "beta", "Domain-0"]);
    assert_eq!(at(Column::State), ["beta", "alpha", "Domain-0"]);
    assert_eq!(at(Column::Cpu), ["alpha", "Domain-0", "beta"]);
    assert_eq!(at(Column::CpuPercent), ["Domain-0", "alpha", "beta"]);
    assert_eq!(at(Column::MaxMemory)[0], "Domain-0");
    assert_eq!(at(Column::NetSent), ["alpha", "beta", "Domain-0"]);
    assert_eq!(at(Column::Reads), ["Domain-0", "beta", "alpha"]);
}

#[test]
fn the_control_domain_can_come_first() {
    let mut view = view();
    view.control_first = true;
    assert_eq!(names(&view), ["Domain-0", "alpha", "beta"]);
}

#[test]
fn details_follow_their_domain() {
    let mut view = view();
    for key in ['n', 'b', 'v', 'r'] {
        view.press(Key::Char(key));
    }
    let rows = texts(&view);
    let blocks: Vec<&[String]> = rows.split(|row| row.trim_start().starts_with("NAME")).skip(1).collect();
    assert_eq!(blocks.len(), 3);
    let alpha = blocks[0];
    assert_eq!(alpha.len(), 6);
    assert_eq!(
        alpha[1],
        "VCPUs(sec):   0:          0s  1:          1s  2:          2s  3:          3s  4:          4s"
    );
    assert_eq!(alpha[2], "          5:          5s  6:          6s");
    assert_eq!(
        alpha[3],
        "Net0 RX:     5120bytes        6pkts        0err        1drop  TX:  2097152bytes        9pkts        2err        0drop"
    );
    assert!(alpha[4].starts_with("VBD BlkBack 51712 [ca: 0]  OO:        -   RD:        -"), "{}", alpha[4]);
    assert!(blocks[1][4].starts_with("VBD BlkBack 51712 [ca: 0]  OO:        1   RD:       10"), "{}", blocks[1][4]);
    view.press(Key::Char('R'));
    assert_eq!(texts(&view).len(), 1 + 6 + 6 + 5, "one header for all; the control domain has no interface");
}

#[test]
fn names_are_cut_unless_wanted_in_full() {
    let mut view = view();
    view.now.domains[1].name = "a-very-long-name".into();
    assert_eq!(names(&view)[0], "a-very-lon");
    view.full_name = true;
    assert_eq!(names(&view)[0], "a-very-long-name");
    view.now.domains[1].name.clear();
    assert_eq!(names(&view)[0], "(null)");
}

#[test]
fn the_view_does_not_scroll_past_its_end_and_keys_end_it() {
    let mut view = view();
    for _ in 0..9 {
        assert_eq!(view.press(Key::Down), Flow::Continue);
    }
    assert_eq!(names(&view), ["Domain-0"]);
    view.update(Sample { domains: Vec::new(), ..sample(14, [0; 3]) });
    assert_eq!(texts(&view), Vec::<String>::new());
    for key in [Key::Char('q'), Key::Escape, Key::Interrupt] {
        assert_eq!(view.press(key), Flow::Quit);
    }
    view.press(Key::Char('d'));
    assert_eq!((view.press(Key::Escape), view.prompt()), (Flow::Continue, None), "the prompt alone is left");
}

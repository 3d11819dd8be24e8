//! What `xl top` shows, and what keys do to it: pure, so that it is tested without a host and a terminal.

use std::time::Duration;

use super::column::{COLUMNS, Column, Looks};
use super::sample::{Disk, Domain, Network, Sample, Traffic};
use crate::cli::Top;

/// A name that is not shown in full has so many characters.
const SHORT_NAME: usize = 10;
/// vCPUs in a line.
const VCPUS_IN_LINE: usize = 5;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Enter,
    Escape,
    Backspace,
    Interrupt,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The columns' names.
    Header(Vec<String>),
    /// A domain.
    Domain(Vec<String>),
    /// A line about a part of the domain above.
    Detail(String),
}

impl Row {
    /// The row as text.
    pub(super) fn text(&self) -> String {
        match self {
            Row::Header(cells) | Row::Domain(cells) => cells.join(" "),
            Row::Detail(text) => text.clone(),
        }
    }
}

/// What is shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    now: Sample,
    before: Option<Sample>,
    /// Index in [`COLUMNS`].
    sort: usize,
    /// The first domain shown, by its place in the order.
    first: usize,
    pub(super) networks: bool,
    pub(super) disks: bool,
    pub(super) vcpus: bool,
    pub(super) repeat_header: bool,
    full_name: bool,
    control_first: bool,
    delay: u32,
    /// What the user has typed of a new delay.
    prompt: Option<String>,
}

impl View {
    /// Nothing seen yet.
    pub(super) fn new(options: &Top) -> View {
        View {
            now: Sample::default(),
            before: None,
            sort: 0,
            first: 0,
            networks: options.networks,
            disks: options.vbds,
            vcpus: options.vcpus,
            repeat_header: options.repeat_header,
            full_name: options.full_name,
            control_first: options.dom0_first,
            delay: options.delay.max(1),
            prompt: None,
        }
    }

    /// Takes a new look in.
    pub(super) fn update(&mut self, sample: Sample) {
        let before = std::mem::replace(&mut self.now, sample);
        self.before = Some(before).filter(|before| *before != Sample::default());
        self.first = self.first.min(self.now.domains.len().saturating_sub(1));
    }

    /// The time between two looks.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_secs(self.delay.into())
    }

    /// The column that the rows are sorted by, as an index.
    pub(super) fn sorted_by(&self) -> usize {
        self.sort
    }

    /// The question at the bottom, with what has been typed.
    pub(super) fn prompt(&self) -> Option<String> {
        self.prompt.as_ref().map(|typed| format!("Delay(sec): {typed}"))
    }

    /// Acts on a key.
    pub(super) fn press(&mut self, key: Key) -> Flow {
        if key == Key::Interrupt {
            return Flow::Quit;
        }
        if let Some(typed) = &mut self.prompt {
            match key {
                Key::Enter => {
                    self.delay = typed.parse().ok().filter(|delay| *delay > 0).unwrap_or(self.delay);
                    self.prompt = None;
                }
                Key::Escape => self.prompt = None,
                Key::Backspace => drop(typed.pop()),
                Key::Char(digit) if digit.is_ascii_digit() && typed.len() < 9 => typed.push(digit),
                _ => {}
            }
            return Flow::Continue;
        }
        match key {
            Key::Char('q' | 'Q') | Key::Escape => return Flow::Quit,
            Key::Char('n' | 'N') => self.networks = !self.networks,
            Key::Char('b' | 'B') => self.disks = !self.disks,
            Key::Char('v' | 'V') => self.vcpus = !self.vcpus,
            Key::Char('r' | 'R') => self.repeat_header = !self.repeat_header,
            Key::Char('s' | 'S') => self.sort = (self.sort + 1) % COLUMNS.len(),
            Key::Char('d' | 'D') => self.prompt = Some(String::new()),
            Key::Down => self.first = (self.first + 1).min(self.now.domains.len().saturating_sub(1)),
            Key::Up => self.first = self.first.saturating_sub(1),
            _ => {}
        }
        Flow::Continue
    }

    /// The lines above the table.
    pub(super) fn summary(&self) -> [String; 3] {
        let Sample { time_of_day: time, version, total_kib: total, free_kib: free, cpus, mhz, domains, .. } = &self.now;
        let mut counts = [0; 6];
        for domain in domains {
            let state = domain.state;
            let kinds = [
                state.running,
                state.blocked,
                state.paused,
                state.shutdown && !state.crashed,
                state.crashed,
                state.dying,
            ];
            if let Some(kind) = kinds.iter().position(|is_it| *is_it) {
                counts[kind] += 1;
            }
        }
        let [running, blocked, paused, shutdown, crashed, dying] = counts;
        let (hours, minutes, seconds) = (time / 3_600, time / 60 % 60, time % 60);
        [
            format!("xl top - {hours:02}:{minutes:02}:{seconds:02} UTC   Xen {version}"),
            format!(
                "{} domains: {running} running, {blocked} blocked, {paused} paused, {crashed} crashed, {dying} dying, \
                 {shutdown} shutdown",
                domains.len()
            ),
            format!(
                "Mem: {total}k total, {}k used, {free}k free    CPUs: {cpus} @ {mhz}MHz",
                total.saturating_sub(*free)
            ),
        ]
    }

    /// The table, from the first domain that is shown on.
    pub(super) fn rows(&self) -> Vec<Row> {
        let looks = Looks { now: &self.now, before: self.before.as_ref() };
        let shown: Vec<&Domain> = self.in_order(&looks).into_iter().skip(self.first).collect();
        let cells: Vec<Vec<String>> = shown.iter().map(|domain| self.cells(domain, &looks)).collect();
        let widths: Vec<usize> =
            COLUMNS.iter().enumerate().map(|(index, column)| width(index, column.2, &cells)).collect();
        let align =
            |texts: &[String]| texts.iter().zip(&widths).map(|(text, width)| format!("{text:>width$}")).collect();
        let header = Row::Header(align(&COLUMNS.map(|(_, name, _)| name.to_string())));
        let mut rows = Vec::new();
        for (index, (domain, cells)) in shown.iter().zip(&cells).enumerate() {
            if index == 0 || self.repeat_header {
                rows.push(header.clone());
            }
            rows.push(Row::Domain(align(cells)));
            rows.extend(self.details(domain).into_iter().map(Row::Detail));
        }
        rows
    }

    fn in_order(&self, looks: &Looks<'_>) -> Vec<&Domain> {
        let column = COLUMNS[self.sort].0;
        let mut domains: Vec<&Domain> = self.now.domains.iter().collect();
        domains.sort_by(|one, other| {
            let is_later = |domain: &Domain| self.control_first && domain.domid != 0;
            is_later(one).cmp(&is_later(other)).then_with(|| column.compare(one, other, looks))
        });
        domains
    }

    fn cells(&self, domain: &Domain, looks: &Looks<'_>) -> Vec<String> {
        let text = |(column, _, _): &(Column, &str, usize)| match column {
            Column::Name if !self.full_name => column.text(domain, looks).chars().take(SHORT_NAME).collect(),
            column => column.text(domain, looks),
        };
        COLUMNS.iter().map(text).collect()
    }

    fn details(&self, domain: &Domain) -> Vec<String> {
        let mut lines = Vec::new();
        if self.vcpus {
            lines.extend(vcpu_lines(&domain.vcpu_times));
        }
        if self.networks {
            lines.extend(domain.networks.iter().map(network_line));
        }
        if self.disks {
            lines.extend(domain.disks.iter().map(disk_line));
        }
        lines
    }
}

/// A column is as wide as its widest cell, and never narrower than usual.
fn width(index: usize, usual: usize, cells: &[Vec<String>]) -> usize {
    cells.iter().filter_map(|row| row.get(index)).map(|text| text.chars().count()).max().unwrap_or(0).max(usual)
}

fn vcpu_lines(times: &[(u32, u64)]) -> Vec<String> {
    let of_vcpu = |(vcpu, time): &(u32, u64)| format!(" {vcpu:2}: {:10}s", time / 1_000_000_000);
    let lines = times.chunks(VCPUS_IN_LINE).map(|part| part.iter().map(of_vcpu).collect::<String>());
    lines
        .enumerate()
        .map(|(index, text)| format!("{}{text}", if index == 0 { "VCPUs(sec): " } else { "        " }))
        .collect()
}

fn network_line(network: &Network) -> String {
    let way = |Traffic { bytes, packets, errors, drops }: Traffic| {
        format!("{bytes:8}bytes {packets:8}pkts {errors:8}err {drops:8}drop")
    };
    format!("Net{} RX: {}  TX: {}", network.number, way(network.received), way(network.sent))
}

fn disk_line(disk: &Disk) -> String {
    let (major, minor) = (disk.number >> 8, disk.number & 0xff);
    let text = |number: Option<u64>| number.map_or_else(|| "-".to_string(), |number| number.to_string());
    let of = |number: fn(&super::sample::Requests) -> u64| text(disk.requests.as_ref().map(number));
    format!(
        "VBD BlkBack {:4} [{major:2x}:{minor:2x}]  OO: {:>8}   RD: {:>8}   WR: {:>8}   RSECT: {:>10}   WSECT: {:>10}",
        disk.number,
        of(|requests| requests.delayed),
        of(|requests| requests.reads),
        of(|requests| requests.writes),
        of(|requests| requests.sectors_read),
        of(|requests| requests.sectors_written),
    )
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;

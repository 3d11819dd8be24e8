//! Draws what `xl top` shows: the summary, as much of the table as there is room for, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};

use super::model::{Row, View};

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let parts = Layout::vertical([Constraint::Length(3), Constraint::Min(0), Constraint::Length(1)]);
    let [summary, table, bottom] = parts.areas(frame.area());
    let lines: Vec<Line<'_>> = view.summary().into_iter().map(Line::from).collect();
    frame.render_widget(Text::from(lines), summary);
    let lines: Vec<Line<'_>> =
        view.rows().into_iter().take(table.height.into()).map(|row| line(row, view.sorted_by())).collect();
    frame.render_widget(Text::from(lines), table);
    frame.render_widget(view.prompt().map_or_else(|| keys(view), Line::from), bottom);
}

/// A row; the column that decides the order is bold.
fn line(row: Row, sorted_by: usize) -> Line<'static> {
    let (cells, base) = match row {
        Row::Header(cells) => (cells, Style::new().reversed()),
        Row::Domain(cells) => (cells, Style::new()),
        Row::Detail(text) => return Line::from(text),
    };
    let mut spans = Vec::new();
    for (index, cell) in cells.into_iter().enumerate() {
        if index != 0 {
            spans.push(Span::styled(" ", base));
        }
        spans.push(Span::styled(cell, if index == sorted_by { base.bold() } else { base }));
    }
    Line::from(spans)
}

/// The keys; what is switched on is marked.
fn keys(view: &View) -> Line<'static> {
    let entries = [
        ("", 'D', "elay", false),
        ("", 'N', "etworks", view.networks),
        ("v", 'B', "ds", view.disks),
        ("", 'V', "CPUs", view.vcpus),
        ("", 'R', "epeat header", view.repeat_header),
        ("", 'S', "ort order", false),
        ("", 'Q', "uit", false),
    ];
    let mut spans = vec![Span::raw("  ")];
    for (before, key, after, is_on) in entries {
        let style = if is_on { Style::new().on_yellow() } else { Style::new() };
        spans.push(Span::styled(before, style));
        spans.push(Span::styled(key.to_string(), Style::new().reversed()));
        spans.push(Span::styled(after, style));
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Modifier;

    use super::super::model::Key;
    use super::super::model::tests::view;
    use super::*;

    /// The screen's lines, without spaces at their ends.
    fn lines(terminal: &Terminal<TestBackend>) -> Vec<String> {
        let buffer = terminal.backend().buffer();
        let width = usize::from(buffer.area.width);
        let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol()).collect::<String>();
        buffer.content.chunks(width).map(|cells| line(cells).trim_end().to_string()).collect()
    }

    fn drawn(view: &View, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, view)).expect("drawing there");
        terminal
    }

    #[test]
    fn the_screen_has_a_summary_a_table_and_keys() {
        let terminal = drawn(&view(), 170, 8);
        let lines = lines(&terminal);
        assert_eq!(lines[0], "xl top - 01:02:03 UTC   Xen 4.17.7");
        assert!(lines[1].starts_with("3 domains: 1 running, 1 blocked, 0 paused, 1 crashed"), "{}", lines[1]);
        assert_eq!(lines[2], "Mem: 4194304k total, 3145728k used, 1048576k free    CPUs: 2 @ 2000MHz");
        assert!(lines[3].trim_start().starts_with("NAME  STATE"), "{}", lines[3]);
        assert!(lines[4].starts_with("     alpha --b---"), "{}", lines[4]);
        assert_eq!(lines[7], "  Delay  Networks  vBds  VCPUs  Repeat header  Sort order  Quit");
        let header = &terminal.backend().buffer()[(8, 3)];
        assert!(header.modifier.contains(Modifier::REVERSED | Modifier::BOLD), "{header:?}");
    }

    #[test]
    fn what_has_no_room_is_left_out_and_scrolled_to() {
        let mut view = view();
        let names = |view: &View| {
            let lines = lines(&drawn(view, 60, 6));
            lines[4].split_whitespace().next().unwrap_or_default().to_string()
        };
        assert_eq!(names(&view), "alpha");
        view.press(Key::Down);
        assert_eq!(names(&view), "beta");
        view.press(Key::Up);
        assert_eq!(names(&view), "alpha");
        // A terminal that is much too small is no reason to fail.
        for (width, height) in [(1, 1), (3, 2), (200, 3)] {
            drawn(&view, width, height);
        }
    }

    #[test]
    fn the_prompt_stands_where_the_keys_were() {
        let mut view = view();
        for key in [Key::Char('d'), Key::Char('1'), Key::Char('x'), Key::Char('7'), Key::Char('5'), Key::Backspace] {
            view.press(key);
        }
        assert_eq!(lines(&drawn(&view, 80, 6))[5], "Delay(sec): 17");
        view.press(Key::Enter);
        assert_eq!(view.delay().as_secs(), 17);
        assert!(lines(&drawn(&view, 80, 6))[5].starts_with("  Delay"));
    }
}

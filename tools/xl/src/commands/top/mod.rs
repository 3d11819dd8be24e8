//! `xl top`: what the host and its domains do, again and again. Columns, options and keys are xentop's.
//!
//! In the order of the data: [`sample`] asks the hypervisor, xenstore and the kernel; [`model`] makes rows of it and takes keys;
//! [`screen`] draws them, or batch mode prints them. Only this file and `sample` touch the outside.

mod column;
mod model;
mod sample;
mod screen;

use std::io::{IsTerminal, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType};

use crate::cli::Top;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::session::Session;
use model::{Flow, Key, View};
use sample::take;

/// Longest time between two bytes of one key, on a serial line with something else to do.
const BETWEEN: Duration = Duration::from_millis(200);

pub(super) fn run(options: &Top) -> Outcome {
    let session = Session::open()?;
    let mut view = View::new(options);
    if options.batch || !stdout().is_terminal() {
        return batch(&session, &mut view, options.iterations);
    }
    let mut terminal = ratatui::try_init().map_err(failed)?;
    // Not every terminal has another screen to go to, and the first drawing leaves out what is blank.
    // (Terminal::clear asks the terminal where its cursor is, which not every one answers.)
    let result = execute!(stdout(), Clear(ClearType::All))
        .map_err(failed)
        .and_then(|()| interact(&session, &mut view, &mut terminal, options.iterations));
    ratatui::restore();
    result
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(format!("the terminal: {error}"))
}

/// Prints the table again and again, without its summary, as xentop does.
fn batch(session: &Session, view: &mut View, iterations: Option<u64>) -> Outcome {
    let mut left = iterations;
    loop {
        view.update(take(session)?);
        print(view.rows().iter().map(|row| format!("{}\n", row.text())).collect::<String>())?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        sleep(view.delay());
    }
}

/// Draws the screen and takes keys until the user has enough.
fn interact(session: &Session, view: &mut View, terminal: &mut DefaultTerminal, iterations: Option<u64>) -> Outcome {
    let mut left = iterations;
    loop {
        view.update(take(session)?);
        let taken = Instant::now();
        loop {
            terminal.draw(|frame| screen::draw(frame, view)).map_err(failed)?;
            let wait = view.delay().saturating_sub(taken.elapsed());
            if wait == Duration::ZERO || !event::poll(wait).map_err(failed)? {
                break;
            }
            let first = key(&event::read().map_err(failed)?);
            if let Some(key) = whole(first, || match event::poll(BETWEEN) {
                Ok(true) => event::read().ok().and_then(|event| key(&event)),
                _ => None,
            }) && view.press(key) == Flow::Quit
            {
                return Ok(());
            }
        }
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
    }
}

/// Puts together what a slow line has taken apart: an arrow's escape sequence whose bytes came one by one, which look like the escape
/// key and some letters. `next` gives what follows soon, if anything does.
fn whole(first: Option<Key>, mut next: impl FnMut() -> Option<Key>) -> Option<Key> {
    if first != Some(Key::Escape) {
        return first;
    }
    match next() {
        None => first,
        // ECMA-48's control sequence introducer, and what VT100s send in application mode.
        Some(Key::Char('[' | 'O')) => match next() {
            Some(Key::Char('A')) => Some(Key::Up),
            Some(Key::Char('B')) => Some(Key::Down),
            _ => None,
        },
        other => other,
    }
}

/// What was pressed, if it means something here.
fn key(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        // The terminal is raw: nobody else makes an interrupt of it.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char(character) => Some(Key::Char(character)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_came_in_pieces_is_an_arrow() {
        let press = |keys: &[Key]| {
            let mut keys = keys.iter().copied();
            whole(keys.next(), || keys.next())
        };
        assert_eq!(press(&[Key::Escape, Key::Char('['), Key::Char('B')]), Some(Key::Down));
        assert_eq!(press(&[Key::Escape, Key::Char('O'), Key::Char('A')]), Some(Key::Up));
        assert_eq!(press(&[Key::Escape, Key::Char('['), Key::Char('C')]), None);
        assert_eq!(press(&[Key::Escape]), Some(Key::Escape));
        assert_eq!(press(&[Key::Escape, Key::Char('q')]), Some(Key::Char('q')));
        assert_eq!(press(&[Key::Char('['), Key::Char('B')]), Some(Key::Char('[')));
    }
}

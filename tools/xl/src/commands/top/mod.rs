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

use crate::cli::Top;
use crate::failure::{Failure, Outcome};
use crate::output::print;
use crate::session::Session;
use model::{Flow, Key, View};
use sample::take;

pub(super) fn run(options: &Top) -> Outcome {
    let session = Session::open()?;
    let mut view = View::new(options);
    if options.batch || !stdout().is_terminal() {
        return batch(&session, &mut view, options.iterations);
    }
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = interact(&session, &mut view, &mut terminal, options.iterations);
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
            if let Some(key) = key(&event::read().map_err(failed)?)
                && view.press(key) == Flow::Quit
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

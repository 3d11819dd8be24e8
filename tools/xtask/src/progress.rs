//! Says what the tool is doing while a person waits.
//!
//! On a terminal each step is a spinner with the elapsed time (indicatif); otherwise it is one plain line at its start,
//! so that logs stay readable. Everything goes to standard error: standard output belongs to the machine's console.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One step under way. Dropping it without [`Step::done`] clears the spinner: an error message follows.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
    what: String,
    started: Instant,
}

/// Starts a step; `what` reads like "downloading packages".
pub(crate) fn step(what: &str) -> Step {
    let step = quiet_step(what);
    if step.bar.is_none() {
        note(what);
    }
    step
}

/// Starts a step that leaves no line of its own: its caller reports the end.
pub(crate) fn quiet_step(what: &str) -> Step {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    Step { bar, what: what.to_owned(), started: Instant::now() }
}

/// One line of information.
pub(crate) fn note(text: &str) {
    eprintln!("xtask: {text}");
}

/// One line about something that is not right but no error.
pub(crate) fn warn(text: &str) {
    eprintln!("xtask: warning: {text}");
}

impl Step {
    /// Replaces the text beside the spinner.
    pub(crate) fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {text}", self.what));
        }
    }

    /// The step succeeded.
    pub(crate) fn done(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            let seconds = self.started.elapsed().as_secs_f64();
            note(&format!("{} ({seconds:.1} s)", self.what));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

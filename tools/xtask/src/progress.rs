//! Says what the tool is doing while a person waits.
//!
//! On a terminal each step is a spinner with the elapsed time (indicatif). Otherwise it is one plain line at its start, so
//! that logs stay readable, and one more every half a minute, so that nobody takes a long step for a hanging one.
//! Everything goes to standard error: standard output belongs to the machine's console.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a step shows that it is alive where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// One step under way. Dropping it without [`Step::done`] clears the spinner: an error message follows.
pub(crate) struct Step {
    sign: Sign,
    what: String,
    started: Instant,
}

/// How a step shows itself.
enum Sign {
    /// A spinner on a terminal.
    Spinner(ProgressBar),
    /// Lines now and then, with the text that was last set; they end when the sender is dropped.
    Lines { detail: Arc<Mutex<String>>, _end: Sender<()> },
}

/// Starts a step; `what` reads like "downloading packages".
pub(crate) fn step(what: &str) -> Step {
    let step = quiet_step(what);
    if let Sign::Lines { .. } = step.sign {
        note(what);
    }
    step
}

/// Starts a step that leaves no line of its own: its caller reports the end.
pub(crate) fn quiet_step(what: &str) -> Step {
    let started = Instant::now();
    let sign = if std::io::stderr().is_terminal() { spinner(what) } else { lines(what.to_owned(), started) };
    Step { sign, what: what.to_owned(), started }
}

fn spinner(what: &str) -> Sign {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    Sign::Spinner(bar)
}

fn lines(what: String, started: Instant) -> Sign {
    let (end, ended) = channel();
    let detail = Arc::new(Mutex::new(String::new()));
    let shown = Arc::clone(&detail);
    thread::spawn(move || {
        while ended.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
            let seconds = started.elapsed().as_secs();
            let detail = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
            note(&format!("still {what}{detail} ({seconds} s so far)"));
        }
    });
    Sign::Lines { detail, _end: end }
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
    /// Says what the step is at now.
    pub(crate) fn now(&self, text: &str) {
        match &self.sign {
            Sign::Spinner(bar) => bar.set_message(format!("{}: {text}", self.what)),
            Sign::Lines { detail, .. } => {
                *detail.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
            }
        }
    }

    /// The step succeeded.
    pub(crate) fn done(self) {
        if let Sign::Spinner(bar) = &self.sign {
            bar.finish_and_clear();
            let seconds = self.started.elapsed().as_secs_f64();
            note(&format!("{} ({seconds:.1} s)", self.what));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Sign::Spinner(bar) = &self.sign {
            bar.finish_and_clear();
        }
    }
}

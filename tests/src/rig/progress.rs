//! Progress of long work on standard error: what, how far, how long so far.
//!
//! On a terminal one line is kept up to date; elsewhere a line is added every fifteen seconds.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REFRESH_ON_TERMINAL: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(15);

/// How many have said something and have not ended.
static SHOWN: AtomicUsize = AtomicUsize::new(0);

/// Whether some progress is being shown, so that others keep their hands off the terminal's line.
#[must_use]
pub fn is_shown() -> bool {
    SHOWN.load(Ordering::Relaxed) > 0
}

/// Shows that something is under way until it is dropped.
pub struct Progress {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    what: String,
    started: Instant,
    terminal: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    now: String,
    ended: bool,
}

impl Progress {
    /// Announces `what` and keeps showing it.
    #[must_use]
    pub fn start(what: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shared = Arc::new(Shared {
            what: what.to_owned(),
            started: Instant::now(),
            terminal,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let ticking = shared.clone();
        let ticker = std::thread::spawn(move || ticking.tick());
        Self {
            shared,
            ticker: Some(ticker),
        }
    }

    /// Says what is being done now.
    pub fn say(&self, now: &str) {
        let first = {
            let mut state = self.shared.lock();
            let first = state.now.is_empty();
            now.clone_into(&mut state.now);
            first
        };
        if first {
            SHOWN.fetch_add(1, Ordering::Relaxed);
            self.shared.show();
        }
    }

    /// Says how far the work is: `done` of `total` units.
    pub fn step(&self, done: usize, total: usize, unit: &str) {
        self.say(&format!("{done} of {total} {unit}"));
    }

    /// Ends with a line that says how long it took, unless it was over before there was anything to say.
    pub fn done(self) {
        if self.shared.lock().now.is_empty() {
            return;
        }
        self.say("done");
        self.shared.show();
        if self.shared.terminal {
            line("\n");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let shown = {
            let mut state = self.shared.lock();
            state.ended = true;
            !state.now.is_empty()
        };
        if shown {
            SHOWN.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.changed.notify_all();
        if let Some(ticker) = self.ticker.take() {
            // The ticker only prints; if it panicked there is nothing left to stop.
            let _ = ticker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        let every = if self.terminal {
            REFRESH_ON_TERMINAL
        } else {
            LINE_EVERY
        };
        let mut state = self.lock();
        while !state.ended {
            let (next, timeout) = self
                .changed
                .wait_timeout(state, every)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && !state.ended {
                drop(state);
                self.show();
                state = self.lock();
            }
        }
    }

    fn show(&self) {
        let now = self.lock().now.clone();
        if now.is_empty() {
            return;
        }
        let text = format!("{}: {now}, {}", self.what, short(self.started.elapsed()));
        let (before, after) = if self.terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        line(&format!("{before}{text}{after}"));
    }
}

/// A duration as people say it: `7s`, `2m05s`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// Writes to standard error; a reader that went away must not end the work.
fn line(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(short(Duration::from_secs(7)), "7s");
        assert_eq!(short(Duration::from_secs(125)), "2m05s");
    }
}

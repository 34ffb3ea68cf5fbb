//! What the demo looks like: colours and a line that is kept up to date on a terminal, plain lines elsewhere.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::rig::progress;

/// How often the line of what is under way is drawn anew.
const FRAME: Duration = Duration::from_millis(100);

/// Shown in turn in front of what is under way.
const FRAMES: [&str; 4] = ["·", "•", "●", "•"];

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    live: bool,
    colour: bool,
}

/// How a piece of text is to look.
#[derive(Clone, Copy, Debug)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Screen {
    /// Standard output as it is: a terminal or not, with colours unless `NO_COLOR` is set.
    #[must_use]
    pub fn stdout() -> Self {
        let live = std::io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            live,
            colour: live && !refused,
        }
    }

    /// A heading.
    pub fn heading(self, text: &str) {
        put(&format!("\n{}\n", self.paint(Style::Bold, text)));
    }

    /// A sentence of explanation.
    pub fn say(self, text: &str) {
        for line in text.lines() {
            put(&format!("  {}\n", self.paint(Style::Dim, line)));
        }
    }

    /// What a command printed, or what a person would type.
    pub fn block(self, text: &str) {
        for line in text.lines() {
            put(format!("      {line}").trim_end());
            put("\n");
        }
    }

    /// Shows `what` with the seconds that have gone by until `work` ends; says how long it took.
    pub async fn during<T>(self, what: &str, work: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
        let began = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(FRAME);
        for frame in FRAMES.iter().cycle() {
            tokio::select! {
                result = &mut work => {
                    self.clear();
                    return result.map(|done| (done, began.elapsed()));
                }
                // A build that shows its own progress needs the line.
                _ = ticks.tick() => if self.live && !progress::is_shown() {
                    put(&format!("\r\x1b[K  {frame} {what} {}", self.paint(Style::Dim, &seconds(began.elapsed()))));
                },
            }
        }
        unreachable!("a cycle of frames does not end")
    }

    /// Something came true.
    pub fn done(self, text: &str) {
        put(&format!("  {} {text}\n", self.paint(Style::Good, "✓")));
    }

    /// Something came true, after some time.
    pub fn done_after(self, text: &str, took: Duration) {
        self.done(&format!("{text}  {}", self.paint(Style::Dim, &seconds(took))));
    }

    /// A name and what came of it.
    pub fn entry(self, name: &str, text: &str) {
        self.done(&format!("{}\n    {text}", self.paint(Style::Bold, name)));
    }

    /// Something did not.
    pub fn failed(self, text: &str) {
        put(&format!("  {} {text}\n", self.paint(Style::Bad, "✗")));
    }

    fn clear(self) {
        if self.live {
            put("\r\x1b[K");
        }
    }

    fn paint(self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Good => 32,
            Style::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A duration in seconds, with one digit more where there is no whole one.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let digits = if duration < Duration::from_secs(1) { 2 } else { 1 };
    format!("{:.digits$} s", duration.as_secs_f64())
}

/// A reader that went away must not end the demo: its exit code still tells.
fn put(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_output_has_no_control_characters() {
        let screen = Screen {
            live: false,
            colour: false,
        };
        assert_eq!(screen.paint(Style::Good, "done"), "done");
    }

    #[test]
    fn durations_are_shown_to_two_digits() {
        assert_eq!(seconds(Duration::from_millis(2_345)), "2.3 s");
        assert_eq!(seconds(Duration::from_millis(45)), "0.04 s");
    }
}

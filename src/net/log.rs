//! Lines to the standard error about a server's trouble, for servers without hooks of their own.

use std::fmt::{Display, Write};
use std::time::{Duration, Instant};

use crate::engine::mutex::Mutex;
use crate::engine::reactor::Interest;
use crate::io::waits::is_ready;

/// How often a line of one kind is written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The longest line. A pipe that is ready takes as much (`PIPE_BUF`), so writing never blocks.
const LINE_MAX: usize = 4096;

/// Lines of one kind, of which some are left out when there are too many.
pub(super) struct Log(Mutex<State>);

struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Log {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { last: None, left_out: 0 }))
    }

    /// Writes a line, or counts it if another one was written just before. Returns whether it was
    /// written.
    ///
    /// It never waits: where the standard error is not ready, the line is left out.
    pub(super) fn line(&self, text: &dyn Display) -> bool {
        let now = Instant::now();
        let left_out = {
            let mut state = self.0.lock();
            if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
                state.left_out += 1;
                return false;
            }
            state.last = Some(now);
            std::mem::take(&mut state.left_out)
        };
        let line = match left_out {
            0 => text.to_string(),
            count => format!("{text} (and {count} more since the last line)"),
        };
        write_line(&line)
    }
}

/// Writes a line, unless that would have to wait.
pub(super) fn write_line(text: &str) -> bool {
    let stderr = rustix::stdio::stderr();
    if !is_ready(stderr, Interest::Write).unwrap_or(false) {
        return false;
    }
    let line = one_line(text);
    // It may be closed, which changes nothing here.
    rustix::io::write(stderr, line.as_bytes()).is_ok()
}

/// The text as one line of a log. A client's data may be in it, so control characters are escaped.
fn one_line(text: &str) -> String {
    let mut line = String::from("plainsong: ");
    for char in text.chars() {
        if line.len() + "\u{10ffff}".len() * 3 > LINE_MAX {
            break;
        }
        if char.is_control() {
            // Never fails for a string.
            let _ = write!(line, "{}", char.escape_default());
        } else {
            line.push(char);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_short() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "plainsong: a\\nb\\u{1b}[2J\n");
        let long = one_line(&"x".repeat(10_000));
        assert!(long.ends_with("x\n") && long.len() <= LINE_MAX);
    }

    #[test]
    fn lines_that_follow_at_once_are_counted() {
        let log = Log::new();
        log.line(&"the first");
        assert!(!log.line(&"the second"));
        assert_eq!(log.0.lock().left_out, 1);
    }
}

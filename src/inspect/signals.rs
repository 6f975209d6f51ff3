//! A dump whenever a signal comes.

use std::io::{self, Write};
use std::time::Duration;

use super::dump::dump;
use super::recorder::recorder;
use crate::engine::shared::start_thread;
use crate::signal::Signals;

/// The events of this time are written with a dump.
const RECORDED: Duration = Duration::from_secs(10);

/// Writes a [`dump`] to stderr whenever one of these signals comes, until the process ends.
/// `SIGQUIT` is what Go and Java use; a terminal sends it for Ctrl-\.
///
/// If the flight [`recorder`] is on, the events of the last ten seconds are written to a file. Its
/// path comes after the dump.
///
/// The signals lose their default action. A thread of its own waits for them, so this works while
/// all workers are busy or stuck, and needs no runtime.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that does not exist or cannot be
/// caught. Fails also when the process has no descriptor or thread left.
///
/// ```no_run
/// use plainsong::inspect;
/// use plainsong::signal::SIGQUIT;
///
/// fn main() -> std::io::Result<()> {
///     inspect::dump_on(&[SIGQUIT])?;
///     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
///         std::io::copy(&mut &conn, &mut &conn)
///     }))
/// }
/// ```
pub fn dump_on(signals: &[i32]) -> io::Result<()> {
    let mut signals = Signals::new(signals.iter().copied())?;
    let body = move || {
        while signals.wait().is_ok() {
            // If stderr is gone, there is nobody to tell.
            let _ = write!(io::stderr().lock(), "\n{}", dump());
            if recorder().is_on() {
                let _ = match recorder().save(RECORDED) {
                    Ok(path) => writeln!(io::stderr(), "events: {}", path.display()),
                    Err(error) => writeln!(io::stderr(), "cannot write the events: {error}"),
                };
            }
        }
    };
    start_thread("inspect", Box::new(body))
}

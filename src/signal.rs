//! Signals of the operating system: [`cancel_on`] stops a program, [`Signals`] waits for any of
//! them. Based on `signal-hook`.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::signal_name;

use crate::engine::error::explained;
use crate::engine::order::sort_by_key;
use crate::engine::shared::start_thread;
use crate::io::wait_readable;
use crate::task::CancellationToken;

pub use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};

/// The highest signal number, real-time signals included where they exist.
const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };
/// The real-time signals that the C library uses itself, and lets no program catch.
const RESERVED: Range<i32> = 32..if cfg!(target_env = "musl") { 35 } else { 34 };

/// Signals to wait for. From [`new`](Self::new) on they no longer have their default action.
///
/// Like the kernel, this counts signals of one number as one until they are received. If several
/// `Signals` catch the same number, each of them receives it. After the drop, the signals are
/// ignored.
///
/// ```no_run
/// use plainsong::signal::{SIGHUP, Signals};
///
/// # fn reload() {}
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let mut hangups = Signals::new([SIGHUP])?;
///     loop {
///         hangups.wait()?;
///         reload();
///     }
/// })
/// # }
/// ```
#[must_use = "the signals are caught, and nothing is done about them until `wait`"]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    pending: VecDeque<i32>,
}

impl Signals {
    /// Starts to catch these signals.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that does not exist or cannot be
    /// caught, such as `SIGKILL` or `SIGSEGV`. Fails also when the process has no descriptor left.
    pub fn new(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let signals: Vec<i32> = signals.into_iter().collect();
        check(&signals)?;
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
        Ok(Self { delivery, pending: VecDeque::new() })
    }

    /// Waits for the next signal and returns its number.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left to wait with.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; no signal is lost.
    pub fn wait(&mut self) -> io::Result<i32> {
        loop {
            self.pending.extend(self.delivery.pending());
            if let Some(signal) = self.pending.pop_front() {
                return Ok(signal);
            }
            wait_readable(self.delivery.get_read())?;
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// Fails if one of the signals cannot be caught.
fn check(signals: &[i32]) -> io::Result<()> {
    for &signal in signals {
        let why = if !(1..=LAST).contains(&signal) {
            "there is no such signal"
        } else if signal_hook::consts::FORBIDDEN.contains(&signal) {
            "it must end or stop the process"
        } else if RESERVED.contains(&signal) {
            "the C library uses it itself"
        } else {
            continue;
        };
        return Err(invalid(signal, why));
    }
    Ok(())
}

fn invalid(signal: i32, why: &str) -> io::Error {
    let text = format!("signal {signal} cannot be waited for: {why}");
    explained(io::ErrorKind::InvalidInput, text)
}

/// Waits for Ctrl-C (`SIGINT`), which then does not end the process.
///
/// # Errors
///
/// When the process has no descriptor left.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
pub fn ctrl_c() -> io::Result<()> {
    Signals::new([SIGINT])?.wait().map(drop)
}

/// Returns a token that the first of these signals cancels, so that the program can stop in order.
///
/// The second signal has its default action, which ends the process at once for most signals: a
/// program that is slow to stop, or hangs, still obeys another Ctrl-C. This needs no runtime, and
/// the token works on every worker and every thread. A thread of its own waits for the signal. It
/// exists until the process ends, and so the first signal is caught even if the token has been
/// dropped.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that does not exist, cannot be
/// caught, or has no default action known here (a real-time signal). Fails also when the process
/// has no descriptor or thread left.
///
/// ```no_run
/// use plainsong::net::{Server, TcpListener};
/// use plainsong::signal::{SIGINT, SIGTERM, cancel_on};
///
/// fn main() -> std::io::Result<()> {
///     plainsong::run(|| {
///         let stop = cancel_on(&[SIGINT, SIGTERM])?;
///         let listener = TcpListener::bind("127.0.0.1:4915")?;
///         Server::new(listener)
///             .stop_with(&stop)
///             .serve(|conn| std::io::copy(&mut &conn, &mut &conn))
///     })
/// }
/// ```
pub fn cancel_on(signals: &[i32]) -> io::Result<CancellationToken> {
    check(signals)?;
    // Before any of them is caught: once it has been, a signal is ignored for good.
    if let Some(&signal) = signals.iter().find(|&&signal| signal_name(signal).is_none()) {
        return Err(invalid(signal, "its default action is not known"));
    }
    // A signal with two pairs of actions would already be the second to the second pair.
    let mut signals = signals.to_vec();
    sort_by_key(&mut signals, |signal| *signal as u64);
    signals.dedup();
    let mut first = Signals::new(signals.iter().copied())?;
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in signals {
        // The actions run in this order: the first signal must not yet see what it sets.
        flag::register_conditional_default(signal, Arc::clone(&is_second))?;
        flag::register(signal, Arc::clone(&is_second))?;
    }
    let token = CancellationToken::for_outside();
    let (theirs, deaf) = (token.clone(), Arc::clone(&is_second));
    let wait = move || match first.wait() {
        Ok(_) => theirs.cancel(),
        Err(_) => deaf.store(true, Ordering::SeqCst),
    };
    start_thread("signals", Box::new(wait)).inspect_err(|_| {
        // No thread waits, so the signals get their default action back.
        is_second.store(true, Ordering::SeqCst);
    })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;

    use super::*;

    // The signals of this process: no other test of this binary may raise the same.

    #[test]
    fn the_first_of_the_signals_cancels_the_token() {
        let stop = cancel_on(&[SIGUSR2, SIGALRM]).unwrap();
        assert!(!stop.is_cancelled());
        raise(SIGALRM).unwrap();
        stop.cancelled();
        crate::run(|| assert_eq!(stop.run_until_cancelled(crate::yield_now), None));
    }

    #[test]
    fn signals_that_cannot_be_caught_or_passed_on_are_refused() {
        for signal in [9, 11, 0, -1, 1000, LAST] {
            let error = cancel_on(&[SIGUSR1, signal]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{signal}: {error}");
        }
    }
}

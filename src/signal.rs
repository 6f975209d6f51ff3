//! Signals of the operating system, as something to wait for; on `signal-hook`.
//!
//! ```no_run
//! use plainsong::signal::{SIGINT, SIGTERM, Signals};
//!
//! # fn main() -> std::io::Result<()> {
//! plainsong::run(|| {
//!     let signal = Signals::new([SIGINT, SIGTERM])?.wait()?;
//!     println!("stopping, after signal {signal}");
//!     Ok(())
//! })
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::io::wait_readable;

pub use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH,
};

/// The highest number of a signal: with the real-time signals, where there are any.
const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };

/// Signals that are waited for, from [`new`](Self::new) on, in place of what they would do.
///
/// Several of one kind that come before they are looked at count as one, as the system has it. Several
/// `Signals` get a signal each. After the drop, the signals are ignored.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    pending: VecDeque<i32>,
}

impl Signals {
    /// Starts to catch these signals.
    ///
    /// # Errors
    ///
    /// For a signal that does not exist or cannot be caught, such as `SIGKILL` or `SIGSEGV`, and when
    /// no descriptor is left.
    pub fn new(signals: impl IntoIterator<Item = i32>) -> io::Result<Self> {
        let signals: Vec<i32> = signals.into_iter().collect();
        for &signal in &signals {
            let why = if !(1..=LAST).contains(&signal) {
                "there is no such signal"
            } else if signal_hook::consts::FORBIDDEN.contains(&signal) {
                "it must end or stop the process"
            } else {
                continue;
            };
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("signal {signal} cannot be waited for: {why}"),
            ));
        }
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
        Ok(Self { delivery, pending: VecDeque::new() })
    }

    /// Waits for the next signal and returns its number.
    ///
    /// # Errors
    ///
    /// When no descriptor is left to wait with.
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

/// Waits for Ctrl-C (`SIGINT`), which then does not end the process.
///
/// # Errors
///
/// When no descriptor is left.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
pub fn ctrl_c() -> io::Result<()> {
    Signals::new([SIGINT])?.wait().map(drop)
}

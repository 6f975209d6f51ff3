//! [`std::io`](mod@::std::io): the standard streams and pipes park the coroutine that waits.

use ::std::os::fd::AsFd;

pub use ::plainsong::io::{
    PipeReader, PipeWriter, Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, pipe, stderr,
    stdin, stdout,
};
pub use ::std::io::*;

/// Whether a stream is a terminal: std's `IsTerminal`, which only std can implement.
pub trait IsTerminal {
    /// Whether this is a terminal.
    fn is_terminal(&self) -> bool;
}

impl<T: AsFd> IsTerminal for T {
    fn is_terminal(&self) -> bool {
        ::std::io::IsTerminal::is_terminal(&self.as_fd())
    }
}

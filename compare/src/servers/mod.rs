//! The same echo server, written once in each style and one file each, to be read side by side.
//!
//! All of them answer byte for byte, turn Nagle's algorithm off, copy through a buffer of the same size, and
//! report a connection's failure without ending.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::go;

pub mod callback;
pub mod epoll;
pub mod may;
pub mod plainsong;
pub mod pool;
pub mod sequential;
pub mod smol;
pub mod threads;
pub mod tokio_current;
pub mod tokio_multi;

/// The buffer that every server copies through: as large as that of `std::io::copy`.
pub const BUFFER_BYTES: usize = 8 * 1024;

/// A way to write the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// A hand-written epoll loop: the floor that the others are held against.
    Epoll,
    /// One client at a time.
    Sequential,
    /// A thread for each connection.
    Threads,
    /// Ten threads.
    Pool,
    /// A callback event loop on `polling`.
    Callback,
    /// Stackful coroutines on plainsong.
    Plainsong,
    /// async/await on tokio's current-thread runtime.
    TokioCurrent,
    /// async/await on tokio's multi-thread runtime.
    TokioMulti,
    /// async/await on smol.
    Smol,
    /// Stackful coroutines on `may`.
    May,
    /// Goroutines.
    Go,
}

impl Style {
    /// Every style, the floor first.
    pub const ALL: [Style; 11] = [
        Style::Epoll,
        Style::Sequential,
        Style::Threads,
        Style::Pool,
        Style::Callback,
        Style::Plainsong,
        Style::TokioCurrent,
        Style::TokioMulti,
        Style::Smol,
        Style::May,
        Style::Go,
    ];

    /// The style that all others are held against.
    pub const FLOOR: Style = Style::Epoll;

    /// What tables and plots call it.
    pub fn label(self) -> &'static str {
        match self {
            Style::Epoll => "epoll loop (floor)",
            Style::Sequential => "sequential",
            Style::Threads => "thread per connection",
            Style::Pool => "pool of 10 threads",
            Style::Callback => "callbacks on polling",
            Style::Plainsong => "plainsong",
            Style::TokioCurrent => "tokio current-thread",
            Style::TokioMulti => "tokio multi-thread",
            Style::Smol => "smol",
            Style::May => "may",
            Style::Go => "Go",
        }
    }

    /// How many connections it can serve at a time, where the style itself sets a limit.
    pub fn capacity(self) -> Option<usize> {
        match self {
            Style::Sequential => Some(1),
            Style::Pool => Some(pool::THREADS),
            _ => None,
        }
    }

    /// Its source, as it stands in its file.
    pub fn source(self) -> &'static str {
        match self {
            Style::Epoll => include_str!("epoll.rs"),
            Style::Sequential => include_str!("sequential.rs"),
            Style::Threads => include_str!("threads.rs"),
            Style::Pool => include_str!("pool.rs"),
            Style::Callback => include_str!("callback.rs"),
            Style::Plainsong => include_str!("plainsong.rs"),
            Style::TokioCurrent => include_str!("tokio_current.rs"),
            Style::TokioMulti => include_str!("tokio_multi.rs"),
            Style::Smol => include_str!("smol.rs"),
            Style::May => include_str!("may.rs"),
            Style::Go => go::ECHO_SOURCE,
        }
    }

    /// What whatever starts a connection's handler asks of what the handler owns.
    pub fn asks(self) -> &'static str {
        match self {
            Style::Epoll | Style::Sequential | Style::Go => "nothing",
            Style::Callback | Style::Plainsong => "'static",
            Style::Threads
            | Style::Pool
            | Style::TokioCurrent
            | Style::TokioMulti
            | Style::Smol
            | Style::May => "Send + 'static",
        }
    }

    /// Serves echo at `address` until the process ends. Go has a program of its own: see [`go`].
    pub fn serve(self, address: SocketAddr) -> io::Result<()> {
        match self {
            Style::Epoll => epoll::serve(address),
            Style::Sequential => sequential::serve(address),
            Style::Threads => threads::serve(address),
            Style::Pool => pool::serve(address),
            Style::Callback => callback::serve(address),
            Style::Plainsong => plainsong::serve(address),
            Style::TokioCurrent => tokio_current::serve(address),
            Style::TokioMulti => tokio_multi::serve(address),
            Style::Smol => smol::serve(address),
            Style::May => may::serve(address),
            Style::Go => go::serve(address),
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Reports that one connection failed. Servers do so on standard error, which the harness shows.
fn report(error: &io::Error) {
    use std::io::Write;
    // Nothing is left to be told when standard error itself is closed.
    let _ = writeln!(io::stderr(), "connection failed: {error}");
}

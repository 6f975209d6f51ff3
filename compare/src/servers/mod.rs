//! The same echo server in each style, one file each, to be read side by side. And HTTP servers in
//! the styles that have a library for it.
//!
//! All echo servers turn Nagle's algorithm off, copy through a buffer of the same size, and report
//! a failed connection without ending.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::go;
use crate::load::Job;

pub mod callback;
pub mod epoll;
pub mod http_hyper;
pub mod http_hyper_plainsong;
pub mod http_may;
pub mod http_plainsong;
pub mod may;
pub mod plainsong;
pub mod plainsong_guest;
pub mod plainsong_watched;
pub mod pool;
pub mod sequential;
pub mod smol;
pub mod threads;
pub mod tokio_current;
pub mod tokio_multi;

/// The size of every server's buffer: that of `plainsong::io::copy`, which cannot be changed.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// A way to write the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// A hand-written epoll loop: the floor, and the reference for echo.
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
    /// Goroutines; for HTTP, `net/http`.
    Go,
    /// HTTP by hyper, on tokio's current-thread runtime.
    Hyper,
    /// HTTP by `may_minihttp`.
    MayMinihttp,
    /// plainsong's echo server on a thread that also runs tokio.
    PlainsongGuest,
    /// HTTP by hyper, on plainsong's sockets.
    HyperPlainsong,
    /// plainsong's echo server with the flight recorder on.
    PlainsongRecorded,
    /// plainsong's echo server with metrics on.
    PlainsongMeasured,
    /// plainsong's echo server with the watchdog on.
    PlainsongWatched,
}

impl Style {
    /// Every style of the echo server, the floor first.
    pub const ECHO: [Style; 11] = [
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

    /// Every style of the HTTP server, the reference first.
    pub const HTTP: [Style; 4] = [Style::Hyper, Style::Plainsong, Style::MayMinihttp, Style::Go];

    /// The styles that do a job. The first is the reference for the others.
    pub fn of(job: Job) -> &'static [Style] {
        match job {
            Job::Echo => &Style::ECHO,
            Job::Plaintext | Job::Json => &Style::HTTP,
        }
    }

    /// Further styles that do it, for the comparisons that name them.
    pub fn more_of(job: Job) -> &'static [Style] {
        match job {
            Job::Echo => &[
                Style::PlainsongGuest,
                Style::PlainsongRecorded,
                Style::PlainsongMeasured,
                Style::PlainsongWatched,
            ],
            Job::Plaintext | Job::Json => &[Style::HyperPlainsong],
        }
    }

    /// Its name in tables and plots.
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
            Style::Hyper => "hyper",
            Style::MayMinihttp => "may_minihttp",
            Style::PlainsongGuest => "plainsong beside tokio",
            Style::HyperPlainsong => "hyper on plainsong",
            Style::PlainsongRecorded => "plainsong, recorder on",
            Style::PlainsongMeasured => "plainsong, metrics on",
            Style::PlainsongWatched => "plainsong, watchdog on",
        }
    }

    /// How many connections the style can serve at a time, if it has a limit. More threads have
    /// worked, but they slowed down the whole machine.
    pub fn capacity(self) -> Option<usize> {
        match self {
            Style::Sequential => Some(1),
            Style::Pool => Some(pool::THREADS),
            Style::Threads => Some(2_000),
            _ => None,
        }
    }

    /// Whether it is plainsong, alone or with other crates.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Style::Plainsong
                | Style::PlainsongGuest
                | Style::HyperPlainsong
                | Style::PlainsongRecorded
                | Style::PlainsongMeasured
                | Style::PlainsongWatched
        )
    }

    /// Whether it closes a connection when an HTTP request asks for it. `may_minihttp` ignores
    /// that.
    pub fn closes_on_request(self) -> bool {
        self != Style::MayMinihttp
    }

    /// The text of its file.
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
            Style::Hyper => include_str!("http_hyper.rs"),
            Style::MayMinihttp => include_str!("http_may.rs"),
            Style::PlainsongGuest => include_str!("plainsong_guest.rs"),
            Style::HyperPlainsong => include_str!("http_hyper_plainsong.rs"),
            Style::PlainsongRecorded | Style::PlainsongMeasured | Style::PlainsongWatched => {
                include_str!("plainsong_watched.rs")
            }
        }
    }

    /// The bounds on a connection's handler.
    pub fn asks(self) -> &'static str {
        match self {
            Style::Epoll | Style::Sequential | Style::Go => "nothing",
            Style::Callback
            | Style::Plainsong
            | Style::Hyper
            | Style::PlainsongGuest
            | Style::HyperPlainsong
            | Style::PlainsongRecorded
            | Style::PlainsongMeasured
            | Style::PlainsongWatched => "'static",
            Style::Threads
            | Style::Pool
            | Style::TokioCurrent
            | Style::TokioMulti
            | Style::Smol
            | Style::May
            | Style::MayMinihttp => "Send + 'static",
        }
    }

    /// Serves at `address` until the process ends. Go has separate programs: see [`go`].
    ///
    /// # Errors
    ///
    /// When it cannot listen, or the style does not do this job.
    pub fn serve(self, job: Job, address: SocketAddr) -> io::Result<()> {
        match (job, self) {
            (Job::Echo, Style::Epoll) => epoll::serve(address),
            (Job::Echo, Style::Sequential) => sequential::serve(address),
            (Job::Echo, Style::Threads) => threads::serve(address),
            (Job::Echo, Style::Pool) => pool::serve(address),
            (Job::Echo, Style::Callback) => callback::serve(address),
            (Job::Echo, Style::Plainsong) => plainsong::serve(address),
            (Job::Echo, Style::TokioCurrent) => tokio_current::serve(address),
            (Job::Echo, Style::TokioMulti) => tokio_multi::serve(address),
            (Job::Echo, Style::Smol) => smol::serve(address),
            (Job::Echo, Style::May) => may::serve(address),
            (Job::Echo, Style::Go) => go::serve("echo", address),
            (Job::Echo, Style::PlainsongGuest) => plainsong_guest::serve(address),
            (Job::Echo, Style::PlainsongRecorded) => plainsong_watched::recorded(address),
            (Job::Echo, Style::PlainsongMeasured) => plainsong_watched::measured(address),
            (Job::Echo, Style::PlainsongWatched) => plainsong_watched::watched(address),
            (_, Style::Plainsong) => http_plainsong::serve(address),
            (_, Style::Hyper) => http_hyper::serve(address),
            (_, Style::MayMinihttp) => http_may::serve(address),
            (_, Style::HyperPlainsong) => http_hyper_plainsong::serve(address),
            (_, Style::Go) => go::serve("http", address),
            _ => Err(io::Error::other(format!("{self} does not do {job:?}"))),
        }
    }
}

/// The object that every HTTP server serialises for each answer.
#[derive(Serialize)]
struct Message {
    message: &'static str,
}

const MESSAGE: Message = Message { message: crate::load::TEXT };

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Reports a failed connection on standard error, which the harness shows. A client that
/// disconnects early is not a failure of the server.
fn report(error: &io::Error) {
    use std::io::Write;
    if !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        // There is no other place to report a closed standard error.
        let _ = writeln!(io::stderr(), "connection failed: {error}");
    }
}

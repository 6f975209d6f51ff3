//! The reports of a program: how they are fetched, and their data.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

/// How long a report may take. A program with very many coroutines rests between two reports.
const PATIENCE: Duration = Duration::from_secs(60);
/// The version of the data's shape that is understood here.
const VERSION: u32 = 1;

#[derive(Deserialize)]
pub(crate) struct Report {
    version: u32,
    pub(crate) program: Option<String>,
    pub(crate) uptime_ms: u64,
    pub(crate) dump: Dump,
    pub(crate) metrics: Metrics,
    pub(crate) turns: Option<Vec<Turns>>,
}

#[derive(Deserialize)]
pub(crate) struct Dump {
    pub(crate) process: u32,
    pub(crate) workers: Vec<Worker>,
}

#[derive(Deserialize)]
pub(crate) struct Worker {
    pub(crate) run: u64,
    pub(crate) worker: usize,
    pub(crate) answer: String,
    pub(crate) unlisted: usize,
    pub(crate) coroutines: Vec<Coroutine>,
}

#[derive(Deserialize)]
pub(crate) struct Coroutine {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) parent: Option<u64>,
    pub(crate) spawned: Place,
    pub(crate) state: String,
    pub(crate) waits_for: Option<WaitsFor>,
    pub(crate) cancelled: bool,
    pub(crate) stack: Stack,
    pub(crate) backtrace: Vec<Frame>,
}

#[derive(Deserialize)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: u32,
}

#[derive(Deserialize)]
pub(crate) struct WaitsFor {
    pub(crate) text: String,
    pub(crate) waited_ms: u64,
}

#[derive(Deserialize)]
pub(crate) struct Stack {
    pub(crate) most: u64,
    pub(crate) size: u64,
}

#[derive(Deserialize)]
pub(crate) struct Frame {
    pub(crate) object: Option<String>,
    pub(crate) offset: u64,
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

#[derive(Deserialize)]
pub(crate) struct Metrics {
    pub(crate) workers: Vec<Counts>,
    pub(crate) blocking: Blocking,
}

#[derive(Deserialize)]
pub(crate) struct Blocking {
    pub(crate) threads: u64,
    pub(crate) idle: u64,
    pub(crate) queued: u64,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct Counts {
    pub(crate) spawned: u64,
    pub(crate) live: u64,
    pub(crate) ready: u64,
    pub(crate) parked: BTreeMap<String, u64>,
    pub(crate) pending: u64,
    pub(crate) turns: u64,
    pub(crate) steals: u64,
    pub(crate) remote_wakes: u64,
    pub(crate) polls: u64,
    pub(crate) events: u64,
    pub(crate) stack_bytes_resident: u64,
    pub(crate) delays: Histogram,
    pub(crate) turn_times: Histogram,
    pub(crate) poll_times: Histogram,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    pub(crate) sum_ns: u64,
}

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Turns {
    pub(crate) coroutine: u64,
    pub(crate) count: u64,
    pub(crate) total_ns: u64,
    pub(crate) longest_ns: u64,
}

/// Asks the program that serves on this socket.
pub(crate) fn fetch(socket: &Path) -> io::Result<Report> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    stream.read_to_end(&mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let report: Report = serde_json::from_slice(&line)
        .map_err(|error| io::Error::other(format!("this is no report of plainsong: {error}")))?;
    if report.version != VERSION {
        let text = format!(
            "the program reports version {}, and this `top` reads version {VERSION}: use that of \
             the program's plainsong",
            report.version
        );
        return Err(io::Error::other(text));
    }
    Ok(report)
}

/// Says what an error means for the user.
pub(crate) fn explain(socket: &Path, error: &io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "nothing serves on {socket}: does the program run, and has it called inspect::serve with this path?"
            )
        }
        io::ErrorKind::ConnectionRefused => {
            format!("the program that served on {socket} has ended")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            format!("the program that serves on {socket} has ended in the middle of a report")
        }
        io::ErrorKind::PermissionDenied => {
            format!("only the user of the program may look into it, through {socket}")
        }
        io::ErrorKind::WouldBlock => format!("no report on {socket} for {} s", PATIENCE.as_secs()),
        _ => format!("no report on {socket}: {error}"),
    }
}

impl Counts {
    /// The numbers of all workers together.
    pub(crate) fn sum(metrics: &Metrics) -> Counts {
        let mut sum = Counts::default();
        for one in &metrics.workers {
            sum.spawned += one.spawned;
            sum.live += one.live;
            sum.ready += one.ready;
            sum.pending += one.pending;
            sum.turns += one.turns;
            sum.steals += one.steals;
            sum.remote_wakes += one.remote_wakes;
            sum.polls += one.polls;
            sum.events += one.events;
            sum.stack_bytes_resident += one.stack_bytes_resident;
            for (wait, count) in &one.parked {
                *sum.parked.entry(wait.clone()).or_default() += count;
            }
            sum.delays.add(&one.delays);
            sum.turn_times.add(&one.turn_times);
            sum.poll_times.add(&one.poll_times);
        }
        sum
    }
}

impl Histogram {
    /// The upper bound of the first bucket is this power of two, in nanoseconds.
    const FIRST: u32 = 7;

    fn add(&mut self, other: &Histogram) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, count)| *sum += count);
        self.sum_ns += other.sum_ns;
    }

    /// The durations that were measured since an earlier one.
    pub(crate) fn since(&self, before: &Histogram) -> Histogram {
        let before_at = |at: usize| before.buckets.get(at).copied().unwrap_or(0);
        let buckets = self.buckets.iter().enumerate();
        Histogram {
            buckets: buckets.map(|(at, count)| count.saturating_sub(before_at(at))).collect(),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }

    /// A duration in nanoseconds that no more than this part of the measured ones exceed. `None` if
    /// nothing was measured.
    pub(crate) fn quantile(&self, part: f64) -> Option<u64> {
        let wanted = (self.buckets.iter().sum::<u64>() as f64 * part).ceil();
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        });
        bucket.map(|at| 1 << (Histogram::FIRST + at as u32))
    }
}

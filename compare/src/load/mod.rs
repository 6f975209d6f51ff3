//! The load: clients that send a message, wait for the reply, check it, and record the time.
//!
//! They share one process with a hand-written epoll loop, so that the load costs less than any
//! server.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::process::{Usage, usage};
use clients::Clients;

pub use job::{JSON, Job, TEXT};

mod clients;
mod closed;
mod job;
mod open;
mod slow;

/// How many clients there are, and how they behave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// How many clients.
    pub connections: usize,
    /// The bytes of a message of echo.
    pub size: usize,
    /// How many requests a client sends at a time.
    pub pipeline: usize,
    /// How many requests a client sends over one connection before it opens the next; none for all.
    #[serde(default)]
    pub requests_each: Option<usize>,
    /// How long a client of the closed loop waits before it sends again.
    pub think: Duration,
    /// How many further clients are connected and idle.
    pub idle: usize,
    /// How many further clients send all the time and hardly read.
    pub slow: usize,
}

impl Shape {
    /// Clients that send one message of `size` bytes at a time, and no others.
    pub fn plain(connections: usize, size: usize) -> Shape {
        let think = Duration::ZERO;
        Shape { connections, size, pipeline: 1, requests_each: None, think, idle: 0, slow: 0 }
    }

    /// Whether no number is zero that must not be.
    pub fn is_sound(&self) -> bool {
        let Shape { connections, size, pipeline, requests_each, .. } = *self;
        connections > 0 && size > 0 && pipeline > 0 && requests_each != Some(0)
    }

    /// The number of all connections.
    pub fn all(&self) -> usize {
        self.connections + self.idle + self.slow
    }

    /// A description in words.
    pub fn describe(&self, job: Job) -> String {
        let mut words = vec![match self.connections {
            1 => "1 connection".to_owned(),
            n => format!("{n} connections"),
        }];
        if job == Job::Echo {
            words.push(format!("{} bytes", self.size));
        }
        if self.pipeline > 1 {
            words.push(format!("pipelined by {}", self.pipeline));
        }
        match self.requests_each {
            None => {}
            Some(1) => words.push("1 request each".to_owned()),
            Some(n) => words.push(format!("{n} requests each")),
        }
        if !self.think.is_zero() {
            words.push(format!("thinking for {:?}", self.think));
        }
        if self.idle > 0 {
            words.push(format!("{} idle ones beside", self.idle));
        }
        if self.slow > 0 {
            words.push(format!("{} slow readers beside", self.slow));
        }
        words.join(", ")
    }
}

/// The plan for a load generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The server's address.
    pub address: SocketAddr,
    /// The server's process, whose use of resources is measured.
    pub server: u32,
    /// The server's job.
    pub job: Job,
    /// How many clients, and how they behave.
    pub shape: Shape,
    /// How long the load runs before the measurement.
    pub warm_up: Duration,
    /// How long each kind of load is measured.
    pub window: Duration,
    /// Requests a second of the open loop; none without an open loop.
    pub rate: Option<f64>,
    /// Whether to report the end of the warm-up, and to wait for a `go` before the measurement.
    pub gate: bool,
}

/// The results of a load generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Each client sends its next message when the last one is complete.
    pub closed: Measured,
    /// Messages are due at fixed times, whether or not the server keeps up.
    pub open: Option<Measured>,
}

/// The results of one kind of load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Complete messages.
    pub requests: u64,
    /// Messages that were due and not complete at the end.
    pub unanswered: u64,
    /// The time from the first message to the last reply.
    pub elapsed: Duration,
    /// The messages' latencies, in nanoseconds.
    pub latency: Percentiles,
    /// The resources that the server used between the first message and the last reply, and the
    /// memory that it had at the end.
    pub server: Usage,
}

/// Points of a distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of all values are no larger.
    pub p50: u64,
    /// 99 in 100 values are no larger.
    pub p99: u64,
    /// 999 in 1000 values are no larger.
    pub p999: u64,
    /// The largest value.
    pub max: u64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        Percentiles {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Measured {
    /// Requests a second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The server's processor time for a request, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.server.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    /// How often the server was switched out for a request, waiting or preempted.
    pub fn switches(&self) -> f64 {
        let switches = self.server.voluntary_switches + self.server.involuntary_switches;
        switches as f64 / self.requests as f64
    }
}

/// Carries out `plan` and prints the results as one line of JSON: the main function of a load
/// generator.
///
/// # Errors
///
/// When the server cannot be reached, answers wrongly, or stops answering.
pub fn run(plan: &Plan) -> Result<()> {
    let mut clients = Clients::connect(plan)?;
    let (shape, window) = (&plan.shape, plan.window);
    closed::drive(&mut clients, shape, plan.warm_up)?;
    if plan.gate {
        wait_for_go()?;
    }
    let closed = measure(plan.server, || closed::drive(&mut clients, shape, window))?;
    let open = match plan.rate {
        None => None,
        Some(rate) => {
            open::drive(&mut clients, shape.pipeline, rate, plan.warm_up)?;
            let drive = || open::drive(&mut clients, shape.pipeline, rate, window);
            Some(measure(plan.server, drive)?)
        }
    };
    print_line(&serde_json::to_string(&Seen { closed, open })?)
}

fn wait_for_go() -> Result<()> {
    print_line("warm")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    ensure!(line.trim() == "go", "expected go, got {line:?}");
    Ok(())
}

fn print_line(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush().context("standard output is closed")
}

/// The measurements of the clients, without the server's use of resources.
struct Driven {
    latency: Histogram<u64>,
    unanswered: u64,
    /// The requests in a message.
    pipeline: u64,
}

impl Driven {
    fn new(pipeline: usize) -> Result<Driven> {
        // Up to a minute, to three digits.
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Driven { latency, unanswered: 0, pipeline: pipeline as u64 })
    }

    fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record_n(nanos, self.pipeline);
    }
}

/// Drives load from idle to idle, so that every request that the server worked for is counted.
fn measure(server: u32, drive: impl FnOnce() -> Result<Driven>) -> Result<Measured> {
    let before = usage(server)?;
    let began = Instant::now();
    let driven = drive()?;
    let elapsed = began.elapsed();
    let after = usage(server)?;
    let requests = driven.latency.len() - driven.unanswered;
    ensure!(requests > 0, "not one message came back");
    Ok(Measured {
        requests,
        unanswered: driven.unanswered,
        elapsed,
        latency: Percentiles::of(&driven.latency),
        server: Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            // The counts of a thread disappear when it ends.
            voluntary_switches: after.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: after
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            resident: after.resident,
        },
    })
}

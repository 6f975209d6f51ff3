//! The load: clients that send a message, wait for what comes back, check it, and note how long it took.
//!
//! They all live in one process of their own, in a hand-written epoll loop, so that the load costs less than
//! any server that it is put on.

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
    /// How many bytes a message has; HTTP has its own.
    pub size: usize,
    /// How many requests a client sends at a time.
    pub pipeline: usize,
    /// How many requests a client sends over one connection before it opens the next; none for all of
    /// them.
    #[serde(default)]
    pub requests_each: Option<usize>,
    /// How long a client of the closed loop waits before it sends again.
    pub think: Duration,
    /// How many more clients are connected and silent.
    pub idle: usize,
    /// How many more clients ask all the time and hardly read.
    pub slow: usize,
}

impl Shape {
    /// Clients that send one message of `size` bytes at a time, and nobody else.
    pub fn plain(connections: usize, size: usize) -> Shape {
        let think = Duration::ZERO;
        Shape { connections, size, pipeline: 1, requests_each: None, think, idle: 0, slow: 0 }
    }

    /// Whether there is anything to do, and that much of everything.
    pub fn is_sound(&self) -> bool {
        let Shape { connections, size, pipeline, requests_each, .. } = *self;
        connections > 0 && size > 0 && pipeline > 0 && requests_each != Some(0)
    }

    /// All connections together.
    pub fn all(&self) -> usize {
        self.connections + self.idle + self.slow
    }

    /// What is special about it, in words.
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

/// What a load generator is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The server's process, whose use of the machine is measured.
    pub server: u32,
    /// What the server is there for.
    pub job: Job,
    /// How many clients, and how they behave.
    pub shape: Shape,
    /// For how long the load runs before anything is measured.
    pub warm_up: Duration,
    /// For how long each kind of load is measured.
    pub window: Duration,
    /// Requests a second of the open loop; none for no open loop.
    pub rate: Option<f64>,
    /// Whether to say that the clients are warm, and to begin measuring only when told to.
    pub gate: bool,
}

/// What a load generator has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Each client sends its next message when the last one has come back.
    pub closed: Measured,
    /// Messages are due at fixed times, whether or not the server keeps up.
    pub open: Option<Measured>,
}

/// What was measured under one kind of load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Messages that came back.
    pub requests: u64,
    /// Messages that were due and had not come back when the time was up.
    pub unanswered: u64,
    /// How long it took from the first message to the last echo.
    pub elapsed: Duration,
    /// How long messages took, in nanoseconds.
    pub latency: Percentiles,
    /// What the server used between the first message and the last echo; its memory is the memory it then had.
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

/// Carries out `plan` and prints what was seen as one line of JSON: the main function of a load generator.
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
    ensure!(line.trim() == "go", "told {line:?} instead of go");
    Ok(())
}

fn print_line(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush().context("nobody listens")
}

/// What one drive saw, before it is set beside what the server used.
struct Driven {
    latency: Histogram<u64>,
    unanswered: u64,
    /// How many requests a message is.
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

/// Drives load from silence to silence, so that every request the server worked for is counted.
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
            // A thread that ends takes its counts with it.
            voluntary_switches: after.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: after
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            resident: after.resident,
        },
    })
}

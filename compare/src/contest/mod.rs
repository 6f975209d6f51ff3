//! Servers in every style, under the same load, round after round: `echo`, `http`, `short` with
//! short connections, `scale` with more and more connections, `guest` with async crates and
//! coroutines in one program, and `watched` with what looks into a running program.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::load::{Job, Shape};
use crate::machine::LoadAverage;
use crate::servers::Style;
use crate::{saved, terminal};
use comparison::{Comparison, Load, OpenLoop};

pub use calls::Calls;
pub use comparison::TURN;
pub use results::{Arm, Part, Results};
pub use trial::free_address;

mod calls;
mod comparison;
mod results;
pub mod table;
mod trial;
mod wrk;

const CONNECTIONS: [usize; 4] = [1, 64, 1_000, 10_000];
const SMALL: usize = 128;
const GUEST_CONNECTIONS: [usize; 3] = [1, 64, 1_000];
const LARGE: usize = 16 * 1024;
const PIPELINE: usize = 16;
const SHORT_CONNECTIONS: usize = 64;
const SHORT_REQUESTS: [usize; 2] = [1, 10];
const SCALE_CONNECTIONS: [usize; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];

/// With more clients, counting system calls takes long and shows nothing new. The same is true of
/// the open loop.
const COUNTED_MAX: usize = 2_000;

/// The name of the saved results of `echo`.
pub const ECHO: &str = "echo";
/// The name of the saved results of `http`.
pub const HTTP: &str = "http";
/// The name of the saved results of `short`.
pub const SHORT: &str = "short";
/// The name of the saved results of `scale`.
pub const SCALE: &str = "scale";

/// The name of the saved results of `guest`.
pub const GUEST: &str = "guest";

/// The name of the saved results of `watched`.
pub const WATCHED: &str = "watched";

/// The options of `echo`.
#[derive(Clone, Debug, Args)]
pub struct EchoOptions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    clients: ClientOptions,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = CONNECTIONS)]
    connections: Vec<usize>,
    /// Message sizes in bytes
    #[arg(long, value_delimiter = ',', value_name = "BYTES,..", default_values_t = [SMALL, LARGE])]
    size: Vec<usize>,
    /// Messages that a client sends at a time
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1])]
    pipeline: Vec<usize>,
}

/// The options of `http`.
#[derive(Clone, Debug, Args)]
pub struct HttpOptions {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    clients: ClientOptions,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = CONNECTIONS)]
    connections: Vec<usize>,
    /// Pages
    #[arg(long, value_delimiter = ',', value_name = "PAGE,..",
        default_values_t = [Job::Plaintext, Job::Json], value_parser = page)]
    page: Vec<Job>,
    /// Requests that a client sends at a time
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1, PIPELINE])]
    pipeline: Vec<usize>,
}

/// The options of `short`.
#[derive(Clone, Debug, Args)]
pub struct ShortOptions {
    #[command(flatten)]
    common: Common,
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [SHORT_CONNECTIONS])]
    connections: Vec<usize>,
    /// Requests on each connection
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = SHORT_REQUESTS)]
    requests: Vec<usize>,
    /// Pages
    #[arg(long, value_delimiter = ',', value_name = "JOB,..",
        default_values_t = [Job::Echo, Job::Plaintext])]
    job: Vec<Job>,
}

/// The options of `scale`.
#[derive(Clone, Debug, Args)]
pub struct ScaleOptions {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = SCALE_CONNECTIONS)]
    connections: Vec<usize>,
}

/// The options of `guest`.
#[derive(Clone, Debug, Args)]
pub struct GuestOptions {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = GUEST_CONNECTIONS)]
    connections: Vec<usize>,
}

/// The options of `watched`.
#[derive(Clone, Debug, Args)]
pub struct WatchedOptions {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [64])]
    connections: Vec<usize>,
}

fn page(text: &str) -> Result<Job, String> {
    match text {
        "plaintext" => Ok(Job::Plaintext),
        "json" => Ok(Job::Json),
        _ => Err("there are plaintext and json".to_owned()),
    }
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Few and short rounds: a first look, too noisy to quote
    #[arg(long)]
    quick: bool,
    /// Rounds; every style takes its turn in each [default: 15, quick: 2]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each load is measured, in milliseconds [default: 1000, quick: 60]
    #[arg(long, value_name = "MS")]
    window: Option<u64>,
    /// These styles only; the reference always takes part
    #[arg(long, value_delimiter = ',', value_name = "STYLE,..")]
    only: Vec<Style>,
    /// Save the results for `report`
    #[arg(long)]
    save: bool,
}

/// The behaviour of the clients.
#[derive(Clone, Debug, Args)]
struct ClientOptions {
    /// Pause of a client in the closed loop before it sends again, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0)]
    think: u64,
    /// Further clients that are connected and idle
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,
    /// Further clients that send all the time and hardly read
    #[arg(long, value_name = "N", default_value_t = 0)]
    slow: usize,
    /// Requests a second of the open loop [default: half of what the first style can do]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// No open loop
    #[arg(long)]
    closed: bool,
}

impl ClientOptions {
    fn open_loop(&self) -> OpenLoop {
        match self.rate {
            _ if self.closed => OpenLoop::Not,
            Some(rate) => OpenLoop::PerSecond(rate),
            None => OpenLoop::AsTheFirstCan,
        }
    }

    fn load(&self, job: Job, connections: usize, size: usize, pipeline: usize) -> Load {
        let think = Duration::from_micros(self.think);
        let ClientOptions { idle, slow, .. } = *self;
        let shape = Shape { pipeline, think, idle, slow, ..Shape::plain(connections, size) };
        Load { job, shape, open_loop: self.open_loop() }
    }
}

impl Common {
    /// The options of `all`: the default number of rounds, and windows that fit into its time.
    fn for_report(quick: bool, window: u64) -> Common {
        let window = (!quick).then_some(window);
        Common { quick, rounds: None, window, only: Vec::new(), save: true }
    }

    fn comparison(&self, loads: Vec<Load>) -> Comparison {
        Comparison {
            only: self.only.clone(),
            reference: None,
            loads,
            rounds: self.rounds.unwrap_or(if self.quick { 2 } else { 15 }),
            window: Duration::from_millis(self.window.unwrap_or(if self.quick {
                60
            } else {
                1000
            })),
            counted: if self.quick { 64..65 } else { 1..COUNTED_MAX },
            prints_parts: true,
            asks_wrk: false,
        }
    }

    /// Runs a comparison, prints its tables, and saves the results if asked to.
    fn run(&self, name: &str, comparison: Comparison) -> Result<()> {
        let (rounds, window) = (comparison.rounds, comparison.window);
        let prints_parts = comparison.prints_parts;
        let run = || {
            comparison.run(|part| if prints_parts { table::print(part, rounds) } else { Ok(()) })
        };
        let (parts, load) = LoadAverage::around(run)?;
        let results = Results { rounds, window, parts, load };
        if !prints_parts {
            table::print_scale(&results)?;
        }
        terminal::note(&LoadAverage::sentence(load))?;
        if self.save { saved::save(name, self.quick, results) } else { Ok(()) }
    }
}

/// Compares echo servers, and prints a table after each load.
///
/// # Errors
///
/// When our server or the reference fails, or the machine is too small for the options.
pub fn echo(options: &EchoOptions) -> Result<()> {
    let mut loads = Vec::new();
    for &size in &options.size {
        for &pipeline in &options.pipeline {
            for &connections in &options.connections {
                loads.push(options.clients.load(Job::Echo, connections, size, pipeline));
            }
        }
    }
    options.common.run(ECHO, options.common.comparison(loads))
}

/// Compares HTTP servers, and prints a table after each load.
///
/// # Errors
///
/// As [`echo`].
pub fn http(options: &HttpOptions) -> Result<()> {
    let mut loads = Vec::new();
    for &job in &options.page {
        for &pipeline in &options.pipeline {
            for &connections in &options.connections {
                loads.push(options.clients.load(job, connections, SMALL, pipeline));
            }
        }
    }
    let comparison = Comparison { asks_wrk: true, ..options.common.comparison(loads) };
    options.common.run(HTTP, comparison)
}

/// Compares servers whose clients open a connection for one request or a few, and prints a table
/// after each load.
///
/// # Errors
///
/// As [`echo`].
pub fn short(options: &ShortOptions) -> Result<()> {
    let mut loads = Vec::new();
    for &job in &options.job {
        for &connections in &options.connections {
            for &requests in &options.requests {
                let requests_each = Some(requests);
                let shape = Shape { requests_each, ..Shape::plain(connections, SMALL) };
                loads.push(Load::closed(job, shape));
            }
        }
    }
    options.common.run(SHORT, options.common.comparison(loads))
}

/// Compares echo servers with more and more connections, and prints one table.
///
/// # Errors
///
/// As [`echo`].
pub fn scale(options: &ScaleOptions) -> Result<()> {
    let load = |&connections: &usize| Load::closed(Job::Echo, Shape::plain(connections, SMALL));
    let loads = options.connections.iter().map(load).collect();
    let comparison =
        Comparison { counted: 0..0, prints_parts: false, ..options.common.comparison(loads) };
    options.common.run(SCALE, comparison)
}

/// Measures the part `echo` of the report.
///
/// # Errors
///
/// As [`echo`].
pub fn echo_for_report(quick: bool) -> Result<()> {
    let common = Common::for_report(quick, 120);
    let counts = if quick { &CONNECTIONS[..3] } else { &CONNECTIONS };
    let small = |&n: &usize| Load { open_loop: open_loop_of(n), ..closed_echo(n, SMALL) };
    let mut loads: Vec<Load> = counts.iter().map(small).collect();
    let mut mixed = closed_echo(64, SMALL);
    (mixed.shape.idle, mixed.shape.slow) = (1_000, 16);
    loads.push(mixed);
    let counts = if quick { &CONNECTIONS[1..2] } else { &CONNECTIONS };
    loads.extend(counts.iter().map(|&n| closed_echo(n, LARGE)));
    common.run(ECHO, common.comparison(loads))
}

fn open_loop_of(connections: usize) -> OpenLoop {
    if connections > COUNTED_MAX { OpenLoop::Not } else { OpenLoop::AsTheFirstCan }
}

fn closed_echo(connections: usize, size: usize) -> Load {
    Load::closed(Job::Echo, Shape::plain(connections, size))
}

/// Measures the part `http` of the report.
///
/// # Errors
///
/// As [`echo`].
pub fn http_for_report(quick: bool) -> Result<()> {
    let common = Common::for_report(quick, 200);
    let counts = if quick { &CONNECTIONS[1..2] } else { &CONNECTIONS };
    let load = |job, n, pipeline| Load {
        open_loop: open_loop_of(n),
        ..Load::closed(job, Shape { pipeline, ..Shape::plain(n, SMALL) })
    };
    let mut loads: Vec<Load> = counts.iter().map(|&n| load(Job::Plaintext, n, 1)).collect();
    loads.push(load(Job::Plaintext, 64, PIPELINE));
    loads.push(load(Job::Json, 64, 1));
    let comparison = Comparison { asks_wrk: true, ..common.comparison(loads) };
    common.run(HTTP, comparison)
}

/// Measures the part `short` of the report.
///
/// # Errors
///
/// As [`echo`].
pub fn short_for_report(quick: bool) -> Result<()> {
    short(&ShortOptions {
        common: Common::for_report(quick, 200),
        connections: vec![SHORT_CONNECTIONS],
        requests: SHORT_REQUESTS.to_vec(),
        job: vec![Job::Echo, Job::Plaintext],
    })
}

/// Measures the part `scale` of the report. It is a curve, so a few rounds are enough.
///
/// # Errors
///
/// As [`echo`].
pub fn scale_for_report(quick: bool) -> Result<()> {
    let common =
        Common { rounds: Some(if quick { 1 } else { 3 }), ..Common::for_report(quick, 150) };
    let connections: &[usize] = if quick { &[1, 100, 1_000] } else { &[1, 10, 100, 1_000, 10_000] };
    scale(&ScaleOptions { common, connections: connections.to_vec() })
}

/// Compares coroutines alone with coroutines beside tokio, and hyper on sockets of plainsong with
/// hyper on tokio. Prints a table after each load.
///
/// # Errors
///
/// As [`echo`].
pub fn guest(options: &GuestOptions) -> Result<()> {
    let mut loads = Vec::new();
    for job in [Job::Echo, Job::Plaintext] {
        let load = |&connections: &usize| Load::closed(job, Shape::plain(connections, SMALL));
        loads.extend(options.connections.iter().map(load));
    }
    let mut comparison = options.common.comparison(loads);
    if comparison.only.is_empty() {
        comparison.only = vec![Style::Plainsong, Style::PlainsongGuest, Style::HyperPlainsong];
    }
    options.common.run(GUEST, comparison)
}

/// Measures the part `guest` of the report.
///
/// # Errors
///
/// As [`echo`].
pub fn guest_for_report(quick: bool) -> Result<()> {
    let common = Common::for_report(quick, 200);
    let counts = if quick { &GUEST_CONNECTIONS[1..2] } else { &GUEST_CONNECTIONS };
    guest(&GuestOptions { common, connections: counts.to_vec() })
}

/// Compares the echo server of plainsong with itself: the flight recorder, the metrics or the
/// watchdog on, each against everything off. Prints a table after each load.
///
/// # Errors
///
/// As [`echo`].
pub fn watched(options: &WatchedOptions) -> Result<()> {
    let load = |&connections: &usize| Load::closed(Job::Echo, Shape::plain(connections, SMALL));
    let loads = options.connections.iter().map(load).collect();
    let reference = Some(Style::Plainsong);
    let mut comparison = Comparison { reference, ..options.common.comparison(loads) };
    if comparison.only.is_empty() {
        comparison.only =
            vec![Style::PlainsongRecorded, Style::PlainsongMeasured, Style::PlainsongWatched];
    }
    options.common.run(WATCHED, comparison)
}

/// Measures the part `watched` of the report.
///
/// # Errors
///
/// As [`echo`].
pub fn watched_for_report(quick: bool) -> Result<()> {
    // Longer than the second after which the metrics are written anew.
    let common = Common::for_report(quick, 1_200);
    watched(&WatchedOptions { common, connections: vec![64] })
}

//! `echo`: the same server in every style, under the same load, round after round.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::go;
use crate::load::{Measured, Seen};
use crate::process::raise_file_limit;
use crate::servers::Style;
use crate::stats::Spread;
use crate::terminal;
pub use calls::Calls;
use trial::Trial;

mod calls;
mod table;
mod trial;

/// Descriptors that a process needs beside its connections.
const SPARE_FILES: u64 = 100;
/// The share of the floor's closed-loop throughput at which the open loop runs.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// What to compare, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Few and short rounds: a first look, too noisy to quote
    #[arg(long)]
    pub quick: bool,
    /// How often every style takes its turn [default: 15, quick: 3]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How long each load is measured, in milliseconds [default: 1000, quick: 250]
    #[arg(long, value_name = "MS")]
    pub window: Option<u64>,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1, 64, 1000])]
    pub connections: Vec<usize>,
    /// Message size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub size: usize,
    /// Requests a second of the open loop [default: half of what the floor can do]
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// These styles only; the floor always takes part
    #[arg(long, value_delimiter = ',', value_name = "STYLE,..")]
    pub only: Vec<Style>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 15 })
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.window.unwrap_or(if self.quick { 250 } else { 1000 }))
    }

    fn styles(&self) -> Vec<Style> {
        let wanted = |style: &Style| {
            *style == Style::FLOOR || self.only.is_empty() || self.only.contains(style)
        };
        Style::ALL.into_iter().filter(wanted).collect()
    }
}

/// Everything that one `echo` has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// Bytes in a message.
    pub size: usize,
    /// How often every style took its turn.
    pub rounds: usize,
    /// How long each load was measured.
    pub window: Duration,
    /// One part for each number of connections.
    pub parts: Vec<Part>,
}

/// What was measured with one number of connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// How many connections.
    pub connections: usize,
    /// Requests a second of the open loop.
    pub rate: f64,
    /// What each style did.
    pub arms: Vec<Arm>,
}

impl Part {
    /// An arm's ratio to the floor in the same round.
    pub fn ratio(&self, arm: &Arm, of: impl Fn(&Arm) -> Vec<f64>) -> Option<Spread> {
        let floor = self.arms.iter().find(|arm| arm.style == Style::FLOOR)?;
        Spread::of_ratios(&of(arm), &of(floor))
    }
}

/// What one style did with one number of connections.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arm {
    /// The style.
    pub style: Style,
    /// One entry for each round.
    pub seen: Vec<Seen>,
    /// System calls a request, where the machine lets us count them.
    pub calls: Calls,
}

impl Arm {
    /// A quantity of the closed loop, round by round.
    pub fn closed(&self, of: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.seen.iter().map(|seen| of(&seen.closed)).collect()
    }

    /// A quantity of the open loop, round by round.
    pub fn open(&self, of: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.seen.iter().filter_map(|seen| seen.open.as_ref()).map(of).collect()
    }
}

/// Compares, and prints a table for each number of connections as it is done.
///
/// # Errors
///
/// When a server fails, or the machine is too small for what is asked.
pub fn run(options: &Options) -> Result<Results> {
    check(options)?;
    let mut styles = options.styles();
    prepare_go(&mut styles)?;
    let results = Results {
        size: options.size,
        rounds: options.rounds(),
        window: options.window(),
        parts: Vec::new(),
    };
    let turns = options
        .connections
        .iter()
        .map(|&connections| styles.iter().filter(|style| can_serve(**style, connections)).count());
    let bar = terminal::progress(turns.sum::<usize>() * (results.rounds + 1));
    options.connections.iter().try_fold(results, |mut results, &connections| {
        let part = compare(options, &styles, connections, &bar)?;
        bar.suspend(|| table::print(&part, results.size, results.rounds))?;
        results.parts.push(part);
        Ok(results)
    })
}

fn check(options: &Options) -> Result<()> {
    ensure!(options.rounds() > 0, "--rounds must be at least 1");
    ensure!(options.size > 0, "--size must be at least 1");
    let files = raise_file_limit();
    let most = options.connections.iter().copied().max().unwrap_or(0) as u64;
    ensure!(
        most + SPARE_FILES <= files,
        "{most} connections need more than the {files} open files that a process may have here"
    );
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores >= 2, "the server and the load need a core each");
    Ok(())
}

/// Builds Go's server, or leaves Go out where it is not installed.
fn prepare_go(styles: &mut Vec<Style>) -> Result<()> {
    if styles.contains(&Style::Go) {
        if go::is_here() {
            go::build("echo")?;
        } else {
            terminal::note("go is not installed here: its arm is left out")?;
            styles.retain(|style| *style != Style::Go);
        }
    }
    Ok(())
}

fn can_serve(style: Style, connections: usize) -> bool {
    style.capacity().is_none_or(|most| connections <= most)
}

/// Every style takes its turn in every round, so that a slow minute of the machine hits all of them.
fn compare(
    options: &Options,
    styles: &[Style],
    connections: usize,
    bar: &ProgressBar,
) -> Result<Part> {
    let mut trial = Trial {
        connections,
        size: options.size,
        warm_up: options.window() / 5,
        window: options.window(),
        rate: None,
    };
    bar.set_message(format!("{connections} connections: finding the open loop's rate"));
    let rate = match options.rate {
        Some(rate) => rate,
        None => trial.run(Style::FLOOR)?.closed.per_second() * OPEN_LOOP_SHARE,
    };
    trial.rate = Some(rate);
    let able = styles.iter().copied().filter(|style| can_serve(*style, connections));
    let mut arms: Vec<Arm> =
        able.map(|style| Arm { style, seen: Vec::new(), calls: Calls::NotCounted }).collect();
    for round in 1..=options.rounds() {
        for arm in &mut arms {
            bar.set_message(format!("{connections} connections, round {round}: {}", arm.style));
            arm.seen.push(trial.run(arm.style)?);
            bar.inc(1);
        }
    }
    for arm in &mut arms {
        bar.set_message(format!("{connections} connections: counting calls of {}", arm.style));
        arm.calls = trial.count_calls(arm.style)?;
        bar.inc(1);
    }
    Ok(Part { connections, rate, arms })
}

//! A comparison: all styles under the same loads, round after round.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use super::calls::Calls;
use super::results::{Arm, Part};
use super::trial::Trial;
use super::wrk;
use crate::go;
use crate::load::{Job, Shape};
use crate::process::raise_file_limit;
use crate::servers::Style;
use crate::terminal;

/// Descriptors that a process needs besides its connections.
const SPARE_FILES: u64 = 100;
/// The rate of the open loop, as a share of what the first style can do in the closed loop.
/// Requests must queue now and then, and slower styles must keep up.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// How much longer a load runs for each client: enough for a few requests.
pub const TURN: Duration = Duration::from_micros(60);

/// The rate of the open loop.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpenLoop {
    Not,
    /// A share of the throughput of the first style.
    AsTheFirstCan,
    PerSecond(f64),
}

/// A load on the servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) job: Job,
    pub(super) shape: Shape,
    pub(super) open_loop: OpenLoop,
}

impl Load {
    pub(super) fn closed(job: Job, shape: Shape) -> Load {
        Load { job, shape, open_loop: OpenLoop::Not }
    }
}

/// The loads, and how they are measured for every style.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// Empty for all usual styles.
    pub(super) only: Vec<Style>,
    /// The style to which the others are compared; none for the usual one of each load.
    pub(super) reference: Option<Style>,
    pub(super) loads: Vec<Load>,
    pub(super) rounds: usize,
    pub(super) window: Duration,
    /// System calls are counted for numbers of clients in this range.
    pub(super) counted: Range<usize>,
    /// Whether to print a table for each part.
    pub(super) prints_parts: bool,
    pub(super) asks_wrk: bool,
}

impl Comparison {
    /// Measures all styles. `on_part` gets the results of each load.
    pub(super) fn run(mut self, on_part: impl Fn(&Part) -> Result<()>) -> Result<Vec<Part>> {
        self.check()?;
        let has_go = self.prepare_go()?;
        self.asks_wrk = self.asks_wrk && self.find_wrk()?;
        let turns = |load: &Load| self.styles(load, has_go).count() * self.turns(load);
        let bar = terminal::progress(self.loads.iter().map(turns).sum());
        let mut parts = Vec::with_capacity(self.loads.len());
        for load in &self.loads {
            let styles: Vec<Style> = self.styles(load, has_go).collect();
            let part = self.compare(load, &styles, &bar)?;
            bar.suspend(|| on_part(&part))?;
            parts.push(part);
        }
        bar.finish_and_clear();
        Ok(parts)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let shapes = || self.loads.iter().map(|load| load.shape);
        let are_sound = shapes().all(|shape| shape.is_sound());
        ensure!(are_sound, "--connections, --size, --pipeline and --requests must be at least 1");
        let files = raise_file_limit();
        let most = shapes().map(|shape| shape.all()).max().unwrap_or(0) as u64;
        ensure!(
            most + SPARE_FILES <= files,
            "{most} connections need more than the {files} open files that a process may have here"
        );
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores >= 2, "the server and the load need a core each");
        Ok(())
    }

    /// The styles that can do this load, the reference first.
    fn styles(&self, load: &Load, has_go: bool) -> impl Iterator<Item = Style> {
        let first = self.reference.unwrap_or(Style::of(load.job)[0]);
        let clients = load.shape.all();
        let takes_part = move |style: &Style| {
            let is_usual = self.only.is_empty() && Style::of(load.job).contains(style);
            (*style == first || is_usual || self.only.contains(style))
                && style.capacity().is_none_or(|most| clients <= most)
                && (load.shape.requests_each.is_none() || style.closes_on_request())
                && (has_go || *style != Style::Go)
        };
        let all = Style::of(load.job).iter().chain(Style::more_of(load.job));
        all.copied().filter(takes_part)
    }

    /// Builds Go's servers. Returns false where Go is not installed.
    fn prepare_go(&self) -> Result<bool> {
        if !self.only.is_empty() && !self.only.contains(&Style::Go) {
            return Ok(false);
        }
        if !go::is_here() {
            terminal::note("go is not installed here: its arm is left out")?;
            return Ok(false);
        }
        for program in ["echo", "http"] {
            go::build(program)?;
        }
        Ok(true)
    }

    fn find_wrk(&self) -> Result<bool> {
        if !wrk::is_here() {
            terminal::note("wrk is not installed here: there is no second opinion")?;
        }
        Ok(wrk::is_here())
    }

    /// How often `wrk` measures this load: only for one load, because it cannot do the others and
    /// takes whole seconds.
    fn rounds_of_wrk(&self, load: &Load) -> usize {
        let is_plain = load.shape == Shape::plain(64, load.shape.size);
        if self.asks_wrk && is_plain { self.rounds.div_ceil(5) } else { 0 }
    }

    fn counts_calls(&self, load: &Load) -> bool {
        self.counted.contains(&load.shape.connections)
    }

    fn turns(&self, load: &Load) -> usize {
        self.rounds + usize::from(self.counts_calls(load)) + self.rounds_of_wrk(load)
    }

    /// Every style takes its turn in every round, so a slow minute of the machine affects all of
    /// them.
    fn compare(&self, load: &Load, styles: &[Style], bar: &ProgressBar) -> Result<Part> {
        let Load { job, shape, .. } = *load;
        // Every client takes turns during the warm-up and during the measurement.
        let turns = TURN * shape.connections as u32;
        let (warm_up, window) = (self.window / 5 + turns, self.window + turns);
        let trial = Trial { job, shape, warm_up, window, rate: None };
        let trial = Trial { rate: rate(load, &trial, bar)?, ..trial };
        let arms = styles.iter().copied().map(Arm::new).collect();
        let mut part = Part { job, shape, rate: trial.rate, arms };
        let title = part.title();
        let mut each = |what: &str, turn: &dyn Fn(&mut Arm) -> Result<()>| {
            for arm in &mut part.arms {
                bar.set_message(format!("{title}, {what}: {}", arm.style));
                arm.try_to(turn)?;
                bar.inc(1);
            }
            anyhow::Ok(())
        };
        for round in 1..=self.rounds {
            each(&format!("round {round}"), &|arm| {
                arm.seen.push(trial.run(arm.style)?);
                Ok(())
            })?;
        }
        for _ in 0..self.rounds_of_wrk(load) {
            each("wrk", &|arm| {
                arm.wrk.push(trial.ask_wrk(arm.style)?);
                Ok(())
            })?;
        }
        if self.counts_calls(load) {
            each("system calls", &|arm| {
                (arm.calls, arm.idle_calls) = trial.count_calls(arm.style)?;
                Ok(())
            })?;
        }
        Ok(part)
    }
}

impl Arm {
    fn new(style: Style) -> Arm {
        let (seen, wrk) = (Vec::new(), Vec::new());
        Arm { style, seen, calls: Calls::NotCounted, idle_calls: None, wrk, failure: None }
    }

    /// Takes a turn. A peer that fails drops out of the comparison and its failure is reported. A
    /// failure of ours or of a reference ends the comparison.
    fn try_to(&mut self, turn: &dyn Fn(&mut Arm) -> Result<()>) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        let result = turn(self);
        if self.style.is_ours() || matches!(self.style, Style::Epoll | Style::Hyper) {
            return result;
        }
        self.failure = result.err().map(|error| format!("{error:#}"));
        Ok(())
    }
}

fn rate(load: &Load, trial: &Trial, bar: &ProgressBar) -> Result<Option<f64>> {
    Ok(match load.open_loop {
        OpenLoop::Not => None,
        OpenLoop::PerSecond(rate) => Some(rate),
        OpenLoop::AsTheFirstCan => {
            let first = Style::of(load.job)[0];
            bar.set_message(format!("what {first} can do"));
            Some(trial.run(first)?.closed.per_second() * OPEN_LOOP_SHARE)
        }
    })
}

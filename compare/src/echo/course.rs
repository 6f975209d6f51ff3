//! A course: all styles, under the same load, round after round.

use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use super::calls::Calls;
use super::results::{Arm, Part};
use super::trial::Trial;
use crate::go;
use crate::process::raise_file_limit;
use crate::servers::Style;
use crate::terminal;

/// Descriptors that a process needs beside its connections.
const SPARE_FILES: u64 = 100;
/// The share of the floor's closed-loop throughput at which the open loop runs: enough to queue now and then,
/// not so much that a slower style cannot keep up.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// At which rate the open loop runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpenLoop {
    Not,
    /// At a rate that the floor's throughput gives.
    AsTheFloorCan,
    PerSecond(f64),
}

/// What every style is put through.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) styles: Vec<Style>,
    pub(super) connections: Vec<usize>,
    pub(super) size: usize,
    pub(super) rounds: usize,
    pub(super) window: Duration,
    pub(super) open_loop: OpenLoop,
    pub(super) counts_calls: bool,
}

impl Course {
    /// Puts the styles through; `on_part` is shown what each number of connections gave.
    pub(super) fn run(mut self, on_part: impl Fn(&Part) -> Result<()>) -> Result<Vec<Part>> {
        self.check()?;
        self.prepare_go()?;
        let bar = terminal::progress(self.turns());
        let mut parts = Vec::with_capacity(self.connections.len());
        for &connections in &self.connections {
            let part = self.compare(connections, &bar)?;
            bar.suspend(|| on_part(&part))?;
            parts.push(part);
        }
        bar.finish_and_clear();
        Ok(parts)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!(self.size > 0, "--size must be at least 1");
        let files = raise_file_limit();
        let most = self.connections.iter().copied().max().unwrap_or(0) as u64;
        ensure!(
            most + SPARE_FILES <= files,
            "{most} connections need more than the {files} open files that a process may have here"
        );
        let cores = std::thread::available_parallelism()?.get();
        ensure!(cores >= 2, "the server and the load need a core each");
        Ok(())
    }

    /// Builds Go's server, or leaves Go out where it is not installed.
    fn prepare_go(&mut self) -> Result<()> {
        if self.styles.contains(&Style::Go) {
            if go::is_here() {
                go::build("echo")?;
            } else {
                terminal::note("go is not installed here: its arm is left out")?;
                self.styles.retain(|style| *style != Style::Go);
            }
        }
        Ok(())
    }

    /// The styles that can serve so many connections.
    fn able(&self, connections: usize) -> impl Iterator<Item = Style> {
        let can = move |style: &Style| style.capacity().is_none_or(|most| connections <= most);
        self.styles.iter().copied().filter(can)
    }

    fn turns(&self) -> usize {
        let turns = self.rounds + usize::from(self.counts_calls);
        self.connections.iter().map(|&connections| self.able(connections).count() * turns).sum()
    }

    /// Every style takes its turn in every round, so that a slow minute of the machine hits all of them.
    fn compare(&self, connections: usize, bar: &ProgressBar) -> Result<Part> {
        let trial = Trial {
            connections,
            size: self.size,
            warm_up: self.window / 5,
            window: self.window,
            rate: None,
        };
        let trial = Trial { rate: self.rate(&trial, bar)?, ..trial };
        let arm =
            |style| Arm { style, seen: Vec::new(), calls: Calls::NotCounted, idle_calls: None };
        let mut arms: Vec<Arm> = self.able(connections).map(arm).collect();
        for round in 1..=self.rounds {
            for arm in &mut arms {
                bar.set_message(format!("{connections} connections, round {round}: {}", arm.style));
                arm.seen.push(trial.run(arm.style)?);
                bar.inc(1);
            }
        }
        if self.counts_calls {
            for arm in &mut arms {
                bar.set_message(format!("{connections} connections, calls of {}", arm.style));
                (arm.calls, arm.idle_calls) = trial.count_calls(arm.style)?;
                bar.inc(1);
            }
        }
        Ok(Part { connections, rate: trial.rate, arms })
    }

    fn rate(&self, trial: &Trial, bar: &ProgressBar) -> Result<Option<f64>> {
        Ok(match self.open_loop {
            OpenLoop::Not => None,
            OpenLoop::PerSecond(rate) => Some(rate),
            OpenLoop::AsTheFloorCan => {
                bar.set_message(format!(
                    "{} connections: what the floor can do",
                    trial.connections
                ));
                Some(trial.run(Style::FLOOR)?.closed.per_second() * OPEN_LOOP_SHARE)
            }
        })
    }
}

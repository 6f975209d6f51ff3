//! Results, round by round.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::Calls;
use crate::load::{Job, Measured, Seen, Shape};
use crate::machine::LoadAverage;
use crate::servers::Style;
use crate::stats::Spread;

/// The results of one command.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// How many rounds there were.
    pub rounds: usize,
    /// How long each load was measured in a round.
    pub window: Duration,
    /// One part for each load.
    pub parts: Vec<Part>,
    /// The machine's load average; older results have none.
    #[serde(default)]
    pub load: Option<LoadAverage>,
}

/// The results of one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// The servers' job.
    pub job: Job,
    /// Their clients.
    pub shape: Shape,
    /// Requests a second of the open loop; none without an open loop.
    pub rate: Option<f64>,
    /// The results of each style.
    pub arms: Vec<Arm>,
}

impl Part {
    /// A title in words.
    pub fn title(&self) -> String {
        let job = match self.job {
            Job::Echo => "echo",
            Job::Plaintext => "HTTP plaintext",
            Job::Json => "HTTP JSON",
        };
        format!("{job}, {}", self.shape.describe(self.job))
    }

    /// The results of one style.
    pub fn arm(&self, style: Style) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.style == style)
    }

    /// The results of the reference, which is the first.
    pub fn reference(&self) -> Option<&Arm> {
        self.arms.first()
    }

    /// An arm's ratio to the reference in the same round.
    pub fn ratio(&self, arm: &Arm, of: impl Fn(&Arm) -> Vec<f64>) -> Option<Spread> {
        Spread::of_ratios(&of(arm), &of(self.reference()?))
    }
}

/// The results of one style under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arm {
    /// The style.
    pub style: Style,
    /// One entry for each round.
    pub seen: Vec<Seen>,
    /// System calls a request, where the machine can count them.
    pub calls: Calls,
    /// System calls a second while all clients are connected and idle.
    pub idle_calls: Option<f64>,
    /// Requests a second that `wrk` measured, where it was used.
    pub wrk: Vec<f64>,
    /// Why it dropped out of the comparison.
    pub failure: Option<String>,
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

    /// Processor time of a request of the closed loop, in microseconds.
    pub fn cpu_us(&self) -> Vec<f64> {
        self.closed(Measured::cpu_us)
    }
}

//! What was measured, round by round.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::Calls;
use crate::load::{Job, Measured, Seen, Shape};
use crate::machine::LoadAverage;
use crate::servers::Style;
use crate::stats::Spread;

/// Everything that one command has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// How often every style took its turn.
    pub rounds: usize,
    /// How long each load was measured.
    pub window: Duration,
    /// One part for each load.
    pub parts: Vec<Part>,
    /// What else the machine did; older results do not say.
    #[serde(default)]
    pub load: Option<LoadAverage>,
}

/// What was measured under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// What the servers were there for.
    pub job: Job,
    /// Who their clients were.
    pub shape: Shape,
    /// Requests a second of the open loop; none for no open loop.
    pub rate: Option<f64>,
    /// What each style did.
    pub arms: Vec<Arm>,
}

impl Part {
    /// What it is about, in words.
    pub fn title(&self) -> String {
        let job = match self.job {
            Job::Echo => "echo",
            Job::Plaintext => "HTTP plaintext",
            Job::Json => "HTTP JSON",
        };
        format!("{job}, {}", self.shape.describe(self.job))
    }

    /// What one style did.
    pub fn arm(&self, style: Style) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.style == style)
    }

    /// What the style did that all are held against.
    pub fn reference(&self) -> Option<&Arm> {
        self.arm(Style::of(self.job)[0])
    }

    /// An arm's ratio to the reference in the same round.
    pub fn ratio(&self, arm: &Arm, of: impl Fn(&Arm) -> Vec<f64>) -> Option<Spread> {
        Spread::of_ratios(&of(arm), &of(self.reference()?))
    }
}

/// What one style did under one load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arm {
    /// The style.
    pub style: Style,
    /// One entry for each round.
    pub seen: Vec<Seen>,
    /// System calls a request, where the machine lets us count them.
    pub calls: Calls,
    /// System calls a second while all clients are connected and silent.
    pub idle_calls: Option<f64>,
    /// Requests a second that `wrk` saw, where it was asked.
    pub wrk: Vec<f64>,
    /// Why it did not go on.
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

//! What was measured, round by round.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::Calls;
use crate::load::{Measured, Seen};
use crate::servers::Style;
use crate::stats::Spread;

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
    /// Requests a second of the open loop; none for no open loop.
    pub rate: Option<f64>,
    /// What each style did.
    pub arms: Vec<Arm>,
}

impl Part {
    /// What one style did.
    pub fn arm(&self, style: Style) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.style == style)
    }

    /// An arm's ratio to the floor in the same round.
    pub fn ratio(&self, arm: &Arm, of: impl Fn(&Arm) -> Vec<f64>) -> Option<Spread> {
        let floor = self.arm(Style::FLOOR)?;
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
    /// System calls a second while all clients are connected and silent.
    pub idle_calls: Option<f64>,
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

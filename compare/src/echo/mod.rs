//! `echo`: the same server in every style, under the same load, round after round; and `scale`, the same with
//! more and more connections.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::servers::Style;
use course::{Course, OpenLoop};

pub use calls::Calls;
pub use results::{Arm, Part, Results};
pub use trial::free_address;

mod calls;
mod course;
mod results;
pub mod table;
mod trial;

/// What `echo` compares, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1, 64, 1000])]
    connections: Vec<usize>,
    /// Message size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: usize,
    /// Requests a second of the open loop [default: half of what the floor can do]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
}

/// What `scale` compares, and for how long.
#[derive(Clone, Debug, Args)]
pub struct ScaleOptions {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,..",
        default_values_t = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000]
    )]
    connections: Vec<usize>,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Few and short rounds: a first look, too noisy to quote
    #[arg(long)]
    quick: bool,
    /// How often every style takes its turn [default: 15, quick: 3]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each load is measured, in milliseconds [default: 1000, quick: 250]
    #[arg(long, value_name = "MS")]
    window: Option<u64>,
    /// These styles only; the floor always takes part
    #[arg(long, value_delimiter = ',', value_name = "STYLE,..")]
    only: Vec<Style>,
}

impl Common {
    /// A closed loop of small messages; the rest is the caller's.
    fn course(&self, connections: &[usize]) -> Course {
        let wanted = |style: &Style| {
            *style == Style::FLOOR || self.only.is_empty() || self.only.contains(style)
        };
        let window = self.window.unwrap_or(if self.quick { 250 } else { 1000 });
        Course {
            styles: Style::ALL.into_iter().filter(wanted).collect(),
            connections: connections.to_vec(),
            size: 128,
            rounds: self.rounds.unwrap_or(if self.quick { 3 } else { 15 }),
            window: Duration::from_millis(window),
            open_loop: OpenLoop::Not,
            counts_calls: false,
        }
    }
}

/// Compares, and prints a table for each number of connections as it is done.
///
/// # Errors
///
/// When a server fails, or the machine is too small for what is asked.
pub fn run(options: &Options) -> Result<Results> {
    let course = Course {
        size: options.size,
        open_loop: options.rate.map_or(OpenLoop::AsTheFloorCan, OpenLoop::PerSecond),
        counts_calls: true,
        ..options.common.course(&options.connections)
    };
    let (size, rounds, window) = (course.size, course.rounds, course.window);
    let parts = course.run(|part| table::print(part, size, rounds))?;
    Ok(Results { size, rounds, window, parts })
}

/// Compares with more and more connections, and prints one table.
///
/// # Errors
///
/// As [`run`].
pub fn scale(options: &ScaleOptions) -> Result<Results> {
    let course = options.common.course(&options.connections);
    let (size, rounds, window) = (course.size, course.rounds, course.window);
    let parts = course.run(|_| Ok(()))?;
    let results = Results { size, rounds, window, parts };
    table::print_scale(&results)?;
    Ok(results)
}

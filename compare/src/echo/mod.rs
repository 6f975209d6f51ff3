//! `echo`: the same server in every style, under the same load, round after round; and `scale`, the same with
//! more and more connections.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::saved;
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

const CONNECTIONS: [usize; 3] = [1, 64, 1_000];
const SIZE: usize = 128;
const SCALE_CONNECTIONS: [usize; 9] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];
const SCALE_QUICKLY: [usize; 3] = [1, 100, 3_000];

/// The name under which `echo` keeps its results.
pub const ECHO: &str = "echo";
/// The name under which `scale` keeps its results.
pub const SCALE: &str = "scale";

/// What `echo` compares, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Connection counts
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = CONNECTIONS)]
    connections: Vec<usize>,
    /// Message size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = SIZE)]
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
        default_values_t = SCALE_CONNECTIONS
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
    /// How long each load is measured, in milliseconds [default: 1000, quick: 100]
    #[arg(long, value_name = "MS")]
    window: Option<u64>,
    /// These styles only; the floor always takes part
    #[arg(long, value_delimiter = ',', value_name = "STYLE,..")]
    only: Vec<Style>,
    /// Keep the results for `report`
    #[arg(long)]
    save: bool,
}

impl Options {
    /// Everything as it comes, kept for the report.
    pub fn for_report(quick: bool) -> Options {
        let connections = CONNECTIONS.to_vec();
        Options { common: Common::for_report(quick), connections, size: SIZE, rate: None }
    }
}

impl ScaleOptions {
    /// Everything as it comes, kept for the report.
    pub fn for_report(quick: bool) -> ScaleOptions {
        let connections = if quick { SCALE_QUICKLY.to_vec() } else { SCALE_CONNECTIONS.to_vec() };
        ScaleOptions { common: Common::for_report(quick), connections }
    }
}

impl Common {
    fn for_report(quick: bool) -> Common {
        Common { quick, rounds: None, window: None, only: Vec::new(), save: true }
    }

    fn keep(&self, name: &str, results: &Results) -> Result<()> {
        if self.save { saved::save(name, self.quick, results) } else { Ok(()) }
    }

    /// A closed loop of small messages; the rest is the caller's.
    fn course(&self, connections: &[usize]) -> Course {
        let wanted = |style: &Style| {
            *style == Style::FLOOR || self.only.is_empty() || self.only.contains(style)
        };
        let window = self.window.unwrap_or(if self.quick { 100 } else { 1000 });
        Course {
            styles: Style::ALL.into_iter().filter(wanted).collect(),
            connections: connections.to_vec(),
            size: SIZE,
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
pub fn run(options: &Options) -> Result<()> {
    let course = Course {
        size: options.size,
        open_loop: options.rate.map_or(OpenLoop::AsTheFloorCan, OpenLoop::PerSecond),
        counts_calls: true,
        ..options.common.course(&options.connections)
    };
    let (size, rounds, window) = (course.size, course.rounds, course.window);
    let parts = course.run(|part| table::print(part, size, rounds))?;
    let results = Results { size, rounds, window, parts };
    options.common.keep(ECHO, &results)
}

/// Compares with more and more connections, and prints one table.
///
/// # Errors
///
/// As [`run`].
pub fn scale(options: &ScaleOptions) -> Result<()> {
    let course = options.common.course(&options.connections);
    let (size, rounds, window) = (course.size, course.rounds, course.window);
    let parts = course.run(|_| Ok(()))?;
    let results = Results { size, rounds, window, parts };
    table::print_scale(&results)?;
    options.common.keep(SCALE, &results)
}

//! Micro-benchmarks: one operation at a time, in every runtime that has it.
//!
//! Each sample is taken in a process of its own, pinned to one core. Every runtime takes its turn
//! in every round.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use crate::machine::LoadAverage;
use crate::process::Helper;
use crate::stats::Spread;
use crate::{go, saved, terminal};

pub use bench::{Bench, Peer};

mod bench;
mod block_on;
mod channel;
mod channels;
mod fairness;
mod line;
mod lock;
mod memory;
mod names;
mod runtimes;
mod spawn;
mod switch;
pub mod table;
mod timeouts;
mod timers;
mod tonic;
mod workers;

/// How long one sample may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// The options of a micro-benchmark.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Little work and few rounds: a first look, too noisy to quote
    #[arg(long)]
    pub quick: bool,
    /// Rounds; every runtime takes its turn in each
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Numbers of tasks
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub counts: Vec<usize>,
    /// These runtimes only; the floor, where there is one, always takes part
    #[arg(long, value_delimiter = ',', value_name = "PEER,..")]
    pub only: Vec<Peer>,
    /// Save the results for `report`
    #[arg(long)]
    pub save: bool,
}

impl Options {
    /// The defaults, with the results saved for the report.
    pub fn for_report(quick: bool) -> Options {
        Options { quick, rounds: None, counts: Vec::new(), only: Vec::new(), save: true }
    }
}

/// The plan for a process that takes a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The benchmark to run.
    pub bench: Bench,
    /// In which runtime.
    pub peer: Peer,
    /// With how many tasks.
    pub count: usize,
    /// How many yields or spawns in all.
    pub work: usize,
}

/// The results of one micro-benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// The benchmark that was run.
    pub bench: Bench,
    /// How many rounds there were.
    pub rounds: usize,
    /// One part for each number of tasks.
    pub parts: Vec<Part>,
    /// The machine's load average; older results have none.
    #[serde(default)]
    pub load: Option<LoadAverage>,
}

/// The results for one number of tasks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// How many tasks.
    pub count: usize,
    /// The results of each runtime.
    pub arms: Vec<Arm>,
}

/// The values of a bench's columns; none where a runtime has no such thing.
pub type Sample = Vec<Option<f64>>;

/// The results of one runtime for one number of tasks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Arm {
    /// The runtime.
    pub peer: Peer,
    /// One sample for each round.
    pub samples: Vec<Sample>,
    /// Why there are no samples.
    pub failure: Option<String>,
}

impl Arm {
    /// One column, round by round.
    pub fn column(&self, column: usize) -> Vec<f64> {
        self.samples.iter().filter_map(|sample| sample.get(column).copied()?).collect()
    }

    /// The median of one column.
    pub fn median(&self, column: usize) -> Option<f64> {
        Some(Spread::of(self.column(column))?.median)
    }
}

/// Measures, and prints a table.
///
/// # Errors
///
/// When the machine lacks something that all samples need, or plainsong fails. The failure of a
/// peer is reported with the table.
pub fn run(bench: Bench, options: &Options) -> Result<()> {
    let rounds = options.rounds.unwrap_or(bench.rounds(options.quick));
    ensure!(rounds > 0, "--rounds must be at least 1");
    let counts = match &options.counts[..] {
        [] => bench.counts(options.quick),
        counts => counts,
    };
    let peers = peers(bench, &options.only)?;
    let bar = terminal::progress(counts.len() * peers.len() * rounds);
    let part = |&count| Part::new(bench, &peers, count);
    let mut parts: Vec<Part> = counts.iter().map(part).collect();
    let work = bench.work(options.quick);
    let ((), load) = LoadAverage::around(|| {
        for _ in 0..rounds {
            for part in &mut parts {
                part.turn(bench, work, &bar);
            }
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let results = Results { bench, rounds, parts, load };
    table::print(&results)?;
    let arms = results.parts.iter().flat_map(|part| &part.arms);
    let failure = arms.filter(|arm| arm.peer.is_ours()).find_map(|arm| arm.failure.clone());
    if options.save {
        saved::save(&bench.name()?, options.quick, results)?;
    }
    failure.map_or(Ok(()), |failure| bail!("plainsong failed: {failure}"))
}

fn peers(bench: Bench, only: &[Peer]) -> Result<Vec<Peer>> {
    let mut peers = bench.peers().to_vec();
    if !only.is_empty() {
        let reference = bench.reference().map(|(peer, _)| peer);
        peers.retain(|peer| Some(*peer) == reference || only.contains(peer));
    }
    if peers.contains(&Peer::Go) {
        if go::is_here() {
            go::build("micro")?;
        } else {
            terminal::note("go is not installed here: its arm is left out")?;
            peers.retain(|peer| *peer != Peer::Go);
        }
    }
    Ok(peers)
}

impl Part {
    fn new(bench: Bench, peers: &[Peer], count: usize) -> Part {
        let arm = |&peer| Arm { peer, samples: Vec::new(), failure: refusal(bench, peer, count) };
        Part { count, arms: peers.iter().map(arm).collect() }
    }

    /// Lets every runtime take its turn.
    fn turn(&mut self, bench: Bench, work: usize, bar: &ProgressBar) {
        let count = self.count;
        for arm in &mut self.arms {
            bar.set_message(format!("{count} {}: {}", bench.counts_what(), arm.peer));
            if arm.failure.is_none() {
                match sample(&Plan { bench, peer: arm.peer, count, work }) {
                    Ok(sample) => arm.samples.push(sample),
                    Err(error) => arm.failure = Some(format!("{error:#}")),
                }
            }
            bar.inc(1);
        }
    }
}

/// Why a sample is not even tried.
fn refusal(bench: Bench, peer: Peer, count: usize) -> Option<String> {
    // More threads take turns too seldom to measure a turn, and use up the thread ids of the
    // machine.
    const THREADS_AT_MOST: usize = 1_000;
    // A stack and its guard are one mapping each.
    const MAPPINGS_OF_A_STACK: u64 = 2;
    match peer {
        Peer::Threads if count > THREADS_AT_MOST => {
            Some(format!("not tried: more than {THREADS_AT_MOST} threads"))
        }
        Peer::May if [Bench::Switch, Bench::Memory, Bench::Timers].contains(&bench) => {
            let limit = crate::machine::mappings_at_most()?;
            let needed = MAPPINGS_OF_A_STACK * count as u64;
            (needed > limit).then(|| {
                format!("cannot: its stacks need {needed} mappings, the kernel allows {limit}")
            })
        }
        _ => None,
    }
}

/// Takes one sample in a process of its own.
fn sample(plan: &Plan) -> Result<Sample> {
    let plan = serde_json::to_string(plan)?;
    Helper::of_ourselves("the sample", ["micro", &plan])?.answer(PATIENCE)
}

/// Takes the sample that `plan` asks for and prints it: the main function of a sample's process.
///
/// # Errors
///
/// When the runtime cannot do it.
pub fn take(plan: &Plan) -> Result<()> {
    let sample = match plan.bench {
        _ if plan.peer == Peer::Go => return become_go(plan),
        Bench::Switch => switch::sample(plan.peer, plan.count, plan.work),
        Bench::Spawn => spawn::sample(plan.peer, plan.count, plan.work),
        Bench::Names => names::sample(plan.peer, plan.count, plan.work),
        Bench::Memory => return memory::take(plan.peer, plan.count),
        Bench::Channel => channel::sample(plan.peer, plan.count, plan.work),
        Bench::Lock => lock::sample(plan.peer, plan.work),
        Bench::Timers => timers::sample(plan.peer, plan.count),
        Bench::Timeouts => timeouts::sample(plan.peer, plan.work),
        Bench::Skynet => workers::skynet(plan.peer, plan.count, plan.work),
        Bench::Cross => workers::cross(plan.peer, plan.work),
        Bench::BlockOn => block_on::sample(plan.peer, plan.work),
        Bench::Tonic => tonic::sample(plan.peer, plan.count, plan.work),
        Bench::Fairness => fairness::sample(plan.peer, plan.count, plan.work),
    }?;
    print(&sample)
}

fn print(sample: &Sample) -> Result<()> {
    terminal::note(&serde_json::to_string(sample)?)
}

/// Go's arms are a separate program, which prints its samples in the same form.
fn become_go(plan: &Plan) -> Result<()> {
    let bench = plan.bench.name()?;
    let numbers = [plan.count.to_string(), plan.work.to_string()];
    Err(go::become_program("micro", [&*bench].into_iter().chain(numbers.iter().map(|n| &**n)))
        .into())
}

/// An arm that [`Bench::peers`] does not list.
fn no_arm(bench: Bench, peer: Peer) -> anyhow::Error {
    anyhow::anyhow!("{peer} has no arm in {bench:?}")
}

//! Long random runs of plainsong. A run prints its seed, checks what must hold, and ends the
//! process with a report when something does not.

mod process;
mod round;
mod script;
mod soak;
mod steps;
mod traffic;
mod watch;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Long random runs of plainsong, with checks.
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mixed: Mixed,
}

#[derive(Subcommand)]
enum Command {
    /// Echo and HTTP requests with random faults, while memory, descriptors, mappings and threads
    /// are watched.
    Soak(Soak),
}

#[derive(clap::Args)]
struct Mixed {
    /// How long to go on. The round that has begun is finished.
    #[arg(long, default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
    /// The seed of the first round; each further round adds one. At random by default.
    #[arg(long)]
    seed: Option<u64>,
    /// End after this many rounds, if the time is not over before. `--rounds 1` with the seed of a
    /// failed round plays that round again.
    #[arg(long)]
    rounds: Option<u64>,
    /// Steps of one round.
    #[arg(long, default_value_t = 2000)]
    steps: u64,
}

#[derive(clap::Args)]
struct Soak {
    /// Requests to make, echo and HTTP together.
    #[arg(long, default_value_t = 10_000_000)]
    requests: u64,
    /// The seed of the faults. At random by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Connections at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Workers of the server's run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number of minutes, such as 60 or 0.5")?;
    match Duration::try_from_secs_f64(minutes * 60.0) {
        Ok(_) => Ok(minutes),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    watch::install();
    match options.command {
        None => round::play(&options.mixed),
        Some(Command::Soak(options)) => soak::run(&options),
    }
    ExitCode::SUCCESS
}

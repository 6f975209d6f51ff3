//! The command line of the comparison.

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

use compare::micro::{self, Bench};
use compare::process::{LOAD_CORE, MEASURED_CORE, become_helper, raise_file_limit};
use compare::{code, echo, load, servers};

/// Measures plainsong beside other ways to write the same server.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The same echo server in every style, under the same load
    Echo(echo::Options),
    /// The echo servers with more and more connections
    Scale(echo::ScaleOptions),
    /// The servers as text: lines, colour, bounds; and what they allocate
    Code,
    /// Yielding through the scheduler
    Switch(micro::Options),
    /// Spawning and joining tasks
    Spawn(micro::Options),
    /// What a sleeping task holds
    Memory(micro::Options),
    /// A million timers: what adding, firing and cancelling one costs
    Timers(micro::Options),
    /// Serves echo in one style, on the measured core
    #[command(hide = true)]
    Serve { style: servers::Style, address: SocketAddr },
    /// Puts load on a server, from the other core
    #[command(hide = true)]
    Load { plan: String },
    /// Takes one sample of a micro-benchmark, on the measured core
    #[command(hide = true)]
    Micro { plan: String },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Echo(options) => echo::run(&options).map(drop),
        Command::Scale(options) => echo::scale(&options).map(drop),
        Command::Code => code::run().map(drop),
        Command::Switch(options) => micro::run(Bench::Switch, &options).map(drop),
        Command::Spawn(options) => micro::run(Bench::Spawn, &options).map(drop),
        Command::Memory(options) => micro::run(Bench::Memory, &options).map(drop),
        Command::Timers(options) => micro::run(Bench::Timers, &options).map(drop),
        Command::Serve { style, address } => {
            become_helper(MEASURED_CORE)?;
            raise_file_limit();
            Ok(style.serve(address)?)
        }
        Command::Load { plan } => {
            become_helper(LOAD_CORE)?;
            raise_file_limit();
            load::run(&serde_json::from_str(&plan)?)
        }
        Command::Micro { plan } => {
            become_helper(MEASURED_CORE)?;
            micro::take(&serde_json::from_str(&plan)?)
        }
    }
}

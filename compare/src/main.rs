//! The command line of the comparison.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;

use anyhow::Result;
use clap::{Parser, Subcommand};

use compare::micro::{self, Bench};
use compare::process::{
    LOAD_CORE, MEASURED_CORE, become_helper, end_with_parent, raise_file_limit,
};
use compare::{all, code, contest, load, report, servers};

/// Measures plainsong beside other ways to write the same server.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures everything and writes the report to compare/report/
    All {
        /// These parts only, such as echo or channel; the report shows saved results for the others
        #[arg(value_name = "PART")]
        steps: Vec<all::Step>,
        /// Few and short rounds: under two minutes, too noisy to quote, and a report of its own
        #[arg(long)]
        quick: bool,
    },
    /// The same echo server in every style, under the same load
    Echo(contest::EchoOptions),
    /// HTTP: pages as text and JSON
    Http(contest::HttpOptions),
    /// Clients that open a connection for one request, or for ten
    Short(contest::ShortOptions),
    /// The echo servers with more and more connections
    Scale(contest::ScaleOptions),
    /// Coroutines beside tokio, and hyper on sockets of plainsong
    Guest(contest::GuestOptions),
    /// Echo with the flight recorder, metrics or watchdog on, against everything off
    Watched(contest::WatchedOptions),
    /// Yielding through the scheduler
    Switch(micro::Options),
    /// Spawning and joining tasks
    Spawn(micro::Options),
    /// Spawning and joining coroutines with names
    Names(micro::Options),
    /// Passing items between tasks
    Channel(micro::Options),
    /// A lock without contention
    Lock(micro::Options),
    /// The memory of a sleeping task
    Memory(micro::Options),
    /// A million timers: adding, firing and cancelling one
    Timers(micro::Options),
    /// A timeout around a read that need not wait
    Timeouts(micro::Options),
    /// A tree of a million tasks, on one worker and on two
    Skynet(micro::Options),
    /// Passing items between tasks on two threads
    Cross(micro::Options),
    /// Waiting for a future
    BlockOn(micro::Options),
    /// Calls of tonic, from tasks and from coroutines
    Tonic(micro::Options),
    /// How long coroutines and tasks on one thread keep each other waiting
    Fairness(micro::Options),
    /// The servers as text (lines, async, bounds), and their allocations
    Code {
        /// Save the results for `report`
        #[arg(long)]
        save: bool,
    },
    /// Writes the report again from the saved results
    Report {
        /// From the results of quick runs
        #[arg(long)]
        quick: bool,
    },
    /// Serves in one style, on the measured core
    #[command(hide = true)]
    Serve { job: load::Job, style: servers::Style, address: SocketAddr },
    /// Puts load on a server, from the other core
    #[command(hide = true)]
    Load { plan: String },
    /// Becomes another program that puts load on a server, from the other core
    #[command(hide = true)]
    OnLoadCore {
        program: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Takes one sample of a micro-benchmark, on the measured core
    #[command(hide = true)]
    Micro { plan: String },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::All { steps, quick } => all::run(&steps, quick),
        Command::Echo(options) => contest::echo(&options),
        Command::Http(options) => contest::http(&options),
        Command::Short(options) => contest::short(&options),
        Command::Scale(options) => contest::scale(&options),
        Command::Guest(options) => contest::guest(&options),
        Command::Watched(options) => contest::watched(&options),
        Command::Switch(options) => micro::run(Bench::Switch, &options),
        Command::Spawn(options) => micro::run(Bench::Spawn, &options),
        Command::Names(options) => micro::run(Bench::Names, &options),
        Command::Channel(options) => micro::run(Bench::Channel, &options),
        Command::Lock(options) => micro::run(Bench::Lock, &options),
        Command::Timeouts(options) => micro::run(Bench::Timeouts, &options),
        Command::Skynet(options) => micro::run(Bench::Skynet, &options),
        Command::Cross(options) => micro::run(Bench::Cross, &options),
        Command::BlockOn(options) => micro::run(Bench::BlockOn, &options),
        Command::Tonic(options) => micro::run(Bench::Tonic, &options),
        Command::Fairness(options) => micro::run(Bench::Fairness, &options),
        Command::Memory(options) => micro::run(Bench::Memory, &options),
        Command::Timers(options) => micro::run(Bench::Timers, &options),
        Command::Code { save } => code::run(save.then_some(false)),
        Command::Report { quick } => report::write(quick),
        Command::OnLoadCore { program, arguments } => {
            become_helper(LOAD_CORE)?;
            Err(std::process::Command::new(program).args(arguments).exec().into())
        }
        Command::Serve { job, style, address } => {
            become_helper(MEASURED_CORE)?;
            raise_file_limit();
            Ok(style.serve(job, address)?)
        }
        Command::Load { plan } => {
            become_helper(LOAD_CORE)?;
            raise_file_limit();
            load::run(&serde_json::from_str(&plan)?)
        }
        Command::Micro { plan } => {
            let plan: micro::Plan = serde_json::from_str(&plan)?;
            if plan.bench.is_parallel() {
                end_with_parent()?;
            } else {
                become_helper(MEASURED_CORE)?;
            }
            micro::take(&plan)
        }
    }
}

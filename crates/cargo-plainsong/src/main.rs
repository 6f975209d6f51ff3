//! `cargo plainsong vendor redis` builds a third-party crate on plainsong-std; `cargo plainsong
//! undo` goes back.

mod copy;
mod manifest;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Cargo calls `cargo-plainsong plainsong …`.
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo")]
enum Cargo {
    Plainsong(Plainsong),
}

/// Builds third-party crates on plainsong-std, so that their blocking calls park a coroutine.
#[derive(Args)]
#[command(version, about)]
struct Plainsong {
    #[command(subcommand)]
    command: Command,
    /// The Cargo.toml of the package or workspace [default: that of the current folder].
    #[arg(long, global = true, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Copies crates from cargo's cache into `vendor-plainsong`, makes plainsong-std their `std`,
    /// and has the workspace use the copies, through `[patch.crates-io]`.
    Vendor {
        /// The names of crates from crates.io that the workspace depends on, with a version if it
        /// has several: `redis`, `rand@0.8.5`.
        #[arg(required = true, value_name = "CRATE")]
        crates: Vec<String>,
    },
    /// Takes the copies away again.
    Undo {
        /// The names of the crates [default: all copies].
        #[arg(value_name = "CRATE")]
        crates: Vec<String>,
    },
}

/// An error in words.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let Cargo::Plainsong(arguments) = Cargo::parse();
    let path = arguments.manifest_path.as_deref();
    let done = match arguments.command {
        Command::Vendor { crates } => workspace::vendor(path, &crates),
        Command::Undo { crates } => workspace::undo(path, &crates),
    };
    match done {
        Ok(done) => {
            for line in done {
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

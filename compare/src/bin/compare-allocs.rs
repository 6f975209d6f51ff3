//! Counts the allocations of one style's server for a connection and for a request.
//!
//! Server and client run in this process, with an allocator that counts. The client does not
//! allocate.

use std::alloc::System;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};

use compare::code::Allocations;
use compare::contest::free_address;
use compare::load::Job;
use compare::process::{MEASURED_CORE, become_helper};
use compare::servers::Style;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connections before the count begins. They initialise lazy values and let tables grow.
const WARM_UP: usize = 100;
const CONNECTIONS: usize = 1000;
const REQUESTS: usize = 10_000;
/// How long the server may take to start, or to finish with the last client.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Parser)]
struct Arguments {
    style: Style,
}

fn main() -> Result<()> {
    let Arguments { style } = Arguments::parse();
    become_helper(MEASURED_CORE)?;
    let address = free_address()?;
    thread::spawn(move || {
        if let Err(error) = style.serve(Job::Echo, address) {
            let _ = writeln!(io::stderr(), "{style}: {error}");
            std::process::exit(1);
        }
    });
    thread::sleep(SETTLE);
    let allocations = count(address)?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&allocations)?)
        .context("standard output is closed")
}

fn count(address: SocketAddr) -> Result<Allocations> {
    connect(address, WARM_UP)?;
    let connections = change(|| connect(address, CONNECTIONS))?;
    let mut client = TcpStream::connect(address)?;
    exchange(&mut client)?;
    let requests = change(|| (0..REQUESTS).try_for_each(|_| exchange(&mut client)))?;
    let calls = |stats: &Stats| (stats.allocations + stats.reallocations) as f64;
    Ok(Allocations {
        per_connection: calls(&connections) / CONNECTIONS as f64,
        bytes_per_connection: connections.bytes_allocated as f64 / CONNECTIONS as f64,
        per_request: calls(&requests) / REQUESTS as f64,
    })
}

/// The allocations from before `work` until the server is idle after it.
fn change(work: impl FnOnce() -> io::Result<()>) -> Result<Stats> {
    thread::sleep(SETTLE);
    let before = COUNTING.stats();
    work()?;
    thread::sleep(SETTLE);
    Ok(COUNTING.stats() - before)
}

/// Connects clients one after the other. Each exchanges a message and closes.
fn connect(address: SocketAddr, clients: usize) -> io::Result<()> {
    (0..clients).try_for_each(|_| exchange(&mut TcpStream::connect(address)?))
}

fn exchange(client: &mut TcpStream) -> io::Result<()> {
    let mut message = [7; 128];
    client.write_all(&message)?;
    client.read_exact(&mut message)
}

//! The tables that `echo` prints.

use anyhow::Result;

use super::Part;
use crate::load::Measured;
use crate::stats::Spread;
use crate::terminal::{self, Table};

/// Prints what was measured with one number of connections.
pub(super) fn print(part: &Part, size: usize, rounds: usize) -> Result<()> {
    terminal::heading(&format!(
        "echo of {size} bytes, {} connection(s), medians of {rounds} round(s)",
        part.connections
    ))?;
    closed(part).print()?;
    terminal::note(&format!("open loop at {:.0} requests a second:", part.rate))?;
    open(part).print()
}

fn closed(part: &Part) -> Table {
    let mut table = Table::new(&[
        "closed loop",
        "requests/s",
        "CPU µs/request",
        "× floor",
        "quartiles",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "calls/request",
        "switches/request",
        "RSS MiB",
    ]);
    for arm in &part.arms {
        let median = |of: fn(&Measured) -> f64| Spread::of(arm.closed(of)).map(|s| s.median);
        let ratio = part.ratio(arm, |arm| arm.closed(Measured::cpu_us));
        table.row([
            arm.style.label().to_owned(),
            terminal::number(median(Measured::per_second), 0),
            terminal::number(median(Measured::cpu_us), 2),
            terminal::number(ratio.map(|r| r.median), 3),
            terminal::quartiles(ratio),
            terminal::number(median(|m| m.latency.p50 as f64 / 1e3), 1),
            terminal::number(median(|m| m.latency.p99 as f64 / 1e3), 1),
            terminal::number(median(|m| m.latency.p999 as f64 / 1e3), 1),
            terminal::number(arm.calls.count(), 2),
            terminal::number(median(Measured::switches), 3),
            terminal::number(median(|m| m.server.resident as f64 / 1024.0 / 1024.0), 1),
        ]);
    }
    table
}

fn open(part: &Part) -> Table {
    let mut table = Table::new(&[
        "open loop",
        "answered/s",
        "CPU µs/request",
        "× floor",
        "quartiles",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "late",
    ]);
    for arm in &part.arms {
        let median = |of: fn(&Measured) -> f64| Spread::of(arm.open(of)).map(|s| s.median);
        let ratio = part.ratio(arm, |arm| arm.open(Measured::cpu_us));
        table.row([
            arm.style.label().to_owned(),
            terminal::number(median(Measured::per_second), 0),
            terminal::number(median(Measured::cpu_us), 2),
            terminal::number(ratio.map(|r| r.median), 3),
            terminal::quartiles(ratio),
            terminal::number(median(|m| m.latency.p50 as f64 / 1e3), 1),
            terminal::number(median(|m| m.latency.p99 as f64 / 1e3), 1),
            terminal::number(median(|m| m.latency.p999 as f64 / 1e3), 1),
            terminal::number(median(|m| m.unanswered as f64), 0),
        ]);
    }
    table
}

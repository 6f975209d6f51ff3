//! The tables of a comparison.

use anyhow::Result;

use super::{Arm, Part, Results};
use crate::load::Measured;
use crate::servers::Style;
use crate::stats::Spread;
use crate::terminal::{self, Table};

/// Prints the results of one load.
pub(super) fn print(part: &Part, rounds: usize) -> Result<()> {
    terminal::heading(&format!("{}; medians of {rounds} round(s)", part.title()))?;
    closed(part).print()?;
    if let Some(rate) = part.rate {
        terminal::note(&format!("open loop at {rate:.0} requests a second:"))?;
        open(part).print()?;
    }
    remarks(part).iter().try_for_each(|remark| terminal::note(remark))
}

/// Remarks beside the tables: failures, and the results of `wrk`.
pub fn remarks(part: &Part) -> Vec<String> {
    let failed = |arm: &Arm| Some(format!("{} failed: {}", arm.style, arm.failure.as_ref()?));
    let mut remarks: Vec<String> = part.arms.iter().filter_map(failed).collect();
    let seen = |arm: &Arm| {
        let rate = Spread::of(arm.wrk.iter().copied())?.median;
        Some(format!("{} {rate:.0}", arm.style))
    };
    let seen: Vec<String> = part.arms.iter().filter_map(seen).collect();
    if !seen.is_empty() {
        remarks.push(format!("Requests/s that wrk sees: {}", seen.join(", ")));
    }
    remarks
}

/// Prints processor time by number of connections.
pub(super) fn print_scale(results: &Results) -> Result<()> {
    terminal::heading(&format!(
        "CPU µs/request (× floor) by number of connections, medians of {} round(s)",
        results.rounds
    ))?;
    scale(results).print()
}

/// A row for each style, a column for each number of connections.
pub fn scale(results: &Results) -> Table {
    let mut columns = vec![String::new()];
    columns.extend(results.parts.iter().map(|part| part.shape.connections.to_string()));
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for style in Style::ECHO {
        let cell = |part: &Part| {
            let arm = part.arm(style)?;
            let cpu = Spread::of(arm.cpu_us())?.median;
            let ratio = part.ratio(arm, |arm| arm.cpu_us())?.median;
            Some(format!("{cpu:.2} ({ratio:.2})"))
        };
        let cells: Vec<_> = results.parts.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
            table.row([style.label().to_owned()].into_iter().chain(cells));
        }
    }
    table
}

fn against(part: &Part) -> String {
    match part.reference() {
        Some(arm) if arm.style != Style::Epoll => format!("× {}", arm.style),
        _ => "× floor".to_owned(),
    }
}

/// The results of the closed loop.
pub fn closed(part: &Part) -> Table {
    let against = against(part);
    let mut table = Table::new(&[
        "closed loop",
        "requests/s",
        "CPU µs/request",
        &against,
        "quartiles",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "calls/request",
        "idle calls/s",
        "switches/request",
        "RSS MiB",
    ]);
    for arm in &part.arms {
        let median = |of: fn(&Measured) -> f64| Spread::of(arm.closed(of)).map(|s| s.median);
        let ratio = part.ratio(arm, |arm| arm.cpu_us());
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
            terminal::number(arm.idle_calls, 0),
            terminal::number(median(Measured::switches), 3),
            terminal::number(median(|m| m.server.resident as f64 / 1024.0 / 1024.0), 1),
        ]);
    }
    table
}

/// The results of the open loop.
pub fn open(part: &Part) -> Table {
    let against = against(part);
    let mut table = Table::new(&[
        "open loop",
        "answered/s",
        "CPU µs/request",
        &against,
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

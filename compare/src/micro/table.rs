//! The table that a micro-benchmark prints.

use anyhow::Result;

use super::{Arm, Part, Peer, Results};
use crate::stats::Spread;
use crate::terminal::{self, Table};

/// Prints everything that was measured.
pub(super) fn print(results: &Results) -> Result<()> {
    let bench = results.bench;
    terminal::heading(&format!("{}, medians of {} round(s)", bench.title(), results.rounds))?;
    let has_floor = bench.peers().contains(&Peer::Bare);
    let mut columns = vec!["", bench.counts_what()];
    columns.extend(bench.columns());
    if has_floor {
        columns.extend(["× floor", "quartiles"]);
    }
    let mut table = Table::new(&columns);
    for (part, arm) in rows(results) {
        let mut row = vec![arm.peer.label().to_owned(), part.count.to_string()];
        row.extend((0..bench.columns().len()).map(|at| terminal::number(arm.median(at), 1)));
        if has_floor {
            let ratio = part.ratio(arm);
            row.push(terminal::number(ratio.map(|r| r.median), 2));
            row.push(terminal::quartiles(ratio));
        }
        table.row(row);
    }
    table.print()?;
    for (part, arm) in rows(results) {
        if let Some(failure) = &arm.failure {
            terminal::note(&format!("{} with {}: {failure}", arm.peer, part.count))?;
        }
    }
    Ok(())
}

fn rows(results: &Results) -> impl Iterator<Item = (&Part, &Arm)> {
    results.parts.iter().flat_map(|part| part.arms.iter().map(move |arm| (part, arm)))
}

impl Part {
    /// An arm's ratio to the floor in the same round.
    pub fn ratio(&self, arm: &Arm) -> Option<Spread> {
        let floor = self.arms.iter().find(|arm| arm.peer == Peer::Bare)?;
        Spread::of_ratios(&arm.column(0), &floor.column(0))
    }
}

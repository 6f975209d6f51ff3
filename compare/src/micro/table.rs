//! The table of a micro-benchmark.

use anyhow::Result;

use super::{Arm, Bench, Part, Peer, Results};
use crate::machine::LoadAverage;
use crate::stats::Spread;
use crate::terminal::{self, Table};

/// Prints the results.
pub(super) fn print(results: &Results) -> Result<()> {
    let title = results.bench.title();
    terminal::heading(&format!("{title}, medians of {} round(s)", results.rounds))?;
    table(results).print()?;
    results.bench.remark().into_iter().try_for_each(terminal::note)?;
    failures(results).iter().try_for_each(|failure| terminal::note(failure))?;
    terminal::note(&LoadAverage::sentence(results.load))
}

/// A row for each number of tasks and each runtime.
pub fn table(results: &Results) -> Table {
    let bench = results.bench;
    let reference = bench.reference();
    let mut columns = vec!["", bench.counts_what()];
    columns.extend(bench.columns());
    if let Some((_, against)) = reference {
        columns.extend([against, "quartiles"]);
    }
    let mut table = Table::new(&columns);
    for (part, arm) in rows(results) {
        let mut row = vec![arm.peer.label().to_owned(), part.count.to_string()];
        row.extend((0..bench.columns().len()).map(|at| terminal::number(arm.median(at), 1)));
        if reference.is_some() {
            let ratio = part.ratio(bench, arm);
            row.push(terminal::number(ratio.map(|r| r.median), 2));
            row.push(terminal::quartiles(ratio));
        }
        table.row(row);
    }
    table
}

/// The failures, with their reasons.
pub fn failures(results: &Results) -> Vec<String> {
    let failed = |(part, arm): (&Part, &Arm)| {
        Some(format!("{} with {}: {}", arm.peer, part.count, arm.failure.as_ref()?))
    };
    rows(results).filter_map(failed).collect()
}

fn rows(results: &Results) -> impl Iterator<Item = (&Part, &Arm)> {
    results.parts.iter().flat_map(|part| part.arms.iter().map(move |arm| (part, arm)))
}

impl Part {
    /// The results of one runtime.
    pub fn arm(&self, peer: Peer) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.peer == peer)
    }

    /// An arm's ratio to the reference in the same round.
    pub fn ratio(&self, bench: Bench, arm: &Arm) -> Option<Spread> {
        Spread::of_ratios(&arm.column(0), &self.arm(bench.reference()?.0)?.column(0))
    }
}

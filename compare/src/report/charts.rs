//! The charts of the report.

use std::path::Path;

use anyhow::Result;

use super::plot::{Bars, Curve, Group, curves};
use crate::contest;
use crate::load::Measured;
use crate::micro::{self, Bench};
use crate::servers::Style;
use crate::stats::Spread;

/// Processor time of a request, as a ratio to the reference.
pub(super) fn cpu(parts: &[&contest::Part], path: &Path) -> Result<()> {
    let against = reference(parts);
    let bars = Bars {
        title: "The server's processor time for a request".to_owned(),
        value: format!("× {against} of the same round (median and quartiles; less is better)"),
        series: series(parts),
        groups: groups(parts, |part, arm| part.ratio(arm, contest::Arm::cpu_us)),
        mark: Some(1.0),
    };
    bars.draw(path)
}

/// The 99th percentile of the open loop.
pub(super) fn p99(parts: &[&contest::Part], path: &Path) -> Result<()> {
    let p99 = |measured: &Measured| measured.latency.p99 as f64 / 1e3;
    let bars = Bars {
        title: format!("p99 at half of what {} can do", reference(parts)),
        value: "µs from when a message was due (median and quartiles; less is better)".to_owned(),
        series: series(parts),
        groups: groups(parts, |_, arm| Spread::of(arm.open(p99))),
        mark: None,
    };
    bars.draw(path)
}

fn reference(parts: &[&contest::Part]) -> &'static str {
    let style = parts.first().and_then(|part| part.reference()).map(|arm| arm.style);
    style.map_or("", Style::label)
}

fn series(parts: &[&contest::Part]) -> Vec<String> {
    parts.iter().map(|part| part.title()).collect()
}

fn groups(
    parts: &[&contest::Part],
    of: impl Fn(&contest::Part, &contest::Arm) -> Option<Spread>,
) -> Vec<Group> {
    let group = |style: Style| Group {
        name: style.label().to_owned(),
        is_ours: style.is_ours(),
        bars: parts.iter().map(|part| of(part, part.arm(style)?)).collect(),
    };
    let has_bars = |group: &Group| group.bars.iter().any(Option::is_some);
    let styles = |part: &&contest::Part| [Style::of(part.job), Style::more_of(part.job)].concat();
    let styles = parts.first().map(styles).unwrap_or_default();
    styles.into_iter().map(group).filter(has_bars).collect()
}

/// Processor time of a request by number of connections, without styles that serve only a few.
pub(super) fn scale(results: &contest::Results, path: &Path) -> Result<()> {
    let curve = |style: Style| Curve {
        name: style.label().to_owned(),
        is_ours: style == Style::Plainsong,
        points: results
            .parts
            .iter()
            .filter_map(|part| {
                let cpu = Spread::of(part.arm(style)?.cpu_us())?.median;
                Some((part.shape.connections as f64, cpu))
            })
            .collect(),
    };
    let styles = Style::ECHO.into_iter().filter(|style| style.capacity().is_none());
    // The curves of tokio's two runtimes are nearly the same.
    let styles = styles.filter(|style| *style != Style::TokioMulti);
    let axes = ("connections", "server CPU µs for a request");
    curves("Echo: more and more connections", axes, &styles.map(curve).collect::<Vec<_>>(), path)
}

/// The columns of a micro-benchmark by which runtimes are compared.
pub(super) fn micro(results: &micro::Results, path: &Path) -> Result<()> {
    let bench = results.bench;
    let mut series = Vec::new();
    let mut bars: Vec<Group> = Vec::new();
    for peer in bench.peers() {
        let is_ours = peer.is_ours();
        bars.push(Group { name: peer.label().to_owned(), is_ours, bars: Vec::new() });
    }
    for part in &results.parts {
        for column in bench.compared() {
            let name = bench.columns()[column];
            series.push(format!("{name}, {} {}", part.count, bench.counts_what()));
            for (peer, group) in bench.peers().iter().zip(&mut bars) {
                let arm = part.arm(*peer);
                // A difference of two times can be negative, which has no place on the axis.
                let spread = arm.and_then(|arm| Spread::of(arm.column(column)));
                group.bars.push(spread.filter(|spread| spread.median > 0.0));
            }
        }
    }
    bars.retain(|group| group.bars.iter().any(Option::is_some));
    let value = match bench {
        Bench::Memory => "bytes",
        Bench::Skynet => "ms",
        Bench::Fairness => "µs",
        _ => "ns",
    };
    let bars = Bars {
        title: format!("{}: {}", bench.name()?, bench.title()),
        value: format!("{value} (median and quartiles; less is better)"),
        series,
        groups: bars,
        mark: None,
    };
    bars.draw(path)
}

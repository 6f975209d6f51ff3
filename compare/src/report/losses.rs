//! The measurements in which a peer does better than plainsong, found in the data and not by hand.

use std::fmt::Write;

use super::Data;
use crate::contest;
use crate::load::Measured;
use crate::micro::{self, Peer};
use crate::servers::Style;
use crate::stats::Spread;

/// A smaller ratio is a tie.
const TIE: f64 = 1.01;

/// A list of all measurements in which a peer does better.
pub(super) fn text(data: &Data) -> String {
    let mut lines = Vec::new();
    for part in
        data.echo.iter().chain(&data.http).chain(&data.short).flat_map(|results| &results.parts)
    {
        let title = part.title();
        lines.extend(contest_line(
            part,
            &format!("{title}: CPU µs a request"),
            contest::Arm::cpu_us,
        ));
        lines.extend(contest_line(part, &format!("{title}: open loop, CPU µs a request"), |arm| {
            arm.open(Measured::cpu_us)
        }));
        lines.extend(contest_line(part, &format!("{title}: open loop, p99 µs"), |arm| {
            arm.open(|m| m.latency.p99 as f64 / 1e3)
        }));
    }
    for part in data.scale.iter().flat_map(|results| &results.parts) {
        let what = format!("scale, {}: CPU µs a request", part.title());
        lines.extend(contest_line(part, &what, contest::Arm::cpu_us));
    }
    for results in &data.micro {
        for part in &results.parts {
            lines.extend(
                (0..results.bench.columns().len())
                    .filter_map(|column| micro_line(results, part, column)),
            );
        }
    }
    if lines.is_empty() {
        return "In none of these measurements.\n".to_owned();
    }
    let intro = "Each line names the peers that did better in the same rounds, the best first. The ratio is \
                 plainsong's cost to that of the peer, with median and quartiles.\n";
    lines.iter().fold(format!("{intro}\n"), |mut text, line| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {line}");
        text
    })
}

fn contest_line(
    part: &contest::Part,
    what: &str,
    of: impl Fn(&contest::Arm) -> Vec<f64>,
) -> Option<String> {
    let ours = of(part.arm(Style::Plainsong)?);
    let peers = part.arms.iter().filter(|arm| is_peer(arm.style));
    line(what, &ours, peers.map(|arm| (arm.style.label(), of(arm))))
}

fn micro_line(results: &micro::Results, part: &micro::Part, column: usize) -> Option<String> {
    let what = format!(
        "{}, {} tasks, {}",
        results.bench.name().ok()?,
        part.count,
        results.bench.columns()[column]
    );
    let ours = part.arm(Peer::Plainsong)?.column(column);
    // A difference of two measurements can be negative, and then it has no ratio.
    let is_positive = |column: &[f64]| column.iter().all(|value| *value > 0.0);
    if !is_positive(&ours) {
        return None;
    }
    let peers = part.arms.iter().filter(|arm| !arm.peer.is_ours() && arm.peer != Peer::Bare);
    let peers = peers.map(|arm| (arm.peer.label(), arm.column(column)));
    line(&what, &ours, peers.filter(|(_, theirs)| is_positive(theirs)))
}

/// Whether a style is a peer: a usual way to write a server for many clients.
pub(super) fn is_peer(style: Style) -> bool {
    !style.is_ours() && !matches!(style, Style::Epoll | Style::Sequential | Style::Pool)
}

/// A line that names the better peers, the best first; none when there are none.
fn line(
    what: &str,
    ours: &[f64],
    peers: impl Iterator<Item = (&'static str, Vec<f64>)>,
) -> Option<String> {
    let mut better: Vec<_> = peers
        .filter_map(|(name, theirs)| {
            let ratio = Spread::of_ratios(ours, &theirs)?;
            (ratio.median > TIE).then_some((name, ratio))
        })
        .collect();
    better.sort_by(|a, b| b.1.median.total_cmp(&a.1.median));
    let ours = Spread::of(ours.iter().copied())?.median;
    let names: Vec<_> = better
        .iter()
        .map(|(name, r)| format!("{name} {:.2} × ({:.2}–{:.2})", r.median, r.lower, r.upper))
        .collect();
    (!names.is_empty()).then(|| format!("{what} (plainsong {ours:.2}): {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_peer_comes_first_and_a_worse_one_not_at_all() {
        let peers = [("a", vec![9.0, 9.0]), ("b", vec![5.0, 5.0]), ("c", vec![20.0, 20.0])];
        let line = line("cost", &[10.0, 10.0], peers.into_iter()).unwrap();
        assert_eq!(line, "cost (plainsong 10.00): b 2.00 × (2.00–2.00), a 1.11 × (1.11–1.11)");
    }

    #[test]
    fn no_line_without_a_loss() {
        assert_eq!(line("cost", &[10.0], [("a", vec![10.0])].into_iter()), None);
    }
}

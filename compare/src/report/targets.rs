//! The targets, and the results beside them.

use super::Data;
use super::losses::is_peer;
use crate::load::{Job, Shape};
use crate::micro::{self, Bench, Part, Peer};
use crate::servers::Style;
use crate::stats::Spread;
use crate::terminal::Table;
use crate::{contest, terminal};
use Bound::{Least, Most};

/// The bytes of a page, the least that the stack of a parked coroutine needs.
const PAGE: f64 = 4096.0;

/// How many coroutines a process must be able to hold.
const MANY: usize = 1_000_000;

/// A row for each target.
pub(super) fn table(data: &Data) -> Table {
    let mut table = Table::new(&["what", "to reach", "seen", "quartiles", ""]);
    for row in rows(data) {
        let Row { what, bound, seen, digits, is_difference } = row;
        // Rounded like the printed number.
        let scale = 10f64.powi(digits as i32);
        let median = (seen.median * scale).round() / scale;
        let (sign, bound, reached) = match bound {
            Most(most) => ("≤", most, median <= most),
            Least(least) => ("≥", least, median >= least),
        };
        let verdict = match reached {
            _ if is_difference && seen.lower <= 0.0 => "less than the noise",
            true => "reached",
            false => "missed",
        };
        let number = |value| terminal::number(Some(value), digits);
        let quartiles = format!("{}–{}", number(seen.lower), number(seen.upper));
        let cells = [what, format!("{sign} {}", number(bound)), number(seen.median), quartiles];
        table.row(cells.into_iter().chain([verdict.to_owned()]));
    }
    table
}

struct Row {
    what: String,
    bound: Bound,
    seen: Spread,
    digits: usize,
    /// Whether it is the difference of two measurements. If that is not clearly positive, it says
    /// nothing about the target.
    is_difference: bool,
}

enum Bound {
    Most(f64),
    Least(f64),
}

fn rows(data: &Data) -> Vec<Row> {
    let mut rows = Vec::new();
    for part in data.echo.iter().flat_map(|results| &results.parts) {
        rows.extend(echo_rows(part));
    }
    rows.extend(data.http.iter().flat_map(|results| &results.parts).filter_map(http_row));
    rows.extend(data.short.iter().flat_map(|results| &results.parts).flat_map(short_rows));
    if let Some(results) = data.micro(Bench::Switch) {
        rows.extend(results.parts.iter().filter_map(|part| {
            let seen = part.ratio(Bench::Switch, part.arm(Peer::Plainsong)?)?;
            let what = format!("yield among {} coroutines, against bare corosensei", part.count);
            Some(Row { what, bound: Most(1.5), seen, digits: 2, is_difference: false })
        }));
    }
    if let Some(results) = data.micro(Bench::Spawn) {
        rows.extend(results.parts.iter().filter_map(spawn_row));
    }
    rows.extend(channel_rows(data));
    if let Some(results) = data.micro(Bench::Memory) {
        rows.extend(results.parts.iter().filter_map(|part| {
            let what = format!("bytes of a sleeping coroutine, of {}", part.count);
            column(part, 0, what, PAGE + 256.0, 0)
        }));
        // A quick run does not try so many.
        let many = results.parts.iter().filter(|part| part.count >= MANY);
        let alive = many
            .filter(|part| part.arm(Peer::Plainsong).is_some_and(|arm| !arm.samples.is_empty()));
        rows.extend(alive.map(|part| part.count as f64).max_by(f64::total_cmp).map(|alive| Row {
            what: "live coroutines in one process".to_owned(),
            bound: Least(MANY as f64),
            seen: Spread { lower: alive, median: alive, upper: alive },
            digits: 0,
            is_difference: false,
        }));
    }
    if let Some(results) = data.micro(Bench::Timers) {
        for part in &results.parts {
            rows.extend(["add", "fire", "cancel"].iter().enumerate().filter_map(|(at, verb)| {
                let what = format!("ns to {verb} a timer, of {}", part.count);
                let row = column(part, at, what, 200.0, 0)?;
                Some(Row { is_difference: true, ..row })
            }));
        }
    }
    rows.extend(data.micro(Bench::Skynet).and_then(skynet_row));
    rows.extend(data.guest.iter().flat_map(|results| &results.parts).filter_map(guest_row));
    rows.extend(beside_tokio_rows(data));
    rows.extend(data.watched.iter().flat_map(|results| &results.parts).flat_map(watched_rows));
    rows.extend(
        data.micro(Bench::Names).into_iter().flat_map(|results| &results.parts).filter_map(
            |part| {
                let what = format!("ns of a name at a spawn, {} alive at a time", part.count);
                let row = column(part, 1, what, 5.0, 1)?;
                Some(Row { is_difference: true, ..row })
            },
        ),
    );
    rows
}

/// The target for async crates on sockets of plainsong, or for coroutines beside tokio.
fn guest_row(part: &contest::Part) -> Option<Row> {
    let (ours, theirs, most) = match part.job {
        Job::Echo => (Style::PlainsongGuest, Style::Plainsong, 1.10),
        Job::Plaintext | Job::Json => (Style::HyperPlainsong, Style::Hyper, 1.05),
    };
    Some(Row {
        what: format!("{}: CPU a request, {ours} against {theirs}", part.title()),
        bound: Most(most),
        seen: Spread::of_ratios(&part.arm(ours)?.cpu_us(), &part.arm(theirs)?.cpu_us())?,
        digits: 3,
        is_difference: false,
    })
}

/// The targets for a look into a running program, against everything off.
fn watched_rows(part: &contest::Part) -> Vec<Row> {
    let targets = [
        (Style::PlainsongRecorded, 1.03),
        (Style::PlainsongMeasured, 1.02),
        (Style::PlainsongWatched, 1.01),
    ];
    let row = |(style, most): (Style, f64)| {
        Some(Row {
            what: format!("{}: CPU a request, {style}, against off", part.title()),
            bound: Most(most),
            seen: part.ratio(part.arm(style)?, contest::Arm::cpu_us)?,
            digits: 3,
            is_difference: false,
        })
    };
    targets.into_iter().filter_map(row).collect()
}

/// The targets for calls of async crates from coroutines.
fn beside_tokio_rows(data: &Data) -> Vec<Row> {
    let mut rows = Vec::new();
    let arms = |bench| {
        let parts = data.micro(bench).into_iter().flat_map(|results| &results.parts);
        parts.filter_map(|part| Some((part, part.arm(Peer::Guest)?)))
    };
    for (_, arm) in arms(Bench::BlockOn) {
        for (at, what, most) in [(0, "ready", 20.0), (1, "woken on the same thread", 150.0)] {
            rows.extend(Spread::of(arm.column(at)).map(|seen| {
                let what = format!("ns of `block_on` of a future that is {what}");
                Row { what, bound: Most(most), seen, digits: 0, is_difference: false }
            }));
        }
    }
    for (part, arm) in arms(Bench::Tonic) {
        rows.extend(part.ratio(Bench::Tonic, arm).map(|seen| {
            let what = format!("a call of tonic, {} at a time, against tokio", part.count);
            Row { what, bound: Most(1.1), seen, digits: 3, is_difference: false }
        }));
    }
    for (part, arm) in arms(Bench::Fairness) {
        for (at, what) in [(0, "coroutine"), (1, "task")] {
            rows.extend(Spread::of(arm.column(at)).map(|seen| {
                let what = format!("µs that a {what} waits while {} others are ready", part.count);
                Row { what, bound: Most(1_000.0), seen, digits: 0, is_difference: false }
            }));
        }
    }
    rows
}

/// The targets for one pair of tasks, one stream and one lock.
fn channel_rows(data: &Data) -> Vec<Row> {
    let part = |bench| data.micro(bench).and_then(|results| results.parts.first());
    let mut rows = Vec::new();
    if let Some(part) = part(Bench::Channel) {
        let what = "ns of a round trip through rendezvous channels".to_owned();
        rows.extend(column(part, 0, what, 100.0, 0));
        let items = |arm: &micro::Arm| arm.column(1).into_iter().map(|ns| 1e3 / ns);
        rows.extend(part.arm(Peer::Plainsong).and_then(|arm| Spread::of(items(arm))).map(|seen| {
            let what = "million items a second through an unbounded channel".to_owned();
            Row { what, bound: Least(20.0), seen, digits: 1, is_difference: false }
        }));
    }
    if let Some(part) = part(Bench::Lock) {
        let seen = part.arm(Peer::Plainsong).and_then(|arm| part.ratio(Bench::Lock, arm));
        rows.extend(seen.map(|seen| Row {
            what: "lock and unlock, against std's".to_owned(),
            bound: Most(1.0),
            seen,
            digits: 2,
            is_difference: false,
        }));
    }
    rows
}

/// How many times as fast as one worker two workers are.
fn skynet_row(results: &micro::Results) -> Option<Row> {
    let times = |workers| {
        let part = results.parts.iter().find(|part| part.count == workers)?;
        Some(part.arm(Peer::Plainsong)?.column(0))
    };
    let seen = Spread::of_ratios(&times(1)?, &times(2)?)?;
    let what = "skynet: two workers, against one".to_owned();
    Some(Row { what, bound: Least(1.7), seen, digits: 2, is_difference: false })
}

fn echo_rows(part: &contest::Part) -> Vec<Row> {
    let connections = part.shape.connections;
    let mut rows = Vec::new();
    // The targets are about small messages, and clients that send one at a time.
    if part.shape != Shape::plain(connections, 128) || connections > 1_000 {
        return rows;
    }
    let Some(ours) = part.arm(Style::Plainsong) else { return rows };
    let most = if connections == 1 { 1.10 } else { 1.06 };
    rows.extend(part.ratio(ours, contest::Arm::cpu_us).map(|seen| Row {
        what: format!("echo at {connections}, CPU a request, against the epoll loop"),
        bound: Most(most),
        seen,
        digits: 3,
        is_difference: false,
    }));
    for peer in [Style::TokioCurrent, Style::TokioMulti, Style::Smol, Style::May, Style::Go] {
        let Some(theirs) = part.arm(peer) else { continue };
        rows.extend(Spread::of_ratios(&ours.cpu_us(), &theirs.cpu_us()).map(|seen| Row {
            what: format!("echo at {connections}, CPU a request, against {peer}"),
            bound: Most(1.0),
            seen,
            digits: 3,
            is_difference: false,
        }));
    }
    if connections > 1 {
        rows.extend(p99_row(part, ours));
    }
    rows.extend(ours.idle_calls.map(|calls| Row {
        what: format!("system calls a second, idle with {connections} connection(s)"),
        bound: Most(0.0),
        seen: Spread { lower: calls, median: calls, upper: calls },
        digits: 0,
        is_difference: false,
    }));
    rows
}

/// The target against the best peer, the one with the lowest median.
fn p99_row(part: &contest::Part, ours: &contest::Arm) -> Option<Row> {
    let p99 = |arm: &contest::Arm| arm.open(|measured| measured.latency.p99 as f64);
    let best = best_peer(part, p99)?;
    Some(Row {
        what: format!("{}: open loop p99, against {}", part.title(), best.style),
        bound: Most(1.0),
        seen: Spread::of_ratios(&p99(ours), &p99(best))?,
        digits: 3,
        is_difference: false,
    })
}

fn http_row(part: &contest::Part) -> Option<Row> {
    let best = best_peer(part, contest::Arm::cpu_us)?;
    Some(Row {
        what: format!("{}: CPU a request, against {}", part.title(), best.style),
        bound: Most(1.0),
        seen: Spread::of_ratios(&part.arm(Style::Plainsong)?.cpu_us(), &best.cpu_us())?,
        digits: 3,
        is_difference: false,
    })
}

fn short_rows(part: &contest::Part) -> Vec<Row> {
    let peers = [Style::TokioCurrent, Style::Hyper].into_iter().filter_map(|peer| part.arm(peer));
    let row = |theirs: &contest::Arm| {
        Some(Row {
            what: format!("{}: CPU a request, against {}", part.title(), theirs.style),
            bound: Most(1.0),
            seen: Spread::of_ratios(&part.arm(Style::Plainsong)?.cpu_us(), &theirs.cpu_us())?,
            digits: 3,
            is_difference: false,
        })
    };
    peers.filter_map(row).collect()
}

fn best_peer(
    part: &contest::Part,
    of: impl Fn(&contest::Arm) -> Vec<f64>,
) -> Option<&contest::Arm> {
    let median = |arm: &&contest::Arm| Spread::of(of(arm)).map_or(f64::INFINITY, |s| s.median);
    let peers = part.arms.iter().filter(|arm| is_peer(arm.style));
    peers.min_by(|a, b| median(a).total_cmp(&median(b)))
}

/// The target is 80 ns, or five times the floor if that is more.
fn spawn_row(part: &Part) -> Option<Row> {
    let floor = part.arm(Peer::Bare)?.median(0)?;
    let what = format!("ns to spawn and join, {} alive at a time", part.count);
    column(part, 0, what, f64::max(80.0, 5.0 * floor), 0)
}

fn column(part: &Part, column: usize, what: String, most: f64, digits: usize) -> Option<Row> {
    let seen = Spread::of(part.arm(Peer::Plainsong)?.column(column))?;
    Some(Row { what, bound: Most(most), seen, digits, is_difference: false })
}

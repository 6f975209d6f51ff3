//! Metrics in the text format of Prometheus:
//! <https://prometheus.io/docs/instrumenting/exposition_formats>.

use std::fmt;

use super::dump::Answer;
use super::metrics::{Metrics, WorkerMetrics};
use crate::engine::numbers::{Counts, Histogram};

/// [`Metrics`] in the text format of Prometheus. Made by [`Metrics::prometheus`].
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a>(pub(super) &'a Metrics);

/// A number of each worker: its name, whether it only grows, what it is, and how it is read.
pub(super) type Number = (&'static str, Kind, &'static str, fn(&Counts) -> u64);

/// Whether a number only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

use Kind::{Counter, Gauge};

pub(super) const NUMBERS: &[Number] = &[
    ("coroutines_spawned_total", Counter, "Coroutines that were spawned or started here.", |it| {
        it.spawned
    }),
    ("coroutines", Gauge, "Coroutines that there are.", |it| it.live),
    ("coroutines_ready", Gauge, "Coroutines that wait for their turn.", |it| it.ready),
    (
        "coroutines_pending",
        Gauge,
        "Coroutines that have not started, and may start anywhere.",
        |it| it.pending,
    ),
    ("turns_total", Counter, "Turns of coroutines.", |it| it.turns),
    ("budget_yields_total", Counter, "Turns that ended because their budget was spent.", |it| {
        it.budget_yields
    }),
    ("steals_total", Counter, "Times that coroutines were taken from another worker.", |it| {
        it.steals
    }),
    ("remote_wakes_total", Counter, "Wakes that came from other threads.", |it| it.remote_wakes),
    ("polls_total", Counter, "Times that the kernel was asked for events.", |it| it.polls),
    ("events_total", Counter, "Events that the kernel has returned.", |it| it.events),
    ("timers", Gauge, "Timers that are armed.", |it| it.timers),
    ("stacks", Gauge, "Stacks, in use or kept for the next coroutines.", |it| it.stacks),
    ("stacks_free", Gauge, "Stacks that are not in use.", |it| it.free_stacks),
    ("stack_reserved_bytes", Gauge, "Address space that is reserved for stacks.", |it| {
        it.stack_bytes_reserved
    }),
    ("stack_resident_bytes", Gauge, "Memory that stacks take.", |it| it.stack_bytes_resident),
    ("stacks_trimmed_total", Counter, "Times that memory of a free stack was given back.", |it| {
        it.stacks_trimmed
    }),
];

/// A histogram of each worker.
pub(super) type Times = (&'static str, &'static str, fn(&Counts) -> &Histogram);

pub(super) const TIMES: &[Times] = &[
    ("ready_delay_seconds", "How long coroutines have waited for their turn.", |it| &it.delays),
    ("turn_seconds", "How long turns have taken.", |it| &it.turn_times),
    ("poll_seconds", "How long the kernel was asked for events, or slept in.", |it| &it.poll_times),
];

impl Metrics {
    /// The numbers in the text format of Prometheus, version 0.0.4. `to_string` makes the body of a
    /// response with the content type `text/plain; version=0.0.4`.
    ///
    /// Each worker has series of its own, with the labels `run` and `worker`. A worker that has not
    /// answered is left out, because a counter that falls to zero would count as a restart.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let text = plainsong::inspect::metrics().prometheus().to_string();
    ///     assert!(text.contains("\nplainsong_coroutines{run="));
    /// });
    /// ```
    pub fn prometheus(&self) -> Prometheus<'_> {
        Prometheus(self)
    }
}

impl fmt::Display for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Metrics { workers, blocking }) = self;
        let workers: Vec<_> = workers.iter().filter(|it| it.answer != Answer::Silent).collect();
        for (name, kind, help, read) in NUMBERS {
            head(f, name, help, if *kind == Counter { "counter" } else { "gauge" })?;
            for worker in &workers {
                writeln!(f, "plainsong_{name}{{{}}} {}", Labels(worker), read(&worker.counts))?;
            }
        }
        head(
            f,
            "coroutines_parked",
            "Coroutines that are parked, by what they wait for.",
            "gauge",
        )?;
        for worker in &workers {
            for (wait, count) in &worker.counts.parked {
                let labels = Labels(worker);
                writeln!(f, "plainsong_coroutines_parked{{{labels},wait=\"{wait}\"}} {count}")?;
            }
        }
        for (name, help, read) in TIMES {
            head(f, name, help, "histogram")?;
            for worker in &workers {
                write_histogram(f, name, worker, read(&worker.counts))?;
            }
        }
        for (name, kind, help, value) in [
            ("blocking_threads", "gauge", "Threads for blocking calls.", blocking.threads as u64),
            (
                "blocking_threads_idle",
                "gauge",
                "Those of them that are idle.",
                blocking.idle as u64,
            ),
            ("blocking_queued", "gauge", "Calls that no thread has begun.", blocking.queued as u64),
            ("blocking_calls_total", "counter", "Blocking calls.", blocking.calls),
        ] {
            head(f, name, help, kind)?;
            writeln!(f, "plainsong_{name} {value}")?;
        }
        Ok(())
    }
}

fn head(f: &mut fmt::Formatter<'_>, name: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(f, "# HELP plainsong_{name} {help}\n# TYPE plainsong_{name} {kind}")
}

fn write_histogram(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    worker: &WorkerMetrics,
    histogram: &Histogram,
) -> fmt::Result {
    let (labels, mut below) = (Labels(worker), 0);
    for (bound, count) in histogram.buckets() {
        below += count;
        write!(f, "plainsong_{name}_bucket{{{labels},le=\"")?;
        match bound {
            Some(bound) => write!(f, "{}", bound.as_secs_f64())?,
            None => f.write_str("+Inf")?,
        }
        writeln!(f, "\"}} {below}")?;
    }
    writeln!(f, "plainsong_{name}_sum{{{labels}}} {}", histogram.sum().as_secs_f64())?;
    writeln!(f, "plainsong_{name}_count{{{labels}}} {below}")
}

/// The labels of a worker. The reasons of waits are constants of this library without quotes or
/// backslashes, so nothing needs to be escaped.
struct Labels<'a>(&'a WorkerMetrics);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run=\"{}\",worker=\"{}\"", self.0.run, self.0.worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::BlockingPool;

    #[test]
    fn a_worker_that_has_not_answered_has_no_series() {
        let worker = |worker, answer| WorkerMetrics {
            run: 3,
            worker,
            answer,
            counts: Counts { turns: 5, ..Counts::default() },
        };
        let workers = vec![worker(0, Answer::InTurn), worker(1, Answer::Silent)];
        let blocking = BlockingPool { threads: 0, idle: 0, queued: 0, calls: 0 };
        let text = Metrics { workers, blocking }.prometheus().to_string();
        assert!(text.contains("plainsong_turns_total{run=\"3\",worker=\"0\"} 5\n"), "{text}");
        assert!(!text.contains("worker=\"1\""), "{text}");
    }
}

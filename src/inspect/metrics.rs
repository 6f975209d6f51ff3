//! Numbers about the workers.

use std::sync::Arc;

use super::dump::{Answer, Answered, ask_all};
use crate::engine::blocking_pool;
use crate::engine::bounds::Bounds;
use crate::engine::numbers::Counts;
use crate::engine::scheduler;
use crate::engine::survey::Survey;
use crate::engine::task::Wait;
use crate::engine::workers::Workers;

/// Numbers about this library in this process, at one moment. Made by [`metrics()`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Metrics {
    /// The workers of all runs that are under way.
    pub workers: Vec<WorkerMetrics>,
    /// The threads that make blocking calls for coroutines.
    pub blocking: BlockingPool,
}

/// Numbers about one worker of one run.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// The number of the run, in this process.
    pub run: u64,
    /// The number of the worker, in its run.
    pub worker: usize,
    /// How the worker has answered.
    pub answer: Answer,
    /// The numbers. All are zero if the worker has not answered.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub counts: Counts,
}

/// Numbers about the threads that make blocking calls.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BlockingPool {
    /// How many threads there are, without those that wait in an operation of this library.
    pub threads: usize,
    /// How many of them are idle.
    pub idle: usize,
    /// How many calls no thread has begun.
    pub queued: usize,
    /// How many calls there were in this process.
    pub calls: u64,
}

/// Takes the numbers of all workers.
///
/// It can be called wherever [`dump`](super::dump) can, and blocks the calling thread in the same
/// way: until all workers have answered, which a worker does between two turns.
///
/// Nearly all of it is counted anyway, at no cost that can be measured. A worker looks at each of
/// its coroutines for it, and the calling thread asks the kernel which pages of stacks are in
/// memory. With 100,000 coroutines this takes some 50 ms.
///
/// ```
/// plainsong::run(|| {
///     (0..10).for_each(|_| drop(plainsong::spawn(|| plainsong::thread::park())));
///     plainsong::yield_now();
///     let counts = plainsong::inspect::metrics().sum();
///     assert_eq!((counts.spawned, counts.live), (11, 11));
///     assert_eq!(counts.parked["unpark"], 10);
/// });
/// ```
pub fn metrics() -> Metrics {
    let mut workers = Vec::new();
    for run in Workers::all() {
        let answers = ask_all(&run, &|_| Survey::of_numbers());
        workers.extend(answers.into_iter().map(|answer| WorkerMetrics::new(&run, answer)));
    }
    let (threads, idle, queued, calls) = blocking_pool::numbers();
    Metrics { workers, blocking: BlockingPool { threads, idle, queued, calls } }
}

/// Begins or ends to measure times on all workers of this process: the histograms of
/// [`Counts`](super::Counts).
///
/// They need a clock, so nothing is measured before. Of the turns, about a sixteenth is measured:
/// all those between two sleeps, or between two ticks of a busy worker. This costs 2 % of an echo
/// server's instructions at most. All polls are measured. The first call blocks the thread for
/// 10 ms, for the calibration of the clock.
///
/// A worker begins with its next sleep, or when it next looks up from a full queue.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::inspect::measure_times(true);
/// plainsong::run(|| {
///     plainsong::time::sleep(Duration::from_millis(1));
///     let counts = plainsong::inspect::metrics().sum();
///     assert!(counts.poll_times.sum() > Duration::ZERO);
/// });
/// ```
pub fn measure_times(on: bool) {
    scheduler::set_measures(on);
}

impl WorkerMetrics {
    fn new(workers: &Arc<Workers>, answer: Answered) -> Self {
        let Answered { number, mut how, survey } = answer;
        let mut counts = Counts::default();
        match survey.numbers {
            Some(numbers) if how != Answer::Silent && !survey.unreadable => {
                counts = numbers.counts;
                for (wait, count) in numbers.parked {
                    *counts.parked.entry(label(wait)).or_default() += count;
                }
                let resident = numbers.stacks.into_iter().map(Bounds::resident_in);
                counts.stack_bytes_resident = resident.sum::<usize>() as u64;
                counts.pending = workers.load(number).1 as u64;
            }
            _ => how = Answer::Silent,
        }
        Self { run: workers.id().number(), worker: number, answer: how, counts }
    }
}

/// A kind of wait in a few words: `recv channel`, `sleep`, `coroutine to end`.
fn label(wait: Wait) -> String {
    match (wait.verb(), wait.kind()) {
        ("", _) => wait.text().replace(" #{}", "").replace(" {}", ""),
        (verb, "") => verb.to_owned(),
        (verb, kind) => format!("{verb} {kind}"),
    }
}

impl Metrics {
    /// The numbers of all workers together.
    pub fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.counts));
        sum
    }
}

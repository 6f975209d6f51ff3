//! Metrics through the crate `metrics`.

use std::collections::BTreeMap;

use ::metrics::{Label, counter, gauge, histogram};

use super::dump::Answer;
use super::metrics::{BlockingPool, Metrics, WorkerMetrics, metrics};
use super::prometheus::{Kind, NUMBERS, TIMES};
use crate::engine::mutex::Mutex;
use crate::engine::numbers::Histogram;

/// Publishes [`metrics()`] through the crate `metrics`, under the names that
/// [`prometheus`](Metrics::prometheus) uses. (Feature `metrics`.)
///
/// Call it from time to time, or whenever the numbers are read, and in one place: two calls at the
/// same time publish durations twice. A duration of a histogram is
/// published as the upper bound of its bucket.
///
/// ```no_run
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     plainsong::spawn(|| {
///         loop {
///             plainsong::inspect::publish_metrics();
///             plainsong::time::sleep(Duration::from_secs(5));
///         }
///     });
///     // ...
/// });
/// ```
pub fn publish_metrics() {
    let Metrics { workers, blocking } = metrics();
    // A recorder is user code, which must not run under the lock.
    let mut published = std::mem::take(&mut *PUBLISHED.lock());
    published.publish(&workers);
    *PUBLISHED.lock() = published;
    let BlockingPool { threads, idle, queued, calls } = blocking;
    gauge!("plainsong_blocking_threads").set(threads as f64);
    gauge!("plainsong_blocking_threads_idle").set(idle as f64);
    gauge!("plainsong_blocking_queued").set(queued as f64);
    counter!("plainsong_blocking_calls_total").absolute(calls);
}

static PUBLISHED: Mutex<Published> =
    Mutex::new(Published { times: BTreeMap::new(), parked: Vec::new() });

/// The numbers that were published last.
#[derive(Default)]
struct Published {
    // The histograms of each worker.
    times: BTreeMap<(u64, usize), Vec<Histogram>>,
    // The workers and reasons for which a number of parked coroutines was published.
    parked: Vec<(Vec<Label>, String)>,
}

impl Published {
    fn publish(&mut self, workers: &[WorkerMetrics]) {
        for (labels, wait) in std::mem::take(&mut self.parked) {
            parked(&labels, &wait).set(0.0);
        }
        let mut before = std::mem::take(&mut self.times);
        for worker in workers.iter().filter(|worker| worker.answer != Answer::Silent) {
            let known = before.remove(&(worker.run, worker.worker)).unwrap_or_default();
            self.publish_worker(worker, &known);
        }
    }

    fn publish_worker(&mut self, worker: &WorkerMetrics, known: &[Histogram]) {
        let WorkerMetrics { run, worker: number, counts, .. } = worker;
        let label = |key, value: String| Label::new(key, value);
        let labels = vec![label("run", run.to_string()), label("worker", number.to_string())];
        for (name, kind, _, read) in NUMBERS {
            let (name, value) = (format!("plainsong_{name}"), read(counts));
            match kind {
                Kind::Counter => counter!(name, labels.clone()).absolute(value),
                Kind::Gauge => gauge!(name, labels.clone()).set(value as f64),
            }
        }
        for (wait, count) in &counts.parked {
            parked(&labels, wait).set(*count as f64);
            self.parked.push((labels.clone(), wait.clone()));
        }
        let now: Vec<_> = TIMES.iter().map(|(_, _, read)| read(counts).clone()).collect();
        for (at, (name, _, _)) in TIMES.iter().enumerate() {
            let to = histogram!(format!("plainsong_{name}"), labels.clone());
            let before = known.get(at).cloned().unwrap_or_default();
            let mut seconds = 0.0;
            for ((bound, count), (_, published)) in now[at].buckets().zip(before.buckets()) {
                // The last bucket has no bound. Its durations are larger than the bound before it.
                seconds = bound.map_or(seconds, |bound| bound.as_secs_f64());
                to.record_many(seconds, count.saturating_sub(published) as usize);
            }
        }
        self.times.insert((*run, *number), now);
    }
}

fn parked(labels: &[Label], wait: &str) -> ::metrics::Gauge {
    let mut labels = labels.to_vec();
    labels.push(Label::new("wait", wait.to_owned()));
    gauge!("plainsong_coroutines_parked", labels)
}

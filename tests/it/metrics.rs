//! Metrics: the counts, the measured times, and the formats.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread as system;
use std::time::{Duration, Instant};

use plainsong::inspect::{Answer, Counts, Histogram, Metrics, measure_times, metrics};
use plainsong::net::{TcpListener, TcpStream};
use plainsong::sync::{Mutex, channel};
use plainsong::time::{sleep, timeout};
use plainsong::{blocking, spawn, spawn_anywhere, yield_now};

use crate::util::{HOUR, MOMENT, alone, on_another, run_on, runtime, until, until_parked};

/// The numbers of the only run.
pub(crate) fn counts() -> Counts {
    metrics().sum()
}

#[test]
fn coroutines_are_counted_by_what_they_wait_for() {
    let test = || {
        plainsong::run(|| {
            let mutex = Arc::new(Mutex::new(()));
            let _guard = mutex.lock().unwrap();
            let (sender, receiver) = channel::bounded::<()>(1);
            let ours = Arc::clone(&mutex);
            let locks = spawn(move || drop(ours.lock()));
            let receives: Vec<_> = (0..3)
                .map(|_| {
                    let receiver = receiver.clone();
                    spawn(move || receiver.recv())
                })
                .collect();
            let sleeps = spawn(|| timeout(HOUR, || sleep(HOUR)));
            let joined = spawn(|| spawn(|| sleep(HOUR)).join());
            receives.iter().for_each(until_parked);
            until_parked(&locks);
            until_parked(&sleeps);
            until_parked(&joined);
            // The coroutine that it waits for has its first turn after it.
            yield_now();
            let now = counts();
            assert_eq!((now.spawned, now.live, now.ready, now.pending), (8, 8, 0, 0));
            let parked: Vec<_> = now.parked.iter().map(|(wait, count)| (&**wait, *count)).collect();
            let expected =
                [("coroutine to end", 1), ("lock Mutex", 1), ("recv channel", 3), ("sleep", 2)];
            assert_eq!(parked, expected);
            assert_eq!(now.timers, 3);
            // One is in reserve.
            assert_eq!((now.stacks, now.free_stacks), (9, 1));
            assert!(now.stack_bytes_reserved >= 8 * 256 * 1024, "{now:?}");
            assert!(now.stack_bytes_resident >= 8 * 4096, "{now:?}");
            assert!(now.stack_bytes_resident < now.stack_bytes_reserved, "{now:?}");
            drop(sender);
            receives.into_iter().for_each(|handle| assert!(handle.join().unwrap().is_err()));
            let now = counts();
            assert_eq!((now.spawned, now.live, now.free_stacks), (8, 5, 4));
            assert_eq!(now.parked.get("recv channel"), None);
        });
        // Another run begins at zero.
        plainsong::run(|| assert_eq!(counts().spawned, 1));
        assert!(metrics().workers.is_empty());
    };
    alone(coroutines_are_counted_by_what_they_wait_for, test);
}

#[test]
fn turns_and_spent_budgets_are_counted() {
    let test = || {
        plainsong::run(|| {
            let turns = || counts().turns;
            let before = turns();
            (0..1000).for_each(|_| yield_now());
            assert_eq!(turns() - before, 1000);
            let (before, mutex) = (counts(), Mutex::new(0));
            (0..1000).for_each(|_| *mutex.lock().unwrap() += 1);
            let spent = counts().budget_yields - before.budget_yields;
            assert_eq!(spent, 1000 / 128);
            assert_eq!(counts().turns - before.turns, spent);
            let others: Vec<_> = (0..3)
                .map(|_| {
                    spawn(|| {
                        (0..300).for_each(|_| yield_now());
                    })
                })
                .collect();
            let before = turns();
            others.into_iter().for_each(|handle| handle.join().unwrap());
            // The join is one turn more.
            assert_eq!(turns() - before, 3 * 301 + 1);
        });
    };
    alone(turns_and_spent_budgets_are_counted, test);
}

#[test]
fn polls_and_events_and_calls_of_the_pool_are_counted() {
    let test = || {
        plainsong::run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let accepts = spawn(move || listener.accept());
            until_parked(&accepts);
            let before = counts();
            let _client = TcpStream::connect(address).unwrap();
            accepts.join().unwrap().unwrap();
            let now = counts();
            assert!(now.polls > before.polls && now.events > before.events, "{now:?}");
            let calls = metrics().blocking.calls;
            blocking(|| ());
            assert!(metrics().blocking.calls > calls);
            assert!(metrics().blocking.threads > 0);
        });
    };
    alone(polls_and_events_and_calls_of_the_pool_are_counted, test);
}

#[test]
fn steals_and_wakes_of_other_threads_are_counted() {
    let test = || {
        runtime(2).run(|| {
            let (sender, receiver) = channel::bounded::<()>(0);
            let other = on_another(move || receiver.recv());
            let before = counts().remote_wakes;
            // One of the two waits, and the other one wakes it.
            sender.send(()).unwrap();
            other.join().unwrap().unwrap();
            assert!(counts().remote_wakes > before);
            assert_eq!(metrics().workers.len(), 2);
            // This worker blocks its thread until others have started the jobs of its queue.
            let before = counts().steals;
            while counts().steals == before {
                let (started, starts) = mpsc::channel();
                for _ in 0..100 {
                    let started = started.clone();
                    spawn_anywhere(move || started.send(()).unwrap());
                }
                (0..100).for_each(|_| starts.recv().unwrap());
            }
        });
    };
    alone(steals_and_wakes_of_other_threads_are_counted, test);
}

#[test]
fn a_busy_worker_is_asked_by_a_signal_and_counts_its_turn() {
    let metrics = run_on(2, || {
        let release = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&release);
        let stuck = on_another(move || while !theirs.load(Ordering::SeqCst) {});
        let asks = system::spawn(|| {
            loop {
                let metrics = metrics();
                if metrics.workers.iter().any(|it| it.answer == Answer::Interrupted) {
                    return metrics;
                }
            }
        });
        until(|| asks.is_finished());
        release.store(true, Ordering::SeqCst);
        stuck.join().unwrap();
        asks.join().unwrap()
    });
    let busy = metrics.workers.iter().find(|it| it.answer == Answer::Interrupted).unwrap();
    assert!(busy.counts.live >= 1, "{metrics:?}");
}

#[test]
fn long_turns_and_the_delays_that_they_cause_are_measured() {
    const LONG: Duration = Duration::from_millis(20);
    let is_long = |histogram: &Histogram| {
        histogram.buckets().any(|(bound, count)| bound.is_none_or(|it| it > LONG) && count > 0)
    };
    let test = || {
        measure_times(true);
        plainsong::run(|| {
            loop {
                let waits = spawn(|| sleep(MOMENT));
                until_parked(&waits);
                sleep(MOMENT);
                let beside = spawn(|| ());
                let start = Instant::now();
                while start.elapsed() < LONG {
                    hint::spin_loop();
                }
                beside.join().unwrap();
                let now = counts();
                assert!(now.turn_times.count() <= now.turns, "{now:?}");
                if is_long(&now.turn_times) && is_long(&now.delays) && now.poll_times.count() > 0 {
                    assert!(now.turn_times.sum() >= LONG && now.delays.sum() >= LONG);
                    break;
                }
            }
            measure_times(false);
            sleep(MOMENT);
            let before = counts().turn_times;
            (0..1000).for_each(|_| yield_now());
            assert_eq!(counts().turn_times, before);
        });
    };
    alone(long_turns_and_the_delays_that_they_cause_are_measured, test);
}

#[test]
fn a_dump_knows_how_long_a_wait_has_lasted_although_turns_are_measured() {
    let test = || {
        measure_times(true);
        plainsong::run(|| {
            until(|| {
                sleep(MOMENT);
                counts().turn_times.count() > 0
            });
            let start = Instant::now();
            let waits = spawn(|| sleep(HOUR));
            until_parked(&waits);
            sleep(10 * MOMENT);
            let dump = plainsong::inspect::dump();
            let one = dump.coroutines().find(|one| one.id == waits.id()).unwrap();
            let (waited, limit) = (one.waits_for.as_ref().unwrap().waited, start.elapsed());
            // In whole milliseconds of a clock that is read at times.
            assert!(waited <= limit + 10 * MOMENT, "{waited:?} of {limit:?}");
        });
    };
    alone(a_dump_knows_how_long_a_wait_has_lasted_although_turns_are_measured, test);
}

#[test]
fn a_busy_worker_measures_a_part_of_its_turns_and_no_delay_that_it_does_not_know() {
    let test = || {
        measure_times(true);
        plainsong::run(|| {
            sleep(MOMENT);
            let handles: Vec<_> =
                (0..10).map(|_| spawn(|| (0..10_000).for_each(|_| yield_now()))).collect();
            let start = Instant::now();
            handles.into_iter().for_each(|handle| handle.join().unwrap());
            let (now, limit) = (counts(), start.elapsed());
            assert!(now.turn_times.count() >= now.turns / 64, "{now:?}");
            // None has waited for longer than all of it has taken.
            let longest = now.delays.buckets().filter(|(_, count)| *count > 0).last().unwrap().0;
            assert!(longest.unwrap() <= 2 * limit + LEAST, "{longest:?} of {limit:?}");
        });
    };
    const LEAST: Duration = Duration::from_micros(1);
    alone(a_busy_worker_measures_a_part_of_its_turns_and_no_delay_that_it_does_not_know, test);
}

/// Checks the text format of Prometheus, as far as this library uses it. Returns the samples.
fn parse(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'));
    let (mut family, mut kind) = ("", "");
    let mut families: Vec<&str> = Vec::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family);
            continue;
        }
        if let Some(is) = line.strip_prefix("# TYPE ") {
            let (name, is) = is.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&is), "{line}");
            assert_eq!(is == "counter", name.ends_with("_total"), "{line}");
            kind = is;
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let parts = ["_bucket", "_sum", "_count"].map(|end| format!("{family}{end}"));
        assert!(
            if kind == "histogram" { parts.iter().any(|it| it == name) } else { name == family },
            "{line} in {family}"
        );
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(legal), "{line}");
        if let Some((_, labels)) = series.split_once('{') {
            for label in labels.strip_suffix('}').unwrap().split(',') {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(key.chars().all(legal) && value.ends_with('"'), "{line}");
            }
        }
        assert!(samples.iter().all(|(other, _)| other != series), "{series} comes twice");
        samples.push((series.to_owned(), value.parse().unwrap()));
    }
    samples
}

#[test]
fn the_text_for_prometheus_is_well_formed_and_its_histograms_add_up() {
    let test = || {
        measure_times(true);
        runtime(2).run(|| {
            until(|| {
                sleep(MOMENT);
                counts().turn_times.count() > 0
            });
            let metrics: Metrics = metrics();
            let samples = parse(&metrics.prometheus().to_string());
            let value = |series: &str| {
                let found = samples.iter().find(|(other, _)| other == series);
                found.unwrap_or_else(|| panic!("no {series} in {samples:#?}")).1
            };
            let run = metrics.workers[0].run;
            let spawned =
                format!("plainsong_coroutines_spawned_total{{run=\"{run}\",worker=\"0\"}}");
            assert_eq!(value(&spawned), 1.0);
            for (at, worker) in metrics.workers.iter().enumerate() {
                let labels = format!("run=\"{run}\",worker=\"{at}\"");
                let count = value(&format!("plainsong_turn_seconds_count{{{labels}}}"));
                assert_eq!(count, worker.counts.turn_times.count() as f64);
                let buckets = format!("plainsong_turn_seconds_bucket{{{labels},le=");
                let buckets = samples.iter().filter(|(series, _)| series.starts_with(&buckets));
                let buckets: Vec<f64> = buckets.map(|(_, value)| *value).collect();
                assert!(buckets.is_sorted() && buckets.len() > 10, "{buckets:?}");
                assert_eq!(*buckets.last().unwrap(), count);
                let last = value(&format!("plainsong_turn_seconds_bucket{{{labels},le=\"+Inf\"}}"));
                assert_eq!(last, count);
            }
        });
    };
    alone(the_text_for_prometheus_is_well_formed_and_its_histograms_add_up, test);
}

#[cfg(feature = "metrics")]
mod facade {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering};

    use metrics::{
        Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit, with_local_recorder,
    };
    use plainsong::inspect::publish_metrics;

    use super::*;

    /// Keeps what is published, by the name of the series.
    #[derive(Default)]
    struct Kept(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    impl Kept {
        fn of(&self, key: &Key) -> Arc<AtomicU64> {
            let labels = key.labels().map(|it| format!(" {}={}", it.key(), it.value()));
            let name = format!("{}{}", key.name(), labels.collect::<String>());
            Arc::clone(self.0.lock().unwrap().entry(name).or_default())
        }

        fn get(&self, name: &str) -> u64 {
            let all = self.0.lock().unwrap();
            all.get(name).unwrap_or_else(|| panic!("no {name} in {all:#?}")).load(Ordering::SeqCst)
        }
    }

    struct Count(Arc<AtomicU64>);

    impl HistogramFn for Count {
        fn record(&self, value: f64) {
            assert!(value > 0.0 && value.is_finite());
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.of(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.of(key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(Count(self.of(key))))
        }
    }

    #[test]
    fn metrics_are_published_through_the_facade() {
        let test = || {
            measure_times(true);
            plainsong::run(|| {
                let sleeper = spawn(|| sleep(HOUR));
                until_parked(&sleeper);
                until(|| {
                    sleep(MOMENT);
                    counts().turn_times.count() > 0
                });
                let kept = Kept::default();
                with_local_recorder(&kept, publish_metrics);
                let labels = format!("run={} worker=0", metrics().workers[0].run);
                let get = |name: &str| kept.get(&format!("plainsong_{name} {labels}"));
                let gauge = |name: &str| f64::from_bits(get(name));
                assert_eq!(get("coroutines_spawned_total"), 2);
                assert_eq!(gauge("coroutines"), 2.0);
                let sleeps = format!("plainsong_coroutines_parked {labels} wait=sleep");
                assert_eq!(f64::from_bits(kept.get(&sleeps)), 1.0);
                let before = get("turn_seconds");
                assert!(before > 0 && before <= get("turns_total"));
                sleeper.cancel();
                sleeper.join().unwrap_err();
                measure_times(false);
                sleep(MOMENT);
                with_local_recorder(&kept, publish_metrics);
                // Nothing sleeps any more, and no turn is published twice.
                assert_eq!(f64::from_bits(kept.get(&sleeps)), 0.0);
                assert_eq!(get("turn_seconds"), counts().turn_times.count());
            });
        };
        alone(metrics_are_published_through_the_facade, test);
    }
}

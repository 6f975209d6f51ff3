//! The flight recorder: its events, and when a snapshot can be taken.

use std::fs;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread as system;

use plainsong::inspect::{Trace, recorder};
use plainsong::net::UnixStream;
use plainsong::sync::channel;
use plainsong::time::sleep;
use plainsong::{Builder, spawn, spawn_anywhere, yield_now};
use serde_json::Value;

use crate::util::{HOUR, MOMENT, alone, on_another, runtime, until, until_parked};

const EVENTS: usize = 10_000;

fn snapshot() -> Trace {
    recorder().snapshot(HOUR)
}

/// The events of a trace, which must be valid JSON of the format.
fn events(trace: &Trace) -> Vec<Value> {
    let mut json: Value = serde_json::from_str(&trace.to_string()).unwrap();
    let Value::Array(events) = json["traceEvents"].take() else { panic!("{json}") };
    for event in &events {
        let kind = event["ph"].as_str().unwrap();
        assert!(["M", "X", "i", "s", "f"].contains(&kind), "{event}");
        assert!(event["pid"].is_u64() && event["tid"].is_u64() && event["name"].is_string());
        assert_eq!(event["ts"].is_f64(), kind != "M", "{event}");
        assert_eq!(event["dur"].is_f64(), kind == "X", "{event}");
    }
    events
}

/// Whether there is an event of this name, of which `says` holds.
fn has(events: &[Value], name: &str, says: impl Fn(&Value) -> bool) -> bool {
    events.iter().any(|event| event["name"] == name && says(&event["args"]))
}

/// Runs `body` in a process of its own, with the recorder on, and when the worker has noticed that.
fn recorded<F: Copy>(test: F, body: impl FnOnce()) {
    alone(test, || {
        recorder().start(EVENTS);
        plainsong::run(|| {
            sleep(MOMENT);
            body();
        });
    });
}

#[test]
fn a_life_from_spawn_to_end() {
    recorded(a_life_from_spawn_to_end, || {
        let (sender, receiver) = channel::bounded::<()>(0);
        let line = line!() + 1;
        let one = Builder::new().name("say \"hi\"").spawn(move || receiver.recv()).unwrap();
        let (id, name) = (one.id().to_string(), format!("{} say \"hi\"", one.id()));
        until_parked(&one);
        // It is alive, so its name is known.
        let before = events(&snapshot());
        assert!(has(&before, &name, |it| it["then"] == "waits for an item of a channel"));
        let place = format!("tests/it/recorder.rs:{line}:");
        assert!(has(&before, "spawn", |it| {
            it["coroutine"] == name
                && it["at"].as_str().unwrap().starts_with(&place)
                && it["by"].as_str().unwrap().ends_with(" main")
        }));
        let ends_in = |it: &Value, end: &str| it["by"].as_str().is_some_and(|by| by.ends_with(end));
        sender.send(()).unwrap();
        one.join().unwrap().unwrap();
        let after = events(&snapshot());
        assert!(
            has(&after, "wake", |it| it["coroutine"] == id && ends_in(it, " main")),
            "{after:#?}"
        );
        assert!(has(&after, &id, |it| {
            it["then"] == "ends" && it["spawned"].as_str().unwrap().starts_with(&place)
        }));
        // Arrows begin in pairs with their ends, and lead forward.
        let arrows = |kind: &str| -> Vec<(u64, f64)> {
            let all = after.iter().filter(|event| event["ph"] == kind);
            all.map(|it| (it["id"].as_u64().unwrap(), it["ts"].as_f64().unwrap())).collect()
        };
        let (begins, ends) = (arrows("s"), arrows("f"));
        assert!(begins.len() >= 2 && begins.len() == ends.len());
        for ((id, from), (other, to)) in begins.into_iter().zip(ends) {
            assert!(id == other && from <= to);
        }
    });
}

#[test]
fn timers_events_other_threads_and_cancellations_wake() {
    recorded(timers_events_other_threads_and_cancellations_wake, || {
        let woken = |id: plainsong::Id, by: &str| {
            let all = events(&snapshot());
            let is = |it: &Value| it["coroutine"] == id.to_string() && it["by"] == by;
            assert!(has(&all, "wake", is), "{id} by {by}: {all:#?}");
        };
        let sleeper = spawn(|| sleep(MOMENT));
        let id = sleeper.id();
        sleeper.join().unwrap();
        woken(id, "a timer");

        let (mut left, right) = UnixStream::pair().unwrap();
        let reader = spawn(move || std::io::Read::read(&mut left, &mut [0]));
        let id = reader.id();
        until_parked(&reader);
        drop(right);
        reader.join().unwrap().unwrap();
        woken(id, "an event of the kernel");
        assert!(has(&events(&snapshot()), "poll", |it| it["events"].as_u64() >= Some(1)));

        let (sender, receiver) = channel::bounded::<()>(1);
        let receiver = spawn(move || receiver.recv());
        let id = receiver.id();
        until_parked(&receiver);
        system::spawn(move || sender.send(())).join().unwrap().unwrap();
        receiver.join().unwrap().unwrap();
        woken(id, "another thread");

        let cancelled = spawn(|| sleep(HOUR));
        let id = cancelled.id();
        until_parked(&cancelled);
        cancelled.cancel();
        cancelled.join().unwrap_err();
        woken(id, "a cancellation");
        let is = |it: &Value| {
            it["coroutine"] == id.to_string() && it["by"].as_str().unwrap().ends_with(" main")
        };
        assert!(has(&events(&snapshot()), "cancel", is));
    });
}

#[test]
fn the_turn_of_a_worker_that_is_stuck_is_in_the_trace() {
    let test = || {
        recorder().start(EVENTS);
        runtime(2).run(|| {
            sleep(MOMENT);
            let release = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&release);
            let stuck = on_another(move || {
                // The worker has noticed the recorder after a sleep.
                sleep(MOMENT);
                while !theirs.load(Ordering::SeqCst) {
                    hint::spin_loop();
                }
            });
            let id = stuck.id().to_string();
            let finds = system::spawn(move || {
                while !has(&events(&snapshot()), &id, |it| it["then"] == "still runs") {}
            });
            until(|| finds.is_finished());
            finds.join().unwrap();
            release.store(true, Ordering::SeqCst);
            stuck.join().unwrap();
            let all = events(&snapshot());
            let workers = all.iter().filter(|event| event["ph"] == "M");
            assert_eq!(workers.count(), 2, "{all:#?}");
        });
    };
    alone(the_turn_of_a_worker_that_is_stuck_is_in_the_trace, test);
}

#[test]
fn only_the_last_events_are_kept_and_none_when_it_is_off() {
    let test = || {
        assert!(!recorder().is_on());
        recorder().start(100);
        assert!(recorder().is_on());
        plainsong::run(|| {
            sleep(MOMENT);
            (0..1000).for_each(|_| yield_now());
            let kept = snapshot().len();
            assert!((100..=129).contains(&kept), "{kept}");
            assert_eq!(recorder().snapshot(std::time::Duration::ZERO).len(), 1, "the turn now");
            // The same ring, of another size.
            recorder().start(1000);
            sleep(MOMENT);
            (0..1000).for_each(|_| yield_now());
            assert!(snapshot().len() >= 1000);
            recorder().stop();
            sleep(MOMENT);
            let before = snapshot().len();
            (0..10).for_each(|_| yield_now());
            assert_eq!(snapshot().len(), before);
        });
    };
    alone(only_the_last_events_are_kept_and_none_when_it_is_off, test);
}

#[test]
fn snapshots_under_load_and_across_runs() {
    let test = || {
        recorder().start(1000);
        let done = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&done);
        let reads = system::spawn(move || {
            let mut most = 0;
            while !theirs.load(Ordering::SeqCst) {
                most = most.max(events(&snapshot()).len());
            }
            most
        });
        for _ in 0..20 {
            runtime(2).run(|| {
                let each = |_| {
                    spawn_anywhere(|| {
                        for _ in 0..100 {
                            spawn(yield_now).join().unwrap();
                        }
                    })
                };
                let all: Vec<_> = (0..10).map(each).collect();
                all.into_iter().for_each(|handle| handle.join().unwrap());
            });
        }
        done.store(true, Ordering::SeqCst);
        assert!(reads.join().unwrap() > 0);
        // Two workers at a time have had two rings.
        assert!(snapshot().len() <= 4 * 1024, "{:?}", snapshot());
    };
    alone(snapshots_under_load_and_across_runs, test);
}

#[test]
fn a_snapshot_is_saved_to_a_file_of_its_own() {
    recorded(a_snapshot_is_saved_to_a_file_of_its_own, || {
        let (one, two) = (recorder().save(HOUR).unwrap(), recorder().save(HOUR).unwrap());
        assert_ne!(one, two);
        for path in [one, two] {
            let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            assert!(!json["traceEvents"].as_array().unwrap().is_empty());
            fs::remove_file(path).unwrap();
        }
    });
}

#[cfg(feature = "signal")]
#[test]
fn a_signal_saves_one_beside_the_dump() {
    use plainsong::signal::SIGUSR1;
    use rustix::process::{Signal, getpid, kill_process};

    recorded(a_signal_saves_one_beside_the_dump, || {
        plainsong::inspect::dump_on(&[SIGUSR1]).unwrap();
        kill_process(getpid(), Signal::USR1).unwrap();
        let name = format!("plainsong-{}-0.trace.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        until(|| fs::read_to_string(&path).is_ok_and(|text| text.ends_with("]}\n")));
        fs::remove_file(path).unwrap();
    });
}

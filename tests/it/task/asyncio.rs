//! Programs from introductions to asyncio, with the output that they have there.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use plainsong::sync::Event;
use plainsong::task::{as_completed, gather, wait};
use plainsong::time::{now, sleep, sleep_until, timeout};
use plainsong::{JoinHandle, spawn};

use crate::util::{HOUR, OnDrop, run, until_parked};

thread_local! {
    static OUTPUT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn print(line: &str) {
    OUTPUT.with_borrow_mut(|output| writeln!(output, "{line}").unwrap());
}

/// The output of `program`.
fn output_of(program: fn()) -> Vec<String> {
    run(move || {
        program();
        OUTPUT.take().lines().map(str::to_owned).collect()
    })
}

#[test]
fn a_task_is_cancelled_while_it_sleeps_and_cleans_up() {
    let output = output_of(|| {
        let task = spawn(|| {
            print("cancel_me(): before sleep");
            let _after = OnDrop(|| print("cancel_me(): after sleep"));
            let sleeping = OnDrop(|| print("cancel_me(): cancel sleep"));
            sleep(HOUR);
            std::mem::forget(sleeping);
        });
        until_parked(&task);
        task.cancel();
        match task.join() {
            Err(error) if error.is_cancelled() => print("main(): cancel_me is cancelled now"),
            result => print(&format!("{result:?}")),
        }
    });
    let expected = [
        "cancel_me(): before sleep",
        "cancel_me(): cancel sleep",
        "cancel_me(): after sleep",
        "main(): cancel_me is cancelled now",
    ];
    assert_eq!(output, expected);
}

#[test]
fn a_wait_with_a_time_out_and_then_the_pending_are_cancelled() {
    let output = output_of(|| {
        let phase = |n: u32| {
            spawn(move || {
                print(&format!("in phase {n}"));
                let cancelled = OnDrop(|| print(&format!("phase {n} canceled")));
                sleep(HOUR * n);
                std::mem::forget(cancelled);
                print(&format!("done with phase {n}"));
                format!("phase {n} result")
            })
        };
        print("starting main");
        let phases: Vec<_> = (0..3).map(phase).collect();
        print("waiting 0.1 for phases to complete");
        let (completed, pending) = wait(phases, Some(Duration::from_millis(100)));
        print(&format!("{} completed and {} pending", completed.len(), pending.len()));
        print("canceling tasks");
        pending.iter().for_each(JoinHandle::cancel);
        let (ended, _) = wait(pending, None);
        assert!(ended.into_iter().all(|phase| phase.join().unwrap_err().is_cancelled()));
        print("exiting main");
    });
    let expected = [
        "starting main",
        "waiting 0.1 for phases to complete",
        "in phase 0",
        "in phase 1",
        "in phase 2",
        "done with phase 0",
        "1 completed and 2 pending",
        "canceling tasks",
        "phase 1 canceled",
        "phase 2 canceled",
        "exiting main",
    ];
    assert_eq!(output, expected);
}

#[test]
fn gather_gives_results_in_order() {
    let output = output_of(|| {
        // From one point in time, so that a late start does not change the order of the ends.
        let start = now();
        let phase = |name: &'static str, seconds: u64| {
            move || {
                print(&format!("in {name}"));
                // A hundred times faster.
                sleep_until(start + Duration::from_millis(10 * seconds));
                print(&format!("done with {name}"));
                format!("{name} result")
            }
        };
        print("starting main");
        print("waiting for phases to complete");
        let results = gather([phase("phase1", 2), phase("phase2", 1)]);
        print(&format!("results: {results:?}"));
    });
    let expected = [
        "starting main",
        "waiting for phases to complete",
        "in phase1",
        "in phase2",
        "done with phase2",
        "done with phase1",
        r#"results: ["phase1 result", "phase2 result"]"#,
    ];
    assert_eq!(output, expected);
}

#[test]
fn as_completed_gives_results_in_the_order_of_the_ends() {
    let output = output_of(|| {
        // Each may end when the answer of the one after it has been received.
        let turns: Vec<_> = (0..3).map(|_| Rc::new(Event::new())).collect();
        let phase = |n: usize| {
            let turn = Rc::clone(&turns[n]);
            spawn(move || {
                print(&format!("in phase {n}"));
                turn.wait();
                print(&format!("done with phase {n}"));
                format!("phase {n} result")
            })
        };
        print("starting main");
        let phases: Vec<_> = (0..3).map(phase).collect();
        print("waiting for phases to complete");
        let mut results = Vec::new();
        let mut turn = turns.iter().rev();
        let mut next = || turn.next().into_iter().for_each(|turn| turn.set());
        next();
        for answer in as_completed(phases) {
            let answer = answer.unwrap();
            print(&format!("received answer {answer:?}"));
            results.push(answer);
            next();
        }
        print(&format!("results: {results:?}"));
    });
    let expected = [
        "starting main",
        "waiting for phases to complete",
        "in phase 0",
        "in phase 1",
        "in phase 2",
        "done with phase 2",
        r#"received answer "phase 2 result""#,
        "done with phase 1",
        r#"received answer "phase 1 result""#,
        "done with phase 0",
        r#"received answer "phase 0 result""#,
        r#"results: ["phase 2 result", "phase 1 result", "phase 0 result"]"#,
    ];
    assert_eq!(output, expected);
}

#[test]
fn a_chain_of_coroutines_returns_results() {
    fn phase1() -> String {
        print("in phase1");
        plainsong::yield_now();
        "result1".to_owned()
    }
    fn phase2(argument: &str) -> String {
        print("in phase2");
        plainsong::yield_now();
        format!("result2 derived from {argument}")
    }
    let output = output_of(|| {
        let outer = spawn(|| {
            print("in outer");
            print("waiting for result1");
            let result1 = spawn(phase1).join().unwrap();
            print("waiting for result2");
            let argument = result1.clone();
            let result2 = spawn(move || phase2(&argument)).join().unwrap();
            (result1, result2)
        });
        print(&format!("return value: {:?}", outer.join().unwrap()));
    });
    let expected = [
        "in outer",
        "waiting for result1",
        "in phase1",
        "waiting for result2",
        "in phase2",
        r#"return value: ("result1", "result2 derived from result1")"#,
    ];
    assert_eq!(output, expected);
}

#[test]
fn wait_for_takes_no_longer_than_its_time_out() {
    let output = output_of(|| {
        let eternity = || {
            sleep(HOUR);
            print("yay!");
        };
        if timeout(Duration::from_millis(10), eternity).is_err() {
            print("timeout!");
        }
    });
    assert_eq!(output, ["timeout!"]);
}

#[test]
fn a_task_that_is_not_waited_for_is_cancelled_at_the_end() {
    let output = output_of(|| {
        let [first, second] = [("first", 0), ("second", 3600)].map(|(name, seconds)| {
            spawn(move || {
                let cancelled = OnDrop(|| print(&format!("{name}: cancelled")));
                sleep(Duration::from_secs(seconds));
                std::mem::forget(cancelled);
                print(&format!("{name}: done"));
            })
        });
        first.join().unwrap();
        until_parked(&second);
        second.cancel();
        second.cancel();
        assert!(second.join().unwrap_err().is_cancelled());
        print("main: done");
    });
    assert_eq!(output, ["first: done", "second: cancelled", "main: done"]);
}

//! `timeout` and `timeout_at`: nested, swallowed, and expired while the thread is busy.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use plainsong::generator::Generator;
use plainsong::time::{sleep, timeout, timeout_at};
use plainsong::{CancellationToken, task, thread};

use crate::util::{HOUR, MOMENT, OnDrop, alone, both, once_asleep, pair, run, until_parked, watch};

#[test]
fn of_zero() {
    both(|| {
        assert_eq!(timeout(Duration::ZERO, || 5), Ok(5));
        assert!(timeout(Duration::ZERO, plainsong::yield_now).is_err());
        assert!(timeout(Duration::ZERO, || sleep(HOUR)).is_err());
        assert!(timeout(Duration::ZERO, || sleep(Duration::ZERO)).is_err());
    });
}

#[test]
fn in_the_past() {
    both(|| {
        let past = Instant::now() - Duration::from_secs(1);
        assert_eq!(timeout_at(past, || 5), Ok(5));
        assert!(timeout_at(past, plainsong::yield_now).is_err());
        assert!(timeout_at(past, || timeout(HOUR, || sleep(HOUR))).is_err());
    });
}

#[test]
fn of_more_than_the_clock_holds() {
    both(|| {
        let slept = timeout(Duration::MAX, || {
            sleep(MOMENT);
            5
        });
        assert_eq!(slept, Ok(5));
        // The longest time that it does hold.
        let mut longest = Duration::MAX;
        while Instant::now().checked_add(longest).is_none() {
            longest /= 2;
        }
        assert_eq!(timeout(longest, || sleep(MOMENT)), Ok(()));
    });
}

#[test]
fn over_ready_data_whose_time_is_over() {
    run(|| {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(b"ready").unwrap();
        crate::util::until_readable(&ours);
        let read = timeout(Duration::ZERO, || ours.read(&mut [0; 5]).unwrap());
        assert_eq!(read, Ok(5));
        assert!(timeout(MOMENT, || ours.read(&mut [0; 5])).is_err());
        theirs.write_all(b"again").unwrap();
        let mut data = [0; 5];
        ours.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"again");
    });
}

#[test]
fn of_more_reads_than_one_look_tells_whose_data_came_in_time() {
    run(|| {
        let (mut theirs, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..150 {
            let (mut ours, their) = pair();
            let limit = Duration::from_millis(100);
            readers.push(move || timeout(limit, || ours.read(&mut [0]).unwrap()));
            theirs.push(their);
        }
        let readers: Vec<_> = readers.into_iter().map(plainsong::spawn).collect();
        plainsong::yield_now();
        theirs.iter_mut().for_each(|their| their.write_all(b"x").unwrap());
        // Blocks the whole thread until all time-outs have passed.
        std::thread::sleep(Duration::from_millis(110));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Ok(1));
        }
    });
}

/// When a stopped process continues, its sleep is interrupted and its time-outs have passed.
#[test]
fn of_a_process_that_was_stopped_while_data_came() {
    alone(of_a_process_that_was_stopped_while_data_came, || {
        plainsong::run(|| {
            let (mut ours, theirs) = pair();
            let limit = Duration::from_millis(200);
            let reader = plainsong::spawn(move || timeout(limit, || ours.read(&mut [0]).unwrap()));
            until_parked(&reader);
            let script = "kill -STOP $PPID; printf x; sleep 0.3; kill -CONT $PPID";
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", script]).stdout(OwnedFd::from(theirs));
            let mut shell = shell.spawn().unwrap();
            assert_eq!(reader.join().unwrap(), Ok(1));
            assert!(shell.wait().unwrap().success());
        });
    });
}

#[test]
fn of_a_time_out_and_a_sleep_that_expire_in_one_look() {
    run(|| {
        for (limit, pause) in [(1, 2), (2, 1), (1, 1)] {
            let limit = Duration::from_micros(limit);
            let pause = Duration::from_micros(pause);
            let sleepers: Vec<_> = (0..200)
                .map(|_| {
                    plainsong::spawn(move || {
                        let nested = || timeout(limit, || timeout(limit, || sleep(pause)));
                        let _ = timeout(limit, nested);
                    })
                })
                .collect();
            plainsong::yield_now();
            // Blocks the whole thread until all time-outs have passed.
            std::thread::sleep(MOMENT);
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        }
    });
}

#[test]
fn nested_ones_each_stop_at_their_own() {
    run(|| {
        let inner = timeout(HOUR, || timeout(MOMENT, || sleep(HOUR)));
        assert!(matches!(inner, Ok(Err(_))));
        let outer = timeout(MOMENT, || {
            let inner = timeout(HOUR, || sleep(HOUR));
            unreachable!("{inner:?}: the outer one passes through");
        });
        assert!(outer.is_err());
        // Both have passed: the outer one decides.
        let both = timeout(Duration::ZERO, || timeout(Duration::ZERO, || sleep(HOUR)));
        assert!(both.is_err());
        // A hundred levels deep.
        fn deep(levels: u32) -> u32 {
            if levels == 0 {
                sleep(HOUR);
            }
            match timeout(if levels == 50 { MOMENT } else { HOUR }, || deep(levels - 1)) {
                Ok(elapsed) => elapsed,
                Err(_) => levels,
            }
        }
        assert_eq!(deep(100), 50);
    });
}

#[test]
fn what_is_swallowed_comes_again() {
    run(|| {
        let swallowed = Cell::new(0);
        let ended = timeout(MOMENT, || {
            while swallowed.get() < 100 {
                assert!(catch_unwind(|| sleep(HOUR)).is_err());
                swallowed.set(swallowed.get() + 1);
            }
            "gives up itself"
        });
        assert_eq!(ended, Ok("gives up itself"));
        // And nothing is left of it.
        sleep(MOMENT);
        plainsong::yield_now();
        assert_eq!(swallowed.get(), 100);
    });
}

#[test]
fn a_swallowed_one_is_forgotten_when_it_is_over() {
    run(|| {
        let worker = plainsong::spawn(|| {
            // As in a framework that catches panics, with a time-out for each request.
            for _ in 0..3000 {
                let request = timeout(Duration::ZERO, || {
                    let _ = catch_unwind(plainsong::yield_now);
                    plainsong::yield_now();
                });
                assert!(request.is_err());
            }
            "works on"
        });
        assert_eq!(worker.join().unwrap(), "works on");
    });
}

#[test]
fn one_that_swallowed_is_well_while_another_unwinds() {
    run(|| {
        // The time-out was caught, and no wait followed.
        assert_eq!(
            timeout(Duration::ZERO, || catch_unwind(plainsong::yield_now).is_err()),
            Ok(true)
        );
        let slow = plainsong::spawn(|| {
            let _guard = OnDrop(thread::park);
            sleep(HOUR);
        });
        until_parked(&slow);
        slow.cancel();
        plainsong::yield_now();
        let (mut ours, mut theirs) = pair();
        let writer = once_asleep(move || theirs.write_all(b"hello").unwrap());
        // This read has to wait while the other is in its destructor.
        assert_eq!(ours.read(&mut [0; 5]).map_err(|error| error.to_string()), Ok(5));
        assert!(timeout(MOMENT, || sleep(HOUR)).is_err());
        slow.thread().unpark();
        assert!(slow.join().unwrap_err().is_cancelled());
        writer.join().unwrap();
    });
}

#[test]
fn a_panic_passes_through() {
    both(|| {
        let result = catch_unwind(|| timeout(HOUR, || resume_unwind(Box::new("its own"))));
        let payload = result.unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "its own");
    });
}

#[test]
fn destructors_run_before_it_returns() {
    run(|| {
        let log = RefCell::new(Vec::new());
        let ended = timeout(MOMENT, || {
            let _outer = OnDrop(|| log.borrow_mut().push("outer"));
            let _inner = OnDrop(|| {
                // A destructor may wait.
                sleep(MOMENT);
                log.borrow_mut().push("inner");
            });
            sleep(HOUR);
        });
        assert!(ended.is_err());
        assert_eq!(*log.borrow(), ["inner", "outer"]);
        assert_eq!(std::io::Error::from(ended.unwrap_err()).kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn around_everything_that_opens_scopes() {
    run(|| {
        let scoped = timeout(MOMENT, || plainsong::scope(|s| drop(s.spawn(|| sleep(HOUR)))));
        assert!(scoped.is_err());
        assert!(timeout(MOMENT, || task::gather([|| sleep(HOUR)])).is_err());
        let token = CancellationToken::new();
        assert!(timeout(MOMENT, || token.run_until_cancelled(|| sleep(HOUR))).is_err());
        assert!(!token.is_cancelled());
        let mut ticks = Generator::new(|out| {
            loop {
                sleep(HOUR);
                out.yield_(());
            }
        });
        assert!(timeout(MOMENT, || ticks.next()).is_err());
        assert!(ticks.is_done());
        let shielded = timeout(Duration::ZERO, || plainsong::shield(|| sleep(MOMENT)));
        assert_eq!(shielded, Ok(()), "a shield goes to its end, and then there was no wait");
        let in_shield = timeout(HOUR, || plainsong::shield(|| timeout(MOMENT, || sleep(HOUR))));
        assert!(matches!(in_shield, Ok(Err(_))));
    });
}

#[test]
fn the_coroutine_is_cancelled_inside() {
    run(|| {
        let child = plainsong::spawn(|| {
            let ended = timeout(HOUR, || timeout(HOUR, || sleep(HOUR)));
            unreachable!("{ended:?}");
        });
        until_parked(&child);
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn ten_thousand_at_once() {
    watch(|| {
        plainsong::run(|| {
            let deadline = Instant::now() + Duration::from_millis(20);
            let drops = Rc::new(Cell::new(0));
            let all: Vec<_> = (0..10_000)
                .map(|_| {
                    let drops = Rc::clone(&drops);
                    plainsong::spawn(move || {
                        timeout_at(deadline, || {
                            let _guard = OnDrop(|| drops.set(drops.get() + 1));
                            thread::park();
                        })
                        .is_err()
                    })
                })
                .collect();
            assert!(task::join_all(all).into_iter().all(|ended| ended.unwrap()));
            assert_eq!(drops.get(), 10_000);
        });
    });
}

#[test]
fn a_million_that_do_not_expire_leave_nothing() {
    crate::util::alone(a_million_that_do_not_expire_leave_nothing, || {
        plainsong::run(|| {
            let some = |count| {
                for n in 0..count {
                    assert_eq!(timeout(HOUR, || n), Ok(n));
                }
            };
            some(1000);
            let before = crate::util::resident();
            some(300_000);
            assert!(crate::util::resident() < before + 2000);
        });
    });
}

#[test]
fn a_payload_carried_to_another_coroutine_is_a_panic_there() {
    run(|| {
        let stolen = Rc::new(RefCell::new(None));
        let theirs = Rc::clone(&stolen);
        let _ = timeout(Duration::ZERO, || {
            *theirs.borrow_mut() = catch_unwind(|| sleep(HOUR)).err();
        });
        let payload = stolen.take().unwrap();
        let other = plainsong::spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| timeout(HOUR, || resume_unwind(payload))));
            assert!(ended.is_err(), "not this time-out's");
            sleep(MOMENT);
        });
        other.join().unwrap();
    });
}

//! Signals, sent to this process or to a child process.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use plainsong::Runtime;
use plainsong::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals, cancel_on, ctrl_c};
use plainsong::thread::park;
use plainsong::time::{sleep, timeout};
use rustix::process::{Signal, getpid, kill_process};

use crate::util::{MOMENT, alone, dying, once_asleep, run, until, until_parked};

fn send(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

#[test]
fn waited_for_and_sent() {
    alone(waited_for_and_sent, || {
        plainsong::run(|| {
            let mut signals = Signals::new([SIGUSR1, SIGTERM, SIGHUP]).unwrap();
            // Before a wait.
            send(Signal::USR1);
            assert_eq!(signals.wait().unwrap(), SIGUSR1);
            // During a wait.
            let first = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&first);
            let waiting = plainsong::spawn(move || {
                theirs.set(signals.wait().unwrap());
                signals.wait().unwrap()
            });
            until_parked(&waiting);
            send(Signal::TERM);
            until(|| first.get() == SIGTERM);
            until_parked(&waiting);
            send(Signal::HUP);
            assert_eq!(waiting.join().unwrap(), SIGHUP);
        });
    });
}

#[test]
fn several_together() {
    alone(several_together, || {
        plainsong::run(|| {
            let mut signals = Signals::new([SIGUSR1, SIGUSR2]).unwrap();
            let mut others = Signals::new([SIGUSR2]).unwrap();
            send(Signal::USR1);
            send(Signal::USR2);
            let mut both = [signals.wait().unwrap(), signals.wait().unwrap()];
            both.sort_unstable();
            assert_eq!(both, [SIGUSR1, SIGUSR2]);
            assert_eq!(others.wait().unwrap(), SIGUSR2, "each gets its own");
            assert!(timeout(MOMENT, || signals.wait()).is_err());
            assert!(timeout(MOMENT, || others.wait()).is_err());
        });
    });
}

#[test]
fn none_is_lost_to_a_cancellation() {
    alone(none_is_lost_to_a_cancellation, || {
        plainsong::run(|| {
            let mut signals = Signals::new([SIGUSR1]).unwrap();
            for _ in 0..20 {
                let ended = timeout(Duration::ZERO, || signals.wait());
                assert!(ended.is_err());
                send(Signal::USR1);
                let ended = timeout(Duration::ZERO, || {
                    plainsong::yield_now();
                    signals.wait()
                });
                assert!(ended.is_err());
                assert_eq!(signals.wait().unwrap(), SIGUSR1);
            }
        });
    });
}

#[test]
fn on_a_plain_thread() {
    alone(on_a_plain_thread, || {
        let mut signals = Signals::new([SIGUSR1]).unwrap();
        let waiting = std::thread::spawn(move || signals.wait().unwrap());
        send(Signal::USR1);
        assert_eq!(waiting.join().unwrap(), SIGUSR1);
    });
}

#[test]
fn ctrl_c_while_others_work() {
    alone(ctrl_c_while_others_work, || {
        plainsong::run(|| {
            let turns = Rc::new(Cell::new(0));
            let theirs = Rc::clone(&turns);
            let working = plainsong::spawn(move || {
                loop {
                    theirs.set(theirs.get() + 1);
                    plainsong::yield_now();
                }
            });
            let pressed = plainsong::spawn(ctrl_c);
            until_parked(&pressed);
            send(Signal::INT);
            pressed.join().unwrap().unwrap();
            assert!(turns.get() > 0);
            working.cancel();
            // The signal can be subscribed to again.
            let mut signals = Signals::new([SIGINT]).unwrap();
            send(Signal::INT);
            assert_eq!(signals.wait().unwrap(), SIGINT);
        });
    });
}

#[test]
fn one_that_nobody_waits_for_does_what_it_does() {
    let output = dying(one_that_nobody_waits_for_does_what_it_does, || {
        plainsong::run(|| {
            let _others = Signals::new([SIGUSR1]).unwrap();
            send(Signal::TERM);
            sleep(Duration::MAX);
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("15"), "{output}");
    }
}

#[test]
fn the_first_of_a_signal_that_is_named_twice_cancels_and_the_second_ends_the_process() {
    let name = the_first_of_a_signal_that_is_named_twice_cancels_and_the_second_ends_the_process;
    let output = dying(name, || {
        let stop = cancel_on(&[SIGTERM, SIGINT, SIGTERM]).unwrap();
        send(Signal::TERM);
        stop.cancelled();
        println!("cancelled");
        send(Signal::TERM);
        plainsong::run(|| sleep(Duration::MAX));
    });
    if let Some(output) = output {
        assert!(output.contains("cancelled"), "{output}");
        assert!(output.contains("15"), "{output}");
    }
}

#[test]
fn signals_that_are_refused_leave_the_others_as_they_were() {
    let output = dying(signals_that_are_refused_leave_the_others_as_they_were, || {
        // A real-time signal, whose default action is not known.
        cancel_on(&[SIGTERM, 40]).unwrap_err();
        // The C library uses this one.
        Signals::new([SIGTERM, 32]).unwrap_err();
        println!("refused");
        send(Signal::TERM);
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("refused"), "{output}");
        assert!(output.contains("15"), "{output}");
    }
}

#[test]
fn those_that_cannot_be_caught() {
    run(|| {
        for signal in [9, 19, 32, 33, 11, 4, 8, -1, 0, 1000] {
            assert!(Signals::new([signal]).is_err(), "{signal}");
        }
        assert!(Signals::new([SIGUSR1, 9]).is_err());
    });
}

/// A thread of the library waits for the signal, and no plain thread takes part.
#[test]
fn a_wait_that_a_signal_can_cancel_is_no_deadlock() {
    alone(a_wait_that_a_signal_can_cancel_is_no_deadlock, || {
        let strict = Runtime::builder().strict_deadlock(true).build().unwrap();
        strict.run(|| {
            let stop = cancel_on(&[SIGUSR1]).unwrap();
            let sender = once_asleep(|| send(Signal::USR1));
            stop.cancelled();
            sender.join().unwrap();
        });
        strict.run(|| {
            let stop = cancel_on(&[SIGUSR2]).unwrap();
            let sender = once_asleep(|| send(Signal::USR2));
            assert!(stop.child_token().run_until_cancelled(park).is_none());
            sender.join().unwrap();
        });
    });
}

//! A coroutine may wait while it unwinds, and no other coroutine is affected by that.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plainsong::generator::Generator;
use plainsong::net::{TcpStream, UnixDatagram};
use plainsong::pool::Pool;
use plainsong::sync::{Event, Mutex};
use plainsong::time::{fail_after, sleep, timeout};
use plainsong::{JoinError, spawn, thread, yield_now};

use crate::util::{
    Folder, HOUR, MOMENT, OnDrop, alone, both, dying, pair, run, until, until_parked,
};

/// Ends the coroutine by a panic, without a message.
fn quietly() -> ! {
    resume_unwind(Box::new("quietly"))
}

/// Reads one byte while `other` unwinds. The byte is sent only after the reader has parked.
fn read_while(other: impl FnOnce(Rc<Cell<bool>>) + 'static) {
    plainsong::run(move || {
        let release = Rc::new(Cell::new(false));
        let released = Rc::clone(&release);
        let unwinds = plainsong::spawn(move || other(released));
        // A few turns, so that it is in the middle of its unwinding.
        for _ in 0..5 {
            plainsong::yield_now();
        }
        assert!(!unwinds.is_finished());
        let (ours, theirs) = pair();
        let reader = plainsong::spawn(move || (&ours).read(&mut [0; 1]));
        until_parked(&reader);
        (&theirs).write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
        release.set(true);
        assert!(unwinds.join().unwrap_err().is_panic());
    });
}

#[test]
fn others_do_io_while_one_sleeps_in_a_drop() {
    crate::util::watch(|| {
        read_while(|release| {
            let _guard = OnDrop(|| {
                while !release.get() {
                    sleep(Duration::from_nanos(1));
                }
            });
            quietly();
        });
    });
}

#[test]
fn others_do_io_while_one_yields_in_a_drop() {
    crate::util::watch(|| {
        read_while(|release| {
            let _guard = OnDrop(|| until(|| release.get()));
            quietly();
        });
    });
}

#[test]
fn the_second_to_unwind_may_outlast_the_first() {
    run(|| {
        let unwinds = || {
            let child = plainsong::spawn(|| {
                let _guard = OnDrop(plainsong::thread::park);
                quietly();
            });
            until_parked(&child);
            child
        };
        let (first, second) = (unwinds(), unwinds());
        first.thread().unpark();
        assert!(first.join().unwrap_err().is_panic());
        let (ours, theirs) = pair();
        let reader = plainsong::spawn(move || (&ours).read(&mut [0; 1]));
        until_parked(&reader);
        (&theirs).write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
        second.thread().unpark();
        assert!(second.join().unwrap_err().is_panic());
    });
}

#[test]
fn io_in_a_drop_does_what_can_be_done_at_once() {
    run(|| {
        let (ours, mut theirs) = pair();
        let results = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&results);
        let child = plainsong::spawn(move || {
            let _guard = OnDrop(|| {
                log.borrow_mut().push((&ours).write(b"bye").is_ok());
                // This one would have to wait.
                log.borrow_mut().push((&ours).read(&mut [0; 8]).is_ok());
            });
            quietly();
        });
        assert!(child.join().unwrap_err().is_panic());
        assert_eq!(*results.borrow(), [true, false]);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"bye");
    });
}

#[test]
fn sockets_whose_peer_is_full_do_not_hold_up_a_drop() {
    run(|| {
        let folder = Folder::new();
        let path = folder.join("socket");
        let receiver = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let results = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&results);
        let child = plainsong::spawn(move || {
            let _guard = OnDrop(|| {
                let sender = UnixDatagram::unbound().unwrap();
                let sent = std::iter::repeat_with(|| sender.send_to(b"x", &path));
                log.borrow_mut().push(sent.take_while(Result::is_ok).count());
                // A connected socket gets an event when there is room.
                sender.connect(&path).unwrap();
                log.borrow_mut().push(usize::from(sender.send(b"x").is_ok()));
            });
            quietly();
        });
        assert!(child.join().unwrap_err().is_panic());
        receiver.set_nonblocking(true).unwrap();
        let came = std::iter::repeat_with(|| receiver.recv(&mut [0; 8]));
        assert_eq!(*results.borrow(), [came.take_while(Result::is_ok).count(), 0]);
    });
}

#[test]
fn every_wait_works_in_a_drop() {
    for unwinding in [false, true] {
        run(move || {
            let log = Rc::new(RefCell::new(Vec::new()));
            let theirs = Rc::clone(&log);
            let child = plainsong::spawn(move || {
                let _guard = OnDrop(|| {
                    plainsong::yield_now();
                    sleep(Duration::from_nanos(1));
                    let inner = plainsong::spawn(|| 7);
                    theirs.borrow_mut().push(inner.join().unwrap());
                    let me = plainsong::current();
                    plainsong::spawn(move || me.unpark());
                    plainsong::thread::park();
                    theirs.borrow_mut().push(8);
                });
                if unwinding {
                    quietly();
                }
            });
            assert_eq!(child.join().is_err(), unwinding);
            assert_eq!(*log.borrow(), [7, 8]);
        });
    }
}

#[test]
fn a_panic_beside_one_that_unwinds_is_caught_as_ever() {
    run(|| {
        let release = Rc::new(Cell::new(false));
        let released = Rc::clone(&release);
        let slow = plainsong::spawn(move || {
            let _guard = OnDrop(|| {
                while !released.get() {
                    sleep(Duration::from_nanos(1));
                }
            });
            quietly();
        });
        until_parked(&slow);
        for _ in 0..10 {
            let other = plainsong::spawn(|| {
                let _guard = OnDrop(plainsong::yield_now);
                quietly();
            });
            assert!(other.join().unwrap_err().is_panic());
        }
        release.set(true);
        assert!(slow.join().unwrap_err().is_panic());
        assert!(!std::thread::panicking());
    });
}

#[test]
fn a_panic_in_a_drop_that_unwinds_aborts() {
    let output = dying(a_panic_in_a_drop_that_unwinds_aborts, || {
        plainsong::run(|| {
            let _ = plainsong::spawn(|| {
                let _guard = OnDrop(|| panic!("the second"));
                panic!("the first");
            })
            .join();
        });
        std::process::exit(0);
    });
    if let Some(output) = output {
        assert!(output.contains("the first") && output.contains("the second"), "{output}");
    }
}

#[test]
fn a_panic_in_a_drop_that_does_not_unwind_is_a_panic() {
    alone(a_panic_in_a_drop_that_does_not_unwind_is_a_panic, || {
        plainsong::run(|| {
            let child = plainsong::spawn(|| drop(OnDrop(|| panic!("the only"))));
            assert!(child.join().unwrap_err().is_panic());
            // The library drops the result of a detached coroutine.
            drop(plainsong::spawn(|| OnDrop(|| panic!("in a result"))));
            plainsong::yield_now();
            plainsong::yield_now();
            assert_eq!(plainsong::spawn(|| 1).join().unwrap(), 1);
        });
    });
}

#[test]
fn a_payload_whose_drop_panics() {
    alone(a_payload_whose_drop_panics, || {
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                panic!("in a payload's destructor");
            }
        }
        plainsong::run(|| {
            drop(plainsong::spawn(|| std::panic::panic_any(Payload)));
            plainsong::yield_now();
            plainsong::yield_now();
            assert_eq!(plainsong::spawn(|| 1).join().unwrap(), 1);
        });
    });
}

/// A panic of a destructor is caught wherever the library drops something of a coroutine, and so is
/// a panic of the payload's own destructor.
#[test]
fn a_destructor_with_a_payload_whose_drop_panics() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("in a payload's destructor");
        }
    }
    struct Throws;
    impl Drop for Throws {
        fn drop(&mut self) {
            std::panic::panic_any(Payload);
        }
    }
    fn hold() {
        let throws = Throws;
        plainsong::time::after(Duration::from_secs(60), move || drop(throws));
    }
    plainsong::coroutine_local! {
        static LOCAL: Cell<Option<Throws>> = const { Cell::new(None) };
    }
    alone(a_destructor_with_a_payload_whose_drop_panics, || {
        plainsong::run(|| {
            // As a result, as a local, and captured by a coroutine that never begins, here or
            // anywhere.
            drop(spawn(|| Throws));
            spawn(|| LOCAL.with(|local| local.set(Some(Throws)))).join().unwrap();
            let throws = Throws;
            let never = spawn(move || drop(throws));
            never.cancel();
            assert!(never.join().unwrap_err().is_cancelled());
            let throws = Throws;
            let never = plainsong::spawn_anywhere(move || drop(throws));
            never.cancel();
            assert!(never.join().unwrap_err().is_cancelled());
            hold();
        });
        let runtime = plainsong::Runtime::builder().workers(2).build().unwrap();
        // Calls that are still pending on each worker.
        let both = std::sync::Barrier::new(2);
        runtime.run(|| {
            plainsong::scope(|s| {
                for _ in 0..2 {
                    s.spawn_anywhere(|| {
                        both.wait();
                        hold();
                    });
                }
            });
        });
    });
}

#[test]
fn connections_of_a_panicking_coroutine_close() {
    run(|| {
        let (ours, theirs) = pair();
        let theirs = TcpStream::from(theirs);
        let child = plainsong::spawn(move || {
            let _ = (&ours).write_all(b"x");
            quietly();
        });
        let mut got = Vec::new();
        (&theirs).read_to_end(&mut got).unwrap();
        assert_eq!(got, b"x");
        assert!(child.join().is_err());
    });
}

/// Two coroutines are suspended in their destructors: the first was cancelled, the second panics.
/// The library does not know that the second unwinds. When the first has ended, it must not take
/// any other coroutine for one that unwinds.
#[test]
fn others_are_well_when_of_two_that_unwind_the_known_one_has_ended() {
    struct Until(Rc<Cell<bool>>);
    impl Drop for Until {
        fn drop(&mut self) {
            while !self.0.get() {
                plainsong::thread::park();
            }
        }
    }
    run(|| {
        let gates: [Rc<Cell<bool>>; 2] = Default::default();
        let [first, second] = gates.clone().map(Until);
        let cancelled = spawn(move || {
            let _wait = first;
            sleep(HOUR);
        });
        yield_now();
        cancelled.cancel();
        yield_now();
        let panicking = spawn(move || {
            let _wait = second;
            panic!("by itself");
        });
        yield_now();
        let (ours, mut theirs) = pair();
        let reader = spawn(move || {
            plainsong::thread::park();
            (&ours).read(&mut [0])
        });
        let sleeper = spawn(|| {
            plainsong::thread::park();
            sleep(HOUR);
        });
        until_parked(&reader);
        until_parked(&sleeper);
        // In this order: the first ends; then the reader and the sleeper wait, and are woken or
        // cancelled.
        gates[0].set(true);
        cancelled.thread().unpark();
        reader.thread().unpark();
        sleeper.thread().unpark();
        spawn(move || theirs.write_all(b"x"));
        assert_eq!(reader.join().unwrap().unwrap(), 1);
        sleeper.cancel();
        assert!(sleeper.join_timeout(HOUR).unwrap().unwrap_err().is_cancelled());
        assert!(cancelled.join().unwrap_err().is_cancelled());
        gates[1].set(true);
        panicking.thread().unpark();
        assert!(panicking.join().unwrap_err().is_panic());
    });
}

#[test]
fn only_a_coroutine_that_unwinds_is_panicking() {
    both(|| {
        assert!(!thread::panicking());
        let seen = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&seen);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _guard = OnDrop(|| theirs.set(thread::panicking()));
            resume_unwind(Box::new("scripted"));
        }));
        assert!(result.is_err() && seen.get());
    });
    run(|| {
        let seen = Rc::new(Cell::new((false, false)));
        let theirs = Rc::clone(&seen);
        let child = spawn(move || {
            let _guard = OnDrop(|| {
                let before = thread::panicking();
                plainsong::yield_now();
                theirs.set((before, thread::panicking()));
            });
            sleep(HOUR);
        });
        until_parked(&child);
        child.cancel();
        plainsong::yield_now();
        // It is suspended in the middle of its unwinding.
        assert!(std::thread::panicking() && !thread::panicking());
        assert!(child.join().unwrap_err().is_cancelled());
        assert_eq!(seen.get(), (true, true));
    });
}

#[test]
fn a_panic_from_elsewhere_is_recognised_while_another_unwinds() {
    fn of_a_thread() {
        plainsong::blocking(|| quietly());
    }
    fn of_a_child() {
        plainsong::scope(|s| {
            s.spawn(|| quietly());
        });
    }
    fn of_a_child_while_cancelled() {
        plainsong::scope(|s| {
            s.spawn(|| quietly());
            sleep(HOUR);
        });
    }
    run(|| {
        let release = Rc::new(Cell::new(false));
        let released = Rc::clone(&release);
        let other = spawn(move || {
            let _guard = OnDrop(|| until(|| released.get()));
            quietly();
        });
        until(std::thread::panicking);
        let known = [of_a_thread, of_a_child, of_a_child_while_cancelled].map(|panic| {
            let known = Rc::new(Cell::new(false));
            let theirs = Rc::clone(&known);
            let victim = spawn(move || {
                let _guard = OnDrop(|| theirs.set(thread::panicking()));
                panic();
            });
            assert!(victim.join().unwrap_err().is_panic());
            known.get()
        });
        release.set(true);
        assert!(other.join().unwrap_err().is_panic());
        assert_eq!(known, [true; 3]);
    });
}

/// The evidence was forgotten at the next tick only, and the second panic came before that.
#[test]
fn a_panic_that_was_caught_is_no_evidence_when_another_coroutine_panics() {
    run(|| {
        let caught = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&caught);
        let first = plainsong::spawn(move || {
            let panics = || {
                let _guard = OnDrop(plainsong::yield_now);
                quietly();
            };
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            theirs.set(true);
            plainsong::thread::park();
            plainsong::thread::panicking()
        });
        // Counted, because it is suspended while the first one unwinds.
        let other = plainsong::spawn(plainsong::thread::park);
        let second = plainsong::spawn(move || {
            until(|| caught.get());
            let _guard = OnDrop(plainsong::thread::park);
            quietly();
        });
        until_parked(&second);
        first.thread().unpark();
        assert!(!first.join().unwrap());
        second.thread().unpark();
        assert!(second.join().unwrap_err().is_panic());
        other.thread().unpark();
        other.join().unwrap();
    });
}

/// A coroutine that waits in a destructor while it unwinds, until `f` has returned.
fn beside_one_that_unwinds<T>(f: impl FnOnce() -> T) -> T {
    let release = Rc::new(Cell::new(false));
    let released = Rc::clone(&release);
    let other = spawn(move || {
        let _guard = OnDrop(|| until(|| released.get()));
        quietly();
    });
    until(std::thread::panicking);
    let value = f();
    release.set(true);
    assert!(other.join().unwrap_err().is_panic());
    value
}

#[test]
fn a_scope_that_has_closed_leaves_no_evidence() {
    /// The body of a time-out swallows its cancellation.
    fn swallows() {
        let _ = timeout(Duration::ZERO, || catch_unwind(|| sleep(HOUR)).is_err());
    }
    /// And it panics then, which is caught outside.
    fn panics_then() {
        let body = || {
            catch_unwind(|| sleep(HOUR)).unwrap_err();
            panic!("scripted");
        };
        catch_unwind(|| timeout(Duration::ZERO, body)).unwrap_err();
        // The period of the panic ends.
        yield_now();
    }
    run(|| {
        let well = || {
            let (ours, theirs) = pair();
            (&theirs).write_all(b"x").unwrap();
            (&ours).read_exact(&mut [0; 1]).unwrap();
            !thread::panicking()
        };
        assert!(beside_one_that_unwinds(|| {
            swallows();
            well()
        }));
        panics_then();
        assert!(beside_one_that_unwinds(well));
    });
}

/// Whether a lock is poisoned that a coroutine holds in `body`. The coroutine is cancelled when it
/// first waits there, and `then` is called after that.
fn poisons(body: impl FnOnce() + 'static, then: impl FnOnce()) -> bool {
    let mutex = Arc::new(Mutex::new(()));
    let theirs = Arc::clone(&mutex);
    let child = spawn(move || {
        let _guard = theirs.lock();
        body();
    });
    until_parked(&child);
    child.cancel();
    yield_now();
    then();
    let error: JoinError = child.join().unwrap_err();
    assert_eq!(error.is_panic(), mutex.is_poisoned());
    error.is_panic()
}

#[test]
fn a_panic_after_a_swallowed_cancellation_poisons() {
    let body = || {
        catch_unwind(|| sleep(HOUR)).unwrap_err();
        panic!("scripted");
    };
    run(move || assert!(poisons(body, || ())));
}

#[test]
fn a_panic_of_a_scopes_body_poisons_though_the_scope_is_cancelled_meanwhile() {
    run(|| {
        let end = Rc::new(Event::new());
        let ends = Rc::clone(&end);
        let body = move || {
            plainsong::scope(|s| {
                s.spawn(|| plainsong::shield(|| ends.wait()));
                panic!("scripted");
            });
        };
        assert!(poisons(body, || end.set()));
    });
}

#[test]
fn a_cancellation_that_drops_a_generator_does_not_poison() {
    let body = || {
        let mut generator = Generator::<u32>::new(|out| out.yield_(1));
        generator.next();
        sleep(HOUR);
    };
    run(move || assert!(!poisons(body, || ())));
}

#[test]
fn a_generator_that_panics_at_its_close_beside_one_that_unwinds() {
    run(|| {
        beside_one_that_unwinds(|| {
            let mut generator = Generator::<u32>::new(|out| {
                catch_unwind(AssertUnwindSafe(|| out.yield_(1))).unwrap_err();
                panic!("scripted");
            });
            generator.next();
            catch_unwind(AssertUnwindSafe(|| drop(generator))).unwrap_err();
        });
    });
}

/// Swallows its cancellation for good. Each unwind runs a destructor that calls `drop`, and `after`
/// is called after it.
fn swallows(drop: fn(), after: fn()) {
    run(move || {
        let child = spawn(move || {
            loop {
                let _ = catch_unwind(|| {
                    let _guard = OnDrop(drop);
                    yield_now();
                });
                after();
            }
        });
        yield_now();
        child.cancel();
        assert!(child.join().is_err_and(|error: JoinError| error.is_cancelled()));
    });
}

#[test]
fn swallowed_cancellations_are_counted_whatever_is_done_between_them() {
    fn open_time_out() {
        let _ = timeout(HOUR, || ());
    }
    fn over_time_out() {
        let _ = timeout(Duration::ZERO, yield_now);
    }
    fn caught_panic() {
        catch_unwind(|| plainsong::scope(|s| drop(s.spawn(|| quietly())))).unwrap_err();
        open_time_out();
    }
    swallows(|| (), || ());
    swallows(open_time_out, || ());
    swallows(over_time_out, || ());
    swallows(caught_panic, || ());
    swallows(|| (), || plainsong::shield(open_time_out));
    swallows(|| (), || plainsong::shield(over_time_out));
}

#[test]
fn a_time_out_in_a_destructor_that_swallows_its_own_cancellation_hides_no_panic() {
    run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let theirs = Arc::clone(&mutex);
        let child = spawn(move || {
            let _guard = theirs.lock();
            let _swallows = OnDrop(|| {
                let _ = timeout(Duration::ZERO, || catch_unwind(yield_now).is_err());
            });
            panic!("scripted");
        });
        assert!(child.join().unwrap_err().is_panic());
        assert!(mutex.is_poisoned());
    });
}

#[test]
fn time_outs_in_a_clean_up_do_not_count_as_swallowed() {
    run(|| {
        let cleaned = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&cleaned);
        let child = spawn(move || {
            let payload = catch_unwind(|| sleep(HOUR)).unwrap_err();
            plainsong::shield(|| {
                for _ in 0..2000 {
                    timeout(Duration::ZERO, yield_now).unwrap_err();
                    theirs.set(theirs.get() + 1);
                }
            });
            resume_unwind(payload);
        });
        until_parked(&child);
        child.cancel();
        assert!(child.join().unwrap_err().is_cancelled());
        assert_eq!(cleaned.get(), 2000);
    });
}

/// It took no turn of the others, so nobody could cancel it.
#[test]
fn a_loop_of_swallowed_time_outs_lets_others_run() {
    run(|| {
        let child = spawn(|| {
            loop {
                let _ = timeout(Duration::ZERO, || catch_unwind(yield_now).is_err());
            }
        });
        yield_now();
        child.cancel();
        assert!(child.join().is_err_and(|error: JoinError| error.is_cancelled()));
    });
}

/// Its scope was taken for one of a clean-up until it closed, so the cancellation did not reach it.
#[test]
fn a_scope_that_opens_after_a_caught_panic_beside_one_that_unwinds_can_be_cancelled() {
    fn parks() {
        plainsong::scope(|_| plainsong::thread::park());
    }
    fn parks_in_a_time_out() {
        let _ = timeout(HOUR, plainsong::thread::park);
    }
    fn yields_until_the_other_has_ended() {
        plainsong::scope(|_| {
            until(|| !std::thread::panicking());
            plainsong::thread::park();
        });
    }
    for body in [parks, parks_in_a_time_out, yields_until_the_other_has_ended] {
        run(move || {
            let child = beside_one_that_unwinds(|| {
                let child = spawn(move || {
                    catch_unwind(|| panic!("scripted")).unwrap_err();
                    body();
                });
                (0..3).for_each(|_| yield_now());
                child
            });
            until_parked(&child);
            assert!(!std::thread::panicking());
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
        });
    }
}

/// As before, but its cancellation is requested while the other coroutine unwinds, and a third one
/// unwinds before the next tick.
#[test]
fn a_held_back_cancellation_reaches_a_scope_although_another_unwinds_soon() {
    run(|| {
        let release = Rc::new(Cell::new(false));
        let child = beside_one_that_unwinds(|| {
            let child = spawn(|| {
                catch_unwind(|| panic!("scripted")).unwrap_err();
                plainsong::scope(|_| {
                    until(|| !std::thread::panicking());
                    plainsong::thread::park();
                });
            });
            yield_now();
            child.cancel();
            yield_now();
            assert!(!child.is_finished());
            child
        });
        let released = Rc::clone(&release);
        let third = spawn(move || {
            let _guard = OnDrop(|| until(|| released.get()));
            quietly();
        });
        until(std::thread::panicking);
        assert!(child.join().unwrap_err().is_cancelled());
        release.set(true);
        assert!(third.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_lock_that_a_panic_releases_inside_of_a_time_out_is_poisoned() {
    run(|| {
        let (before, inside) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
        let (theirs, inner) = (Arc::clone(&before), Arc::clone(&inside));
        let child = spawn(move || {
            let guard = Cell::new(Some(theirs.lock()));
            let _releases = OnDrop(move || {
                timeout(HOUR, || {
                    assert!(thread::panicking());
                    drop(guard.take());
                    // Not poisoned: the panic began before it was locked.
                    drop(inner.lock());
                })
                .unwrap();
            });
            panic!("scripted");
        });
        assert!(child.join().unwrap_err().is_panic());
        assert!(before.is_poisoned() && !inside.is_poisoned());
    });
}

#[test]
fn a_time_out_in_a_panics_destructor_poisons_no_once() {
    run(|| {
        let once = Rc::new(plainsong::sync::Once::new());
        let theirs = Rc::clone(&once);
        let child = spawn(move || {
            let _calls = OnDrop(|| {
                timeout(Duration::ZERO, || theirs.call_once(|| sleep(HOUR))).unwrap_err();
            });
            panic!("scripted");
        });
        assert!(child.join().unwrap_err().is_panic());
        once.call_once(|| ());
        assert!(once.is_completed());
    });
}

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
#[test]
fn a_host_that_panics_may_drive_its_guest_to_the_end() {
    use plainsong::host::{Guest, Next};
    crate::util::watch(|| {
        let host = |mut guest: Guest<'_>| {
            let body = || {
                let _drives = OnDrop(move || {
                    while guest.run_for(MOMENT, std::task::Waker::noop()) != Next::Over {
                        while guest.poll_io() {}
                    }
                });
                quietly();
            };
            catch_unwind(AssertUnwindSafe(body)).unwrap_err();
        };
        plainsong::host::run(&plainsong::Runtime::default(), host, || {
            assert!(std::thread::panicking() && !thread::panicking());
            let mutex = Mutex::new(());
            drop(mutex.lock());
            let (ours, theirs) = pair();
            let reader = spawn(move || (&ours).read(&mut [0; 1]));
            until_parked(&reader);
            (&theirs).write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 1);
            let child = spawn(|| sleep(HOUR));
            until_parked(&child);
            child.cancel();
            assert!(child.join().unwrap_err().is_cancelled());
            assert!(!mutex.is_poisoned());
        });
    });
}

/// It waited, so that code beside it came between what `no_wait` holds together.
#[test]
fn no_wait_refuses_waits_in_an_unwind() {
    run(|| {
        let refused = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&refused);
        let child = spawn(move || {
            let _waits = OnDrop(|| {
                theirs.set(catch_unwind(|| plainsong::no_wait(yield_now)).is_err());
            });
            panic!("scripted");
        });
        assert!(child.join().unwrap_err().is_panic());
        assert!(refused.get());
    });
}

/// Notes that it is dropped where nothing counts as panicking.
struct IsWell(Arc<AtomicU32>);

impl Drop for IsWell {
    fn drop(&mut self) {
        let (ours, theirs) = pair();
        spawn(move || (&theirs).write_all(b"x").unwrap());
        let reads = (&ours).read_exact(&mut [0; 1]).is_ok();
        self.0.fetch_add(u32::from(reads && !thread::panicking()), Ordering::Relaxed);
    }
}

#[test]
fn a_panic_that_the_library_has_caught_is_no_evidence() {
    plainsong::coroutine_local! {
        static LOCAL: RefCell<Option<IsWell>> = const { RefCell::new(None) };
    }
    let well = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&well);
    run(move || {
        beside_one_that_unwinds(|| {
            let payload = IsWell(Arc::clone(&well));
            drop(spawn(|| panic_any(payload)));
            let local = IsWell(Arc::clone(&well));
            let child = spawn(|| {
                LOCAL.set(Some(local));
                panic!("scripted");
            });
            assert!(child.join().unwrap_err().is_panic());
            let pool = Pool::coroutines(1).unwrap();
            let payload = IsWell(Arc::clone(&well));
            pool.submit(|| panic_any(payload)).wait().unwrap_err();
            pool.shutdown();
            until(|| well.load(Ordering::Relaxed) == 3);
        });
    });
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}

/// The scope was taken for one of a clean-up, which hid the deadline. The read began without it.
#[test]
fn a_scope_after_a_caught_panic_beside_one_that_unwinds_hides_no_deadline() {
    run(|| {
        let (ours, _theirs) = pair();
        let child = beside_one_that_unwinds(|| {
            let child = spawn(move || {
                fail_after(MOMENT, || {
                    catch_unwind(|| panic!("scripted")).unwrap_err();
                    timeout(HOUR, || (&ours).read(&mut [0; 1])).unwrap()
                })
            });
            (0..3).for_each(|_| yield_now());
            child
        });
        assert_eq!(child.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

//! Clocks and timers: the order in which they expire. Durations are not tested.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{self, Future, IntoFuture};
use std::io::Read;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use plainsong::sync::{channel, mpsc};
use plainsong::thread::park_timeout;
use plainsong::time::{
    MissedTickBehavior, Sleep, after, at, fail_after, interval, now, sleep, sleep_until, timeout_at,
};
use plainsong::{block_on, spawn, yield_now};

use crate::metrics::counts;
use crate::sys::fork;
use crate::util::{
    HOUR, MOMENT, OnDrop, alone, both, limit_memory, pair, panic_of, resident, run, until,
    until_others_sleep, until_parked, watch,
};

/// Delays far apart, close together and equal, in a shuffled order.
fn shuffled() -> impl Iterator<Item = Duration> + Clone {
    (0..200).map(|n| n * 7919 % 200).map(|n| Duration::from_nanos(n * n * 1000 / 2))
}

#[test]
fn sleepers_wake_in_the_order_of_their_times() {
    run(|| {
        let mut sorted: Vec<_> = shuffled().collect();
        sorted.sort_unstable();
        loop {
            let log = Rc::new(RefCell::new(Vec::new()));
            let start = now() + 5 * MOMENT;
            let sleepers: Vec<_> = shuffled()
                .map(|delay| {
                    let log = Rc::clone(&log);
                    spawn(move || {
                        sleep_until(start + delay);
                        log.borrow_mut().push(delay);
                    })
                })
                .collect();
            yield_now();
            let in_time = now() < start;
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
            // On a busy machine some did not sleep at all: try another round.
            if in_time {
                assert_eq!(*log.borrow(), sorted);
                return;
            }
        }
    });
}

#[test]
fn calls_come_in_the_order_of_their_times() {
    run(|| {
        let mut sorted: Vec<_> = shuffled().collect();
        sorted.sort_unstable();
        // Due now, in the future, and in the past.
        for start in [|| now(), || now() + MOMENT, || now() - MOMENT] {
            let start = start();
            let log = Rc::new(RefCell::new(Vec::new()));
            for delay in shuffled() {
                let log = Rc::clone(&log);
                at(start + delay, move || log.borrow_mut().push(delay));
            }
            while log.borrow().len() < sorted.len() {
                sleep(MOMENT);
            }
            assert_eq!(*log.borrow(), sorted);
        }
    });
}

#[test]
fn equal_times_come_in_the_order_of_asking() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let time = now() + MOMENT;
        for n in 0..100 {
            let log = Rc::clone(&log);
            at(time, move || log.borrow_mut().push(n));
        }
        while log.borrow().len() < 100 {
            sleep(MOMENT);
        }
        assert_eq!(*log.borrow(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn sleep_never_ends_early() {
    both(|| {
        for nanos in [1, 1000, 999_999, 1_000_001, 5_000_000] {
            let duration = Duration::from_nanos(nanos);
            let before = Instant::now();
            sleep(duration);
            assert!(before.elapsed() >= duration);
            let deadline = Instant::now() + duration;
            sleep_until(deadline);
            assert!(Instant::now() >= deadline);
        }
    });
}

#[test]
fn zero_and_the_past_let_others_run_once() {
    run(|| {
        let count = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&count);
        spawn(move || {
            loop {
                theirs.set(theirs.get() + 1);
                yield_now();
            }
        });
        sleep(Duration::ZERO);
        assert_eq!(count.get(), 1);
        sleep_until(now() - MOMENT);
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn times_without_end_do_not_come() {
    run(|| {
        let endless: Vec<_> = [Duration::MAX, Duration::from_secs(1 << 40), 1000 * DAY]
            .into_iter()
            .map(|duration| {
                after(duration, || unreachable!("a call for the end of time"));
                spawn(move || sleep(duration))
            })
            .collect();
        sleep(3 * MOMENT);
        assert!(endless.iter().all(|sleeper| !sleeper.is_finished()));
    });
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn many_timers_far_apart_fire_in_order() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let start = now() + MOMENT;
        // Some never expire; all are added in the worst order, and every third is cancelled.
        let timers: Vec<_> = (0..3000u64)
            .rev()
            .map(|n| {
                let log = Rc::clone(&log);
                let time = start + Duration::from_micros(n * 5) + DAY * u32::from(n % 10 == 9);
                at(time, move || log.borrow_mut().push(n))
            })
            .collect();
        for (n, timer) in (0..3000).rev().zip(&timers) {
            if n % 3 == 0 {
                assert!(timer.cancel());
            }
        }
        // None has expired so far: timers expire between turns.
        let expected: Vec<_> = (0..3000).filter(|n| n % 10 != 9 && n % 3 != 0).collect();
        while log.borrow().len() < expected.len() {
            sleep(MOMENT);
        }
        assert_eq!(*log.borrow(), expected);
    });
}

#[test]
fn calls_are_made_once_or_taken_back() {
    run(|| {
        let calls = Rc::new(Cell::new(0));
        let count = || {
            let calls = Rc::clone(&calls);
            move || calls.set(calls.get() + 1)
        };
        let made = after(Duration::ZERO, count());
        let past = at(now() - DAY, count());
        let taken = after(MOMENT, count());
        assert!(taken.cancel());
        assert!(!taken.cancel());
        let dropped = Rc::new(Cell::new(false));
        let flag = Rc::clone(&dropped);
        let guard = OnDrop(move || flag.set(true));
        assert!(after(MOMENT, move || drop(guard)).cancel());
        assert!(dropped.get(), "what it captured goes when it is taken back");
        sleep(3 * MOMENT);
        assert_eq!(calls.get(), 2);
        assert!(!made.cancel() && !past.cancel());
    });
}

#[test]
fn calls_may_wait_panic_and_call_again() {
    run(|| {
        let log = Rc::new(RefCell::new(Vec::new()));
        let theirs = Rc::clone(&log);
        after(Duration::ZERO, || std::panic::resume_unwind(Box::new("its own")));
        after(Duration::ZERO, move || {
            sleep(MOMENT);
            theirs.borrow_mut().push(1);
            let later = Rc::clone(&theirs);
            after(MOMENT, move || later.borrow_mut().push(2));
        });
        while log.borrow().len() < 2 {
            sleep(MOMENT);
        }
        assert_eq!(*log.borrow(), [1, 2]);
    });
}

#[test]
fn a_timer_is_one_runs_own() {
    watch(|| {
        let old = plainsong::run(|| after(DAY, || ()));
        plainsong::run(|| {
            let called = Rc::new(Cell::new(false));
            let flag = Rc::clone(&called);
            after(MOMENT, move || flag.set(true));
            assert!(!old.cancel(), "its run has ended, and the call with it");
            sleep(3 * MOMENT);
            assert!(called.get());
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn a_million_time_outs_armed_and_disarmed_keep_memory_flat() {
    alone(a_million_time_outs_armed_and_disarmed_keep_memory_flat, || {
        plainsong::run(|| {
            let me = plainsong::current();
            let arm = |count: u32| {
                for n in 0..count {
                    me.unpark();
                    plainsong::thread::park_timeout(DAY);
                    after(DAY * (1 + n % 3), || ()).cancel();
                    if n % 100 == 0 {
                        yield_now();
                    }
                }
            };
            // Joins with a time-out, which really wait.
            let join = |count| {
                for _ in 0..count {
                    let child = spawn(|| ());
                    child.join_timeout(DAY).unwrap().unwrap();
                }
            };
            arm(10_000);
            join(10_000);
            let before = resident();
            arm(1_000_000);
            join(100_000);
            let grown = resident().saturating_sub(before);
            assert!(grown < 512, "{grown} KiB more after a million time-outs");
        });
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer keeps freed memory")]
fn time_outs_that_pass_keep_memory_flat() {
    alone(time_outs_that_pass_keep_memory_flat, || {
        plainsong::run(|| {
            let (ours, _theirs) = pair();
            ours.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
            let read = |count| {
                for _ in 0..count {
                    assert!((&ours).read(&mut [0; 8]).is_err());
                }
            };
            read(1000);
            let before = resident();
            read(20_000);
            let grown = resident().saturating_sub(before);
            assert!(grown < 512, "{grown} KiB more after many time-outs");
        });
    });
}

#[test]
fn an_interval_that_keeps_up_ticks_by_the_period() {
    run(|| {
        let mut ticks = interval(MOMENT);
        assert_eq!(ticks.period(), MOMENT);
        let first = ticks.tick();
        for n in 1..5 {
            assert_eq!(ticks.tick() - first, n * MOMENT);
        }
    });
}

/// The ticks after three and a half periods without one.
fn late_ticks(behavior: MissedTickBehavior) -> (Instant, Instant, [Instant; 3]) {
    let period = 10 * MOMENT;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(behavior);
    let first = ticks.tick();
    sleep_until(first + 35 * MOMENT);
    let late = [ticks.tick(), ticks.tick(), ticks.tick()];
    (first, now(), late)
}

#[test]
fn a_late_interval_bursts() {
    run(|| {
        let (first, _, late) = late_ticks(MissedTickBehavior::Burst);
        assert_eq!(late, [1, 2, 3].map(|n| first + n * 10 * MOMENT));
    });
}

#[test]
fn a_late_interval_delays() {
    run(|| {
        let (first, _, [missed, next, after_it]) = late_ticks(MissedTickBehavior::Delay);
        assert_eq!(missed, first + 10 * MOMENT);
        // A whole period after the late tick was taken.
        assert!(next >= first + 45 * MOMENT);
        assert!(after_it >= next + 10 * MOMENT);
    });
}

#[test]
fn a_late_interval_skips() {
    run(|| {
        let (first, _, [missed, next, after_it]) = late_ticks(MissedTickBehavior::Skip);
        assert_eq!(missed, first + 10 * MOMENT);
        for tick in [next, after_it] {
            assert_eq!((tick - first).as_nanos() % (10 * MOMENT).as_nanos(), 0, "off the beat");
        }
        assert!(next >= first + 40 * MOMENT && after_it > next);
    });
}

#[test]
fn intervals_at_their_limits() {
    run(|| {
        assert!(panic_of(|| interval(Duration::ZERO)).contains("period"));
        let mut endless = interval(Duration::MAX);
        endless.tick();
        let waits = spawn(move || endless.tick());
        until_parked(&waits);
        let mut reset = interval(MOMENT);
        reset.tick();
        reset.reset();
        let before = now();
        assert!(reset.tick() <= before + MOMENT);
    });
}

#[test]
fn timers_go_on_beside_a_thread_that_floods() {
    run(|| {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stopped, me) = (stop.clone(), plainsong::current());
        let flood = thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                me.unpark();
            }
        });
        for _ in 0..20 {
            sleep(Duration::from_micros(100));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        flood.join().unwrap();
    });
}

/// A time-out and the sleep inside it expire at the same moment: each cancels the other's timer,
/// which has expired already.
#[test]
fn a_time_out_and_its_sleep_that_end_together() {
    plainsong::run(|| {
        for first_the_sleep in [false, true] {
            let mut ahead = Duration::from_millis(2);
            let children = loop {
                let deadline = now() + ahead;
                let earlier = deadline - Duration::from_nanos(1);
                let (limit, until) =
                    if first_the_sleep { (deadline, earlier) } else { (earlier, deadline) };
                let child = || spawn(move || timeout_at(limit, || sleep_until(until)).is_ok());
                let children: Vec<_> = (0..100).map(|_| child()).collect();
                yield_now();
                // All of them sleep now, if there was enough time.
                if now() < earlier {
                    // Both have expired when the loop looks at the clock.
                    while now() <= deadline {
                        thread::sleep(ahead);
                    }
                    break children;
                }
                ahead *= 2;
            };
            for child in children {
                assert_eq!(child.join().unwrap(), first_the_sleep);
            }
        }
    });
}

#[test]
#[cfg_attr(feature = "sanitizer", ignore = "a sanitizer needs address space")]
fn calls_without_room_for_a_stack_come_when_there_is_some() {
    alone(calls_without_room_for_a_stack_come_when_there_is_some, || {
        plainsong::run(|| {
            let called = Rc::new(Cell::new(0));
            let call = |delay| {
                let called = Rc::clone(&called);
                after(Duration::from_millis(delay), move || called.set(called.get() + 1))
            };
            limit_memory(Some(1 << 20));
            // Until all stacks are in use.
            let mut all: Vec<_> = std::iter::from_fn(|| {
                plainsong::Builder::new().spawn(plainsong::thread::park).ok()
            })
            .collect();
            let _first = call(1);
            let second = call(1);
            let third = call(2);
            sleep(Duration::from_millis(20));
            assert_eq!(called.get(), 0);
            // It can still be cancelled.
            assert!(second.cancel());
            let last = all.pop().unwrap();
            last.thread().unpark();
            last.join().unwrap();
            until(|| {
                sleep(MOMENT);
                called.get() == 2
            });
            assert!(!third.cancel());
            limit_memory(None);
        });
    });
}

#[test]
fn what_other_workers_were_to_call_is_dropped_without_a_coroutine_for_each() {
    struct Note(Arc<Mutex<HashSet<plainsong::thread::ThreadId>>>);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.lock().unwrap().insert(plainsong::thread::current().id());
        }
    }
    watch(|| {
        let by = Arc::new(Mutex::new(HashSet::new()));
        let runtime = plainsong::Runtime::builder().workers(2).build().unwrap();
        let both = std::sync::Barrier::new(2);
        runtime.run(|| {
            plainsong::scope(|s| {
                for _ in 0..2 {
                    s.spawn_anywhere(|| {
                        both.wait();
                        for _ in 0..100 {
                            let note = Note(Arc::clone(&by));
                            after(Duration::from_secs(60), move || drop(note));
                        }
                    });
                }
            });
        });
        assert_eq!(by.lock().unwrap().len(), 2);
    });
}

/// Polls a future once.
fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn futures_sleep_and_wake_in_the_order_of_their_times() {
    run(|| {
        let woken = RefCell::new(Vec::new());
        // All sleep before the first is woken.
        let start = now() + Duration::from_millis(100);
        plainsong::scope(|s| {
            for delay in shuffled() {
                let woken = &woken;
                s.spawn(move || {
                    let deadline = start + delay;
                    plainsong::block_on(Sleep::until(deadline));
                    assert!(now() >= deadline);
                    woken.borrow_mut().push(deadline);
                });
            }
        });
        assert!(woken.borrow().is_sorted());
    });
}

#[test]
fn a_sleep_is_reset_before_and_after_its_time() {
    run(|| {
        let mut sleep = Sleep::new(HOUR);
        assert!(poll_once(&mut sleep, Waker::noop()).is_pending());
        sleep.reset(now() + MOMENT);
        plainsong::block_on(&mut sleep);
        assert!(sleep.is_elapsed());
        sleep.reset(now() + HOUR);
        assert!(!sleep.is_elapsed() && poll_once(&mut sleep, Waker::noop()).is_pending());
        // The task that waits for it is woken at the new time.
        let waiting = spawn(move || {
            let mut polls = 0;
            plainsong::block_on(future::poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    assert!(poll_once(&mut sleep, cx.waker()).is_pending());
                    sleep.reset(now());
                }
                poll_once(&mut sleep, cx.waker())
            }));
        });
        waiting.join().unwrap();
        assert!(Sleep::new(Duration::MAX).deadline() > now() + 1000 * HOUR);
    });
}

/// A waker that calls a closure.
struct Calls<F>(F);

impl<F: Fn() + Send + Sync> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn a_waker_drops_a_sleep_and_cancels_a_call_that_are_due_at_the_same_time() {
    thread_local! {
        static LATER: RefCell<Vec<plainsong::time::Timer>> = const { RefCell::new(Vec::new()) };
    }
    run(|| {
        let woken = Arc::new(AtomicBool::new(false));
        let sleep = || Arc::new(Mutex::new(Some(Sleep::new(HOUR))));
        let (due, next) = (sleep(), sleep());
        let waker = {
            let (due, next, woken) = (due.clone(), next.clone(), woken.clone());
            Waker::from(Arc::new(Calls(move || {
                // These take the places of those that are due and are taken back next, and must
                // not be taken for them.
                let cancelled = LATER.with_borrow_mut(|calls| calls.pop().unwrap().cancel());
                assert!(cancelled);
                LATER.with_borrow_mut(|calls| calls.push(after(HOUR, || panic!("an hour early"))));
                drop(due.lock().unwrap().take());
                let mut later = Sleep::new(HOUR);
                let early = Waker::from(Arc::new(Calls(|| panic!("an hour early"))));
                assert!(poll_once(&mut later, &early).is_pending());
                *next.lock().unwrap() = Some(later);
                woken.store(true, Ordering::Relaxed);
            })))
        };
        let mut first = Sleep::new(HOUR);
        assert!(poll_once(&mut first, &waker).is_pending());
        let poll = |it: &Mutex<Option<Sleep>>| {
            poll_once(it.lock().unwrap().as_mut().unwrap(), Waker::noop()).is_pending()
        };
        assert!(poll(&due));
        let time = now() + MOMENT;
        first.reset(time);
        due.lock().unwrap().as_mut().unwrap().reset(time);
        LATER.with_borrow_mut(|calls| calls.push(at(time, || panic!("it was cancelled"))));
        until(|| woken.load(Ordering::Relaxed));
        yield_now();
        LATER.with_borrow_mut(|calls| assert!(calls.pop().unwrap().cancel()));
        assert!(poll(&next));
    });
}

#[test]
fn a_sleep_that_another_thread_resets_wakes_its_task() {
    run(|| {
        let sleep = Arc::new(Mutex::new(Sleep::new(HOUR)));
        let waiting = {
            let sleep = sleep.clone();
            let poll = move |cx: &mut Context<'_>| Pin::new(&mut *sleep.lock().unwrap()).poll(cx);
            spawn(|| plainsong::block_on(future::poll_fn(poll)))
        };
        until_parked(&waiting);
        let reset = move || sleep.lock().unwrap().reset(Instant::now());
        thread::spawn(reset).join().unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn a_sleep_that_moves_between_threads_leaves_no_timers_behind() {
    let test = || {
        plainsong::run(|| {
            let mut sleep = Sleep::new(HOUR);
            for _ in 0..10 {
                assert!(poll_once(&mut sleep, Waker::noop()).is_pending());
                let there = thread::spawn(move || {
                    plainsong::run(|| {
                        assert!(poll_once(&mut sleep, Waker::noop()).is_pending());
                        sleep
                    })
                });
                sleep = there.join().unwrap();
            }
            // This worker takes the messages of the threads meanwhile.
            plainsong::blocking(|| ());
            assert_eq!(counts().timers, 0);
        })
    };
    alone(a_sleep_that_moves_between_threads_leaves_no_timers_behind, test);
}

#[test]
fn a_dropped_sleep_leaves_neither_timer_nor_waker() {
    struct Counted;
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    run(|| {
        let counted = Arc::new(Counted);
        let waker = Waker::from(counted.clone());
        let before = resident();
        for _ in 0..100_000 {
            assert!(poll_once(&mut Sleep::new(HOUR), &waker).is_pending());
        }
        assert!(resident() < before + (1 << 20));
        assert_eq!(Arc::strong_count(&counted), 2);
    });
}

#[test]
fn a_sleep_outside_of_a_run_says_that_nothing_wakes_it() {
    let mut sleep = Sleep::new(HOUR);
    let message = panic_of(|| poll_once(&mut sleep, Waker::noop()));
    assert!(message.contains("no plainsong runtime runs on this thread"), "{message}");
    // The end of a run wakes the sleep that waits for it.
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let sleep = run(move || {
        assert!(poll_once(&mut sleep, &waker).is_pending());
        sleep
    });
    assert!(woken.0.load(Ordering::Relaxed));
    drop(sleep);
}

#[test]
fn what_remains_is_until_the_first_deadline_that_counts() {
    use plainsong::time::{remaining, timeout};
    assert_eq!(remaining(), None);
    run(|| {
        assert_eq!(remaining(), None);
        let within = |limit: Duration| move |left: Option<Duration>| left.unwrap() <= limit;
        timeout(HOUR, || {
            let inner = timeout(2 * HOUR, remaining).unwrap();
            assert!(within(HOUR)(inner), "the outer one comes first");
            assert!(within(MOMENT)(timeout(MOMENT, remaining).unwrap()));
            assert!(remaining().unwrap() > MOMENT, "the inner ones are over");
            assert_eq!(plainsong::shield(remaining), None, "it ends no wait in here");
            let shielded = plainsong::shield(|| timeout(2 * HOUR, remaining).unwrap());
            assert!(shielded.unwrap() > HOUR);
        })
        .unwrap();
        assert_eq!(timeout(Duration::ZERO, remaining), Ok(Some(Duration::ZERO)));
        let token = plainsong::CancellationToken::new();
        assert_eq!(token.run_until_cancelled(remaining), Some(None));
    });
}

#[test]
fn waits_whose_deadline_has_passed_leave_the_timers_of_others_alone() {
    run(|| {
        let (_sender, receiver) = mpsc::channel::<()>();
        let others: Vec<_> = (1..50)
            .map(|number| {
                spawn(move || {
                    for round in 0..20 {
                        park_timeout(Duration::from_micros(number << (round % 12)));
                    }
                })
            })
            .collect();
        fail_after(Duration::ZERO, || {
            for round in 0..200 {
                sleep(Duration::from_micros(100));
                // Armed for a time before that of the sleep.
                assert!(receiver.recv_timeout(HOUR).is_err());
                // Takes a timer back.
                others[round % others.len()].thread().unpark();
            }
        });
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// A clock that is awaited, so that the thread of the process serves it.
fn await_a_clock() {
    run(|| block_on((&channel::after(MOMENT)).into_future()).unwrap());
}

#[test]
fn a_forked_process_awaits_clock_channels_too() {
    alone(a_forked_process_awaits_clock_channels_too, || {
        await_a_clock();
        // The child has what the parent still waits for, and not the thread that would end it.
        let late = channel::after(HOUR);
        let mut late = pin!((&late).into_future());
        assert!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        until_others_sleep();
        assert!(fork(await_a_clock));
        await_a_clock();
    });
}

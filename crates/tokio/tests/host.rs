//! Hosts that end early, or do not do as they should: the coroutines run on.

use std::cell::{Cell, RefCell};
use std::future::{self, poll_fn};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use std::{iter, mem};

use plainsong::host::{self, Guest, Next};
use plainsong::inspect::Answer;
use plainsong::thread::Thread;
use plainsong::{Id, Runtime};
use plainsong_tokio::block_on;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncReadExt;
use tokio::runtime;
use tokio::sync::oneshot;

/// Waits, so that a loop has to go on after its host.
fn program() -> u32 {
    let child = plainsong::spawn(|| plainsong::time::sleep(Duration::from_millis(5)));
    plainsong::time::sleep(Duration::from_millis(1));
    child.join().unwrap();
    7
}

#[test]
fn a_worker_goes_on_when_its_host_has_returned() {
    let runtime = Runtime::default();
    assert_eq!(host::run(&runtime, |_guest| (), program), 7);
    let one_slice = |mut guest: Guest<'_>| {
        assert!(matches!(guest.run_for(Duration::ZERO, Waker::noop()), Next::Wait(Some(_))));
    };
    assert_eq!(host::run(&runtime, one_slice, program), 7);
    let forgets = |mut guest: Guest<'_>| {
        guest.run_for(Duration::ZERO, Waker::noop());
        mem::forget(guest);
    };
    assert_eq!(host::run(&runtime, forgets, program), 7);
    assert_eq!(runtime.run(program), 7);
}

#[test]
fn a_slice_of_no_time_is_over_after_a_few_turns() {
    let turns = AtomicUsize::new(0);
    let longest = AtomicUsize::new(0);
    let slices = |mut guest: Guest<'_>| {
        while guest.run_for(Duration::ZERO, Waker::noop()) == Next::Later {
            longest.fetch_max(turns.swap(0, Relaxed), Relaxed);
        }
    };
    host::run(&Runtime::default(), slices, || {
        for _ in 0..1000 {
            turns.fetch_add(1, Relaxed);
            plainsong::yield_now();
        }
    });
    assert_eq!(longest.into_inner(), 4);
}

#[test]
fn a_host_that_waits_for_a_coroutine_is_refused_between_all_slices() {
    fn waits() {
        let join = || plainsong::spawn(plainsong::yield_now).join().is_ok();
        let payload = catch_unwind(join).unwrap_err();
        let message = payload.downcast_ref::<&str>().unwrap();
        assert!(message.contains("would stop all coroutines"), "{message}");
    }
    let all_seen = AtomicBool::new(false);
    let host = |mut guest: Guest<'_>| {
        waits();
        let mut seen = [false; 2];
        loop {
            let next = guest.run_for(Duration::ZERO, Waker::noop());
            waits();
            if next == Next::Over {
                break;
            }
            let has_work = next == Next::Later;
            seen[usize::from(has_work)] = true;
            all_seen.store(seen == [true; 2], Relaxed);
            if !has_work {
                guest.poll_io();
                waits();
            }
        }
        // Destructors of what the host has left run last.
        drop(guest);
        waits();
    };
    let until_all_is_seen = || {
        while !all_seen.load(Relaxed) {
            plainsong::time::sleep(Duration::from_millis(1));
        }
    };
    host::run(&Runtime::default(), host, until_all_is_seen);
}

#[test]
fn a_waker_of_a_host_that_waits_when_it_is_dropped_is_refused() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    struct Waits;
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            let join = || plainsong::spawn(plainsong::yield_now).join().is_ok();
            assert!(catch_unwind(join).is_err());
            REFUSED.fetch_add(1, Relaxed);
        }
    }
    let wakers = AtomicUsize::new(0);
    let host = |mut guest: Guest<'_>| {
        let mut next = || {
            wakers.fetch_add(1, Relaxed);
            guest.run_for(Duration::ZERO, &Waker::from(Arc::new(Waits)))
        };
        while next() != Next::Over {}
    };
    assert_eq!(host::run(&Runtime::default(), host, program), 7);
    assert_eq!(
        REFUSED.load(Relaxed),
        wakers.into_inner(),
        "none is left when the host has returned"
    );
}

/// Drives the coroutines in a runtime of tokio until `over`, and then drops both.
fn ends_early(mut guest: Guest<'_>, over: &AtomicBool) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(poll_fn(|cx| {
        let next = guest.run_for(Duration::from_micros(200), cx.waker());
        while guest.poll_io() {}
        // tokio does not watch the descriptor here, so it is looked at again and again.
        cx.waker().wake_by_ref();
        if next == Next::Over || over.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }));
}

#[test]
fn coroutines_live_on_when_tokio_ends_first() {
    let over = AtomicBool::new(false);
    let results = host::run(
        &Runtime::default(),
        |guest| ends_early(guest, &over),
        || {
            let (sender, receiver) = oneshot::channel::<()>();
            let task = tokio::spawn(async move {
                future::pending::<()>().await;
                drop(sender);
            });
            let (_peer, mut stream) = block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let peer = tokio::net::TcpStream::connect(address).await.unwrap();
                (peer, listener.accept().await.unwrap().0)
            });
            let dropped = plainsong::spawn(|| block_on(receiver).is_err());
            let aborted = plainsong::spawn(|| block_on(task).unwrap_err().is_cancelled());
            let read = plainsong::spawn(move || block_on(stream.read_u8()).is_err());
            let slept = plainsong::spawn(|| {
                catch_unwind(|| block_on(tokio::time::sleep(Duration::from_secs(3600)))).is_err()
            });
            let ours = plainsong::spawn(|| {
                while runtime::Handle::try_current().is_ok() {
                    plainsong::time::sleep(Duration::from_millis(1));
                }
                true
            });
            plainsong::time::sleep(Duration::from_millis(1));
            over.store(true, Relaxed);
            // Each wait ends: with what the crate reports, or with its panic.
            [dropped, aborted, read, slept, ours].map(|waiting| waiting.join().unwrap())
        },
    );
    assert_eq!(results, [true; 5]);
}

#[test]
fn a_waker_of_a_host_may_panic_and_spawn() {
    thread_local! {
        static RAN: Cell<u32> = const { Cell::new(0) };
        static PARKED: RefCell<Option<Thread>> = const { RefCell::new(None) };
    }
    struct Spawns;
    impl Wake for Spawns {
        fn wake(self: Arc<Self>) {
            plainsong::spawn(|| RAN.set(RAN.get() + 1));
            panic!("the waker of a host");
        }
    }
    let host = |mut guest: Guest<'_>| {
        let waker = Waker::from(Arc::new(Spawns));
        let mut slice = || guest.run_for(Duration::ZERO, &waker);
        assert_eq!(slice(), Next::Wait(None));
        drop(plainsong::spawn(|| RAN.set(RAN.get() + 1)));
        assert_eq!(slice(), Next::Wait(None));
        PARKED.take().unwrap().unpark();
        assert_eq!(slice(), Next::Over);
    };
    let main = || {
        PARKED.set(Some(plainsong::current()));
        plainsong::thread::park();
        while RAN.get() < 3 {
            plainsong::yield_now();
        }
    };
    host::run(&Runtime::default(), host, main);
}

#[test]
fn a_dump_does_not_call_the_clock_of_a_host() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let host = |mut guest: Guest<'_>| {
        guest.set_clock(|| {
            CALLS.fetch_add(1, Relaxed);
            Instant::now()
        });
        guest.run_for(Duration::from_secs(3600), Waker::noop());
    };
    let main = || {
        let before = CALLS.load(Relaxed);
        // The worker does not come to its next turn, so a signal has it answer.
        let dump = thread::scope(|s| s.spawn(plainsong::inspect::dump).join()).unwrap();
        assert!(dump.workers.iter().any(|it| it.answer == Answer::Interrupted), "{dump}");
        assert_eq!(CALLS.load(Relaxed), before);
    };
    host::run(&Runtime::default(), host, main);
}

/// Runs `main` with a clock.
fn with_clock<T>(clock: fn() -> Instant, main: impl FnOnce() -> T) -> T {
    let host = |mut guest: Guest<'_>| {
        guest.set_clock(clock);
        while guest.run_for(Duration::from_millis(1), Waker::noop()) != Next::Over {
            guest.poll_io();
        }
    };
    host::run(&Runtime::default(), host, main)
}

#[test]
fn a_clock_may_go_further_than_its_nanoseconds_can_say() {
    thread_local! {
        static FAR: Cell<bool> = const { Cell::new(false) };
    }
    let clock = || {
        let far = if FAR.get() { 1 << 35 } else { 0 };
        Instant::now() + Duration::from_secs(far)
    };
    let main = || {
        let deadline = Instant::now() + Duration::from_secs(1 << 36);
        let sleeper = plainsong::spawn(move || plainsong::time::sleep_until(deadline));
        let never = plainsong::time::after(Duration::MAX, || unreachable!("the time never comes"));
        plainsong::yield_now();
        FAR.set(true);
        assert_eq!(program(), 7);
        sleeper.join().unwrap();
        assert!(never.cancel());
        FAR.set(false);
        assert_eq!(program(), 7);
    };
    with_clock(clock, main);
}

#[test]
fn a_clock_may_lag_behind_the_start_of_the_run() {
    static SECONDS: AtomicUsize = AtomicUsize::new(0);
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let clock = || *START - Duration::from_secs(3600 - SECONDS.load(Relaxed) as u64);
    let (lags, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let host = |mut guest: Guest<'_>| {
        while guest.run_for(Duration::ZERO, Waker::noop()) != Next::Over {
            guest.poll_io();
            rounds.fetch_add(1, Relaxed);
            if lags.load(Relaxed) {
                guest.set_clock(clock);
            }
        }
    };
    let a_few_rounds = || {
        let end = rounds.load(Relaxed) + 3;
        while rounds.load(Relaxed) < end {
            plainsong::yield_now();
        }
    };
    let main = || {
        // The timers have come to a time that is later than those of the new clock.
        plainsong::time::sleep(Duration::from_nanos(1));
        lags.store(true, Relaxed);
        a_few_rounds();
        let sleeper = |seconds| {
            plainsong::spawn(move || plainsong::time::sleep(Duration::from_secs(seconds)))
        };
        let (one, two) = (sleeper(1), sleeper(2));
        a_few_rounds();
        assert!(!one.is_finished() && !two.is_finished());
        SECONDS.store(1, Relaxed);
        a_few_rounds();
        assert!(one.is_finished() && !two.is_finished());
        SECONDS.store(2, Relaxed);
        one.join().unwrap();
        two.join().unwrap();
    };
    host::run(&Runtime::default(), host, main);
}

#[test]
fn a_wait_of_sixty_days_is_reported_as_such() {
    thread_local! {
        static SIXTY_DAYS_LATER: Cell<bool> = const { Cell::new(false) };
    }
    const SIXTY_DAYS: Duration = Duration::from_secs(60 * 24 * 3600);
    let clock = || {
        let later = if SIXTY_DAYS_LATER.get() { SIXTY_DAYS } else { Duration::ZERO };
        Instant::now() + later
    };
    let main = || {
        let waits = plainsong::spawn(plainsong::thread::park);
        plainsong::time::sleep(Duration::from_nanos(1));
        SIXTY_DAYS_LATER.set(true);
        plainsong::time::sleep(Duration::from_nanos(1));
        let dump = plainsong::inspect::dump();
        let one = dump.coroutines().find(|one| one.id == waits.id()).unwrap();
        let waited = one.waits_for.as_ref().unwrap().waited;
        assert!(waited.as_secs() >= SIXTY_DAYS.as_secs(), "{waited:?}");
        waits.thread().unpark();
        waits.join().unwrap();
    };
    with_clock(clock, main);
}

#[test]
fn a_dump_of_a_worker_that_is_idle_has_the_time_of_its_clock() {
    thread_local! {
        static AN_HOUR_LATER: Cell<bool> = const { Cell::new(false) };
        static PARKED: RefCell<Option<(Id, Thread)>> = const { RefCell::new(None) };
    }
    const HOUR: Duration = Duration::from_secs(3600);
    let host = |mut guest: Guest<'_>| {
        guest.set_clock(|| {
            let later = if AN_HOUR_LATER.get() { HOUR } else { Duration::ZERO };
            Instant::now() + later
        });
        assert_eq!(guest.run_for(Duration::ZERO, Waker::noop()), Next::Wait(None));
        AN_HOUR_LATER.set(true);
        let (id, parked) = PARKED.take().unwrap();
        let mut waited = || {
            let dump = thread::scope(|s| {
                let dump = s.spawn(plainsong::inspect::dump);
                while !dump.is_finished() {
                    let (fd, timeout) = (PollFd::new(&guest, PollFlags::IN), Timespec::default());
                    if poll(&mut [fd], Some(&timeout)) == Ok(1) {
                        guest.poll_io();
                        guest.run_for(Duration::ZERO, Waker::noop());
                    }
                    thread::yield_now();
                }
                dump.join().unwrap()
            });
            // On a busy machine, a signal may have had the worker answer.
            let answers = dump.workers.iter().filter(|it| it.answer == Answer::InTurn);
            let one = answers.flat_map(|it| &it.coroutines).find(|it| it.id == id)?;
            one.waits_for.map(|it| it.waited)
        };
        let waited = iter::repeat_with(&mut waited).flatten().next().unwrap();
        assert!(waited >= HOUR, "{waited:?}");
        parked.unpark();
        while guest.run_for(Duration::ZERO, Waker::noop()) != Next::Over {}
    };
    let main = || {
        let parked = plainsong::spawn(plainsong::thread::park);
        PARKED.set(Some((parked.id(), parked.thread().clone())));
        parked.join().unwrap();
    };
    host::run(&Runtime::default(), host, main);
}

#[test]
fn a_wait_that_began_when_the_clock_was_ahead_has_not_lasted_for_years() {
    let host = |mut guest: Guest<'_>| {
        guest.set_clock(|| Instant::now() + Duration::from_secs(3600));
        guest.run_for(Duration::ZERO, Waker::noop());
        guest.set_clock(Instant::now);
    };
    let main = || {
        let waits = plainsong::spawn(plainsong::thread::park);
        // For more than one slice.
        (0..100).for_each(|_| plainsong::yield_now());
        let dump = plainsong::inspect::dump();
        let one = dump.coroutines().find(|one| one.id == waits.id()).unwrap();
        let waited = one.waits_for.as_ref().unwrap().waited;
        assert!(waited.as_secs() < 3600, "{waited:?}");
        waits.thread().unpark();
        waits.join().unwrap();
    };
    host::run(&Runtime::default(), host, main);
}

#[test]
fn a_clock_that_was_ahead_holds_up_nothing_when_its_host_has_returned() {
    let returns = AtomicBool::new(false);
    let host = |mut guest: Guest<'_>| {
        guest.set_clock(|| Instant::now() + Duration::from_secs(3600));
        for _ in 0..50 {
            guest.run_for(Duration::ZERO, Waker::noop());
        }
        returns.store(true, Relaxed);
    };
    let main = || {
        while !returns.load(Relaxed) {
            plainsong::yield_now();
        }
        let main = plainsong::current();
        let unparks = thread::spawn(move || main.unpark());
        plainsong::thread::park();
        unparks.join().unwrap();
        let sleeper = plainsong::spawn(|| plainsong::time::sleep(Duration::from_millis(1)));
        while !sleeper.is_finished() {
            plainsong::yield_now();
        }
    };
    host::run(&Runtime::default(), host, main);
}

//! The loop of one thread as the guest of another loop: in slices, and without a wait of its own.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::super::current;
use super::core::{Scheduler, TURNS_PER_TICK};
use super::run::Next;

/// Turns to the first tick of a slice. A slice ends at a tick. Ticks read the clock, so there are
/// fewer of them while turns are short.
const FIRST_TURNS: u32 = 4;
/// Turns between two ticks at most, because long turns may follow short ones.
const MOST_TURNS: u32 = 64;
/// The time between two ticks at most, unless a turn takes longer.
const TICK: Duration = Duration::from_micros(40);

/// The loop of a worker, which its host drives.
pub(crate) struct Guest<'a> {
    inner: &'a Scheduler,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// It waits. `idle`: it is not counted as busy.
    Waiting {
        idle: bool,
    },
    Over,
}

/// The next step of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slice {
    Over,
    Later,
    Wait(Option<Instant>),
}

impl<'a> Guest<'a> {
    pub(in super::super) fn new(scheduler: &'a Scheduler) -> Self {
        current::set_hosted(true);
        Self { inner: scheduler, state: State::Running }
    }

    /// A descriptor that is readable when there are events to poll.
    #[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self.inner.reactor.get() {
            Some(reactor) => reactor.fd(),
            None => unreachable!("a run is under way, so its thread has a reactor"),
        }
    }

    /// Has the loop take its time from `read`.
    pub(crate) fn set_clock(&self, read: fn() -> Instant) {
        self.inner.take_time_from(Some(read));
    }

    /// Takes events from the kernel, without waiting. Returns whether there may be more.
    pub(crate) fn poll_io(&mut self) -> bool {
        self.in_place_of_the_host(|guest| {
            guest.resume();
            let more = guest.inner.poll(Some(Duration::ZERO));
            guest.inner.fire_timers(more);
            more
        })
    }

    /// Calls `f`, in which the host's code does not run.
    fn in_place_of_the_host<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        // A waker of the host may panic.
        struct Restore<'a, 'b>(&'b mut Guest<'a>);
        impl Drop for Restore<'_, '_> {
            fn drop(&mut self) {
                self.0.inner.unwinding.leave();
                current::set_hosted(true);
            }
        }
        current::set_hosted(false);
        self.inner.unwinding.enter();
        f(Restore(self).0)
    }

    /// Runs what is ready, for about `slice`. `waker` is called when something becomes ready on
    /// this thread while the loop waits.
    pub(crate) fn run_for(&mut self, slice: Duration, waker: &Waker) -> Slice {
        assert!(!current::in_coroutine(), "a coroutine must not drive the loop that runs it");
        self.inner.host.set_waker(waker);
        self.in_place_of_the_host(|guest| guest.slice(slice))
    }

    fn slice(&mut self, slice: Duration) -> Slice {
        if !self.resume() {
            return Slice::Over;
        }
        let scheduler = self.inner;
        let began = Instant::now();
        let last = Cell::new(began);
        scheduler.tick_again_after(FIRST_TURNS);
        let is_over = || {
            let now = Instant::now();
            let turns = turns_after(scheduler.tick_after.get(), now - last.replace(now));
            scheduler.tick_again_after(turns);
            now - began >= slice
        };
        loop {
            match scheduler.run_ready(is_over) {
                Next::Over => {
                    self.state = State::Over;
                    return Slice::Over;
                }
                Next::Later => return Slice::Later,
                Next::Wait { idle } => {
                    scheduler.before_sleep();
                    if let Some(until) = scheduler.prepare_to_wait() {
                        self.state = State::Waiting { idle };
                        scheduler.host.wait();
                        return Slice::Wait(until.map(|until| scheduler.clock.instant_at(until)));
                    }
                    scheduler.receive();
                    scheduler.fire_timers(true);
                    if idle && scheduler.leave_idle() {
                        self.state = State::Over;
                        return Slice::Over;
                    }
                }
            }
        }
    }

    /// Ends the wait that is under way. Returns `false` when the loop is over.
    fn resume(&mut self) -> bool {
        if let State::Waiting { idle } = self.state {
            let scheduler = self.inner;
            scheduler.host.resume();
            scheduler.mailbox().stay_awake();
            scheduler.receive();
            scheduler.fire_timers(true);
            let over = idle && scheduler.leave_idle();
            self.state = if over { State::Over } else { State::Running };
        }
        self.state != State::Over
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.resume();
    }
}

/// The turns to the next tick, when so many have taken `elapsed`.
fn turns_after(turns: u32, elapsed: Duration) -> u32 {
    if elapsed < TICK / 4 {
        MOST_TURNS.min(turns * 2)
    } else if elapsed <= TICK {
        turns
    } else {
        1.max((TICK.as_nanos() * u128::from(turns) / elapsed.as_nanos()) as u32)
    }
}

impl Scheduler {
    fn tick_again_after(&self, turns: u32) {
        self.tick_after.set(turns);
        self.set_turns_left(turns);
    }

    /// The host has returned. It may have forgotten its guest, instead of dropping it.
    pub(in super::super) fn leave_host(&self) {
        self.host.leave();
        current::set_hosted(false);
        self.tick_after.set(TURNS_PER_TICK);
        self.take_time_from(None);
    }

    /// Has the clock take the time from `source`, or else from the system. The time may go back.
    fn take_time_from(&self, source: Option<fn() -> Instant>) {
        self.clock.set_source(source);
        self.alarms.set_time(self.clock.update());
        self.pace.forget_times();
    }
}

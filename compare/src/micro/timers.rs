//! `timers`: very many sleepers, and the cost of adding, firing and cancelling a timer.
//!
//! None of the three can be timed alone: a task that adds a timer also has to be resumed and
//! parked. So the same tasks also park without a timer, or do not park at all, and the difference
//! is the cost of the timer.
//!
//! | what    | timed                                  | less                                      |
//! |---------|----------------------------------------|-------------------------------------------|
//! | add     | all tasks enter a sleep                | all enter a wait without a timer          |
//! | fire    | from when all are due until all ended  | all are woken, are resumed, and end       |
//! | cancel  | all are cancelled in a long sleep      | all are cancelled in a wait without one   |
//!
//! Before that, a crowd of the same size is spawned and cancelled. The first crowd pays for memory
//! that the others reuse, and unwinding needs most of it.
//!
//! Deadlines are in no order that a timer queue could exploit, but neighbours have similar ones. If
//! all were shuffled, every resumed task would be out of the caches, and the column would show the
//! cost of memory and not that of the timer.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::line::{Line, ns_each};
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Tokio};
use super::{Bench, Peer, Sample, no_arm};

/// Longer than any sample takes.
const LONG: Duration = Duration::from_secs(3600);
/// The time for every task to enter a sleep that ends soon.
const LEAD_EACH: Duration = Duration::from_micros(4);
/// The distance between deadlines: shorter than firing one takes, so that firing never has to wait.
const APART: Duration = Duration::from_nanos(20);
/// The deadlines of this many neighbours are shuffled.
const SHUFFLED: usize = 256;
/// How often the watching task checks for the end.
const LOOK: Duration = Duration::from_millis(1);

/// Times `tasks` timers.
pub(super) fn sample(peer: Peer, tasks: usize) -> Result<Sample> {
    match peer {
        Peer::Plainsong => with_stacks::<Plainsong>(tasks),
        Peer::Tokio => with_await::<Tokio>(tasks),
        Peer::Smol => with_await::<Smol>(tasks),
        Peer::May => with_stacks::<May>(tasks),
        Peer::Bare | Peer::Go | Peer::Threads | Peer::Guest => Err(no_arm(Bench::Timers, peer)),
    }
}

/// The wait of a task after it passes the gate.
#[derive(Clone, Copy)]
enum Wait {
    Not,
    WithoutTimer,
    /// Until this long after the gate was opened.
    Sleep(Duration),
}

/// Tasks that wait at a gate, pass it, wait as [`Wait`] says, and end.
struct Crowd {
    reached: Line,
    /// Where a wait is `.await`, tasks poll this in turn. Elsewhere the gate is a park.
    open: AtomicBool,
    /// When the gate was opened.
    opened: OnceLock<Instant>,
    /// When the sleepers are due; set when the gate opens.
    due: OnceLock<Instant>,
    entered: Line,
    left: Line,
}

impl Crowd {
    fn new(tasks: usize) -> Arc<Crowd> {
        Arc::new(Crowd {
            reached: Line::new(tasks),
            open: AtomicBool::new(false),
            opened: OnceLock::new(),
            due: OnceLock::new(),
            entered: Line::new(tasks),
            left: Line::new(tasks),
        })
    }

    fn entering(&self) -> Duration {
        self.entered.last() - self.entered.first()
    }

    /// Records the time at which the gate opens, and when sleepers are due.
    fn opens(&self, wait: Wait) {
        let now = *self.opened.get_or_init(Instant::now);
        if let Wait::Sleep(lead) = wait {
            let _ = self.due.set(now + lead);
        }
    }

    /// The time from the opening of the gate until all have ended, for tasks that end at once.
    fn ending(&self) -> Duration {
        self.left.last() - *self.opened.get().expect("the gate is open")
    }

    /// How long task `index` has to sleep.
    fn sleep_of(&self, index: usize) -> Duration {
        let due = *self.due.get().expect("the gate is open");
        let place = index / SHUFFLED * SHUFFLED + index.wrapping_mul(0x9E37_79B9) % SHUFFLED;
        let due = due + APART * place as u32;
        due.saturating_duration_since(Instant::now())
    }

    /// The time from when all were due until all have ended.
    fn firing(&self) -> Result<Duration> {
        let due = *self.due.get().expect("the gate is open");
        ensure!(self.entered.last() < due, "some were due before the last slept");
        Ok(self.left.last() - due)
    }
}

/// Counts a task when it ends or is cancelled.
struct Leave<'a>(&'a Crowd);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.left.cross();
    }
}

/// A sleep that ends soon, but not before all tasks sleep.
fn soon(tasks: usize) -> Wait {
    Wait::Sleep(Duration::from_millis(100) + LEAD_EACH * tasks as u32)
}

/// The times, for all tasks together.
struct Timed {
    park: Duration,
    add: Duration,
    end: Duration,
    fire: Duration,
    /// Without a timer and with one; none where a task cannot be cancelled.
    cancel: Option<(Duration, Duration)>,
}

impl Timed {
    fn sample(&self, tasks: usize) -> Sample {
        let each = |elapsed| ns_each(elapsed, tasks);
        let less = |with, without| Some(each(with) - each(without));
        vec![
            less(self.add, self.park),
            less(self.fire, self.end),
            self.cancel.and_then(|(without, with)| less(with, without)),
            Some(each(self.add)),
            Some(each(self.fire)),
            self.cancel.map(|(_, with)| each(with)),
        ]
    }
}

fn with_stacks<R: Stackful>(tasks: usize) -> Result<Sample> {
    R::run(move || {
        let (first, handles) = crowd::<R>(tasks, Wait::WithoutTimer)?;
        cancel::<R>(&first, &handles);
        drop(handles);
        Ok(once::<R>(tasks)?.sample(tasks))
    })?
}

fn once<R: Stackful>(tasks: usize) -> Result<Timed> {
    let (ended, _) = crowd::<R>(tasks, Wait::Not)?;
    until::<R>(&ended.left);
    let (parked, handles) = crowd::<R>(tasks, Wait::WithoutTimer)?;
    let without = cancel::<R>(&parked, &handles);
    let with = if R::CANCELS {
        let (asleep, handles) = crowd::<R>(tasks, Wait::Sleep(LONG))?;
        Some(cancel::<R>(&asleep, &handles))
    } else {
        None
    };
    let (fired, _) = crowd::<R>(tasks, soon(tasks))?;
    until::<R>(&fired.left);
    Ok(Timed {
        park: parked.entering(),
        add: fired.entering(),
        end: ended.ending(),
        fire: fired.firing()?,
        cancel: with.map(|with| (without, with)),
    })
}

type Handles<R> = Vec<<R as Stackful>::Task<()>>;

/// Spawns a crowd, opens the gate, and returns when all tasks wait or have ended.
fn crowd<R: Stackful>(tasks: usize, wait: Wait) -> Result<(Arc<Crowd>, Handles<R>)> {
    let crowd = Crowd::new(tasks);
    let body = |index| {
        let crowd = Arc::clone(&crowd);
        move || {
            crowd.reached.cross();
            R::park();
            let _leave = Leave(&crowd);
            crowd.entered.cross();
            match wait {
                Wait::Not => {}
                Wait::WithoutTimer => R::sleep_without_timer(),
                Wait::Sleep(_) => R::sleep(crowd.sleep_of(index)),
            }
        }
    };
    let handles = (0..tasks).map(|index| R::spawn(body(index))).collect::<Result<Vec<_>>>()?;
    until::<R>(&crowd.reached);
    crowd.opens(wait);
    handles.iter().for_each(R::unpark);
    until::<R>(&crowd.entered);
    Ok((crowd, handles))
}

fn until<R: Stackful>(line: &Line) {
    while !line.all_crossed() {
        R::sleep(LOOK);
    }
}

/// Cancels all tasks, or unparks them where they cannot be cancelled, and waits until all have
/// ended.
fn cancel<R: Stackful>(crowd: &Crowd, handles: &Handles<R>) -> Duration {
    let began = Instant::now();
    handles.iter().for_each(if R::CANCELS { R::cancel } else { R::unpark });
    until::<R>(&crowd.left);
    crowd.left.last() - began
}

fn with_await<R: Async>(tasks: usize) -> Result<Sample> {
    R::run(async {
        let (first, handles) = crowd_async::<R>(tasks, Wait::WithoutTimer).await;
        cancel_async::<R>(&first, handles).await;
        Ok(once_async::<R>(tasks).await?.sample(tasks))
    })?
}

async fn once_async<R: Async>(tasks: usize) -> Result<Timed> {
    let (ended, handles) = crowd_async::<R>(tasks, Wait::Not).await;
    until_async::<R>(&ended.left).await;
    handles.into_iter().for_each(R::detach);
    let (parked, handles) = crowd_async::<R>(tasks, Wait::WithoutTimer).await;
    let without = cancel_async::<R>(&parked, handles).await;
    let long = Wait::Sleep(LONG);
    let (asleep, handles) = crowd_async::<R>(tasks, long).await;
    let with = cancel_async::<R>(&asleep, handles).await;
    let (fired, handles) = crowd_async::<R>(tasks, soon(tasks)).await;
    until_async::<R>(&fired.left).await;
    handles.into_iter().for_each(R::detach);
    Ok(Timed {
        park: parked.entering(),
        add: fired.entering(),
        end: ended.ending(),
        fire: fired.firing()?,
        cancel: Some((without, with)),
    })
}

type AsyncHandles<R> = Vec<<R as Async>::Task<()>>;

/// As [`crowd`].
async fn crowd_async<R: Async>(tasks: usize, wait: Wait) -> (Arc<Crowd>, AsyncHandles<R>) {
    let crowd = Crowd::new(tasks);
    let body = |index| {
        let crowd = Arc::clone(&crowd);
        async move {
            crowd.reached.cross();
            while !crowd.open.load(Relaxed) {
                R::yield_now().await;
            }
            let _leave = Leave(&crowd);
            crowd.entered.cross();
            match wait {
                Wait::Not => {}
                Wait::WithoutTimer => std::future::pending().await,
                Wait::Sleep(_) => {
                    R::sleep(crowd.sleep_of(index)).await;
                }
            }
        }
    };
    let handles = (0..tasks).map(|index| R::spawn(body(index))).collect();
    until_async::<R>(&crowd.reached).await;
    crowd.opens(wait);
    crowd.open.store(true, Relaxed);
    until_async::<R>(&crowd.entered).await;
    (crowd, handles)
}

async fn until_async<R: Async>(line: &Line) {
    while !line.all_crossed() {
        R::sleep(LOOK).await;
    }
}

async fn cancel_async<R: Async>(crowd: &Crowd, handles: AsyncHandles<R>) -> Duration {
    let began = Instant::now();
    handles.into_iter().for_each(R::cancel);
    until_async::<R>(&crowd.left).await;
    crowd.left.last() - began
}

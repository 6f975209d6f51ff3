//! A thread that looks for workers which do not come to their next turn.
//!
//! It costs a worker nothing that a run would notice: from time to time a message comes that asks
//! for nothing. A worker that does not take it is interrupted, as for a dump, and says which
//! coroutine runs and in which turn. If it says the same once the limit has passed, and has not
//! taken the message either, one turn has lasted all that time.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(not(feature = "backtrace"))]
use super::dump::Backtraces;
use super::dump::{Coroutine, State, asking};
use super::frame::Frame;
#[cfg(feature = "backtrace")]
use super::frames::Backtraces;
use super::text::{Named, write_backtrace, write_state};
use crate::engine::error::explained;
use crate::engine::facts::{Facts, Names, Time};
use crate::engine::id::Id;
use crate::engine::mailbox::Message;
use crate::engine::shared::start_thread;
use crate::engine::signals;
use crate::engine::survey::{Survey, Wanted};
use crate::engine::workers::{Question, Workers};

/// The shortest limit: a thread that waits for its processor may take as long.
const LIMIT_MIN: Duration = Duration::from_millis(5);
/// A limit has this many periods. The thread looks once in each.
const PERIODS: u32 = 8;
/// How long a worker has time to answer once it was interrupted.
const ANSWER: Duration = Duration::from_millis(200);
/// Coroutines that may hold a lock: there are rarely more than one.
const HOLDERS_MAX: usize = 8;

/// A coroutine that holds up its worker, and so all other coroutines of the worker: see
/// [`watchdog`]. It prints itself for people.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stall {
    /// The number of the run, in this process.
    pub run: u64,
    /// The number of the worker, in its run.
    pub worker: usize,
    /// The limit of the watchdog. The worker has been held up for longer.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "limit_ms", serialize_with = "super::dump::json::millis")
    )]
    pub limit: Duration,
    /// The coroutine that runs. `None` if the worker runs code outside of any coroutine, such as a
    /// waker, or does not answer.
    pub coroutine: Option<Coroutine>,
    /// The reason for which the worker is held up.
    pub cause: Cause,
    /// Parked coroutines of the worker that have the address of the lock on their stacks. Most
    /// often it is the holder. Empty if no lock is waited for, and where it is not known.
    pub may_hold: Vec<Coroutine>,
}

/// The reason for which a worker is held up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// The coroutine computes.
    Computes,
    /// It sleeps as a thread does, with [`std::thread::sleep`].
    Sleeps,
    /// It waits for a lock of std, or of the C library or `parking_lot`.
    WaitsForLock,
    /// It waits for another thread: for a lock or a channel that is not this library's, or for the
    /// end of a thread.
    WaitsForThread,
    /// It is in the system call with this number.
    SystemCall(u32),
    /// The worker does not answer, not even when it is interrupted.
    Silent,
    /// It computes or blocks the thread. The system does not say which.
    Unknown,
}

/// Calls `report` when a coroutine holds its worker for longer than `limit`, once for each such
/// turn and while it lasts. In that time the other coroutines of the worker do not run.
///
/// The [`Stall`] says which coroutine it is and where it was spawned, what it does (it computes, it
/// sleeps, it waits for a lock of std), and with the feature `backtrace` where it is. If it waits
/// for a [`std::sync::Mutex`] that another coroutine of its thread holds across a wait, that is a
/// deadlock, and both are named.
///
/// This starts a thread, which watches all workers of all runs until the process ends. It looks at
/// each worker eight times in each `limit`. It asks a worker that is behind with a signal
/// (`SIGURG`), as [`dump`](super::dump) does, and so knows of a turn half a `limit` after the limit
/// at the latest, while the machine is not overloaded. A turn in which the whole process is stopped
/// and continued does not count as long for that. `report` is called on the thread. If it panics,
/// there are no reports any more.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a limit below 5 ms: a thread may have to wait
/// as long for its processor. Fails also when the process cannot have another thread.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::inspect::watchdog(Duration::from_millis(100), |stall| eprintln!("{stall}"))?;
/// # Ok(())
/// # }
/// ```
pub fn watchdog(limit: Duration, report: impl FnMut(&Stall) + Send + 'static) -> io::Result<()> {
    if limit < LIMIT_MIN {
        return Err(explained(
            io::ErrorKind::InvalidInput,
            format!("a limit of {limit:?} for a turn: ask for {LIMIT_MIN:?} or more"),
        ));
    }
    let watch = move || Watchdog { limit, watches: HashMap::new(), report }.run();
    start_thread("watchdog", Box::new(watch))
}

struct Watchdog<F> {
    limit: Duration,
    // By run and worker.
    watches: HashMap<(u64, usize), Watch>,
    report: F,
}

/// The knowledge about a worker that has a message to take.
struct Watch {
    // How often it had taken messages before.
    received: u64,
    // Its turn when it was last interrupted, and whether that turn has been reported.
    turn: Option<(Turn, bool)>,
    // Periods since then, and after how many it is interrupted again.
    periods: u32,
    due: u32,
}

/// The turn that a worker is in, if it has answered.
type Turn = Option<(Option<Id>, u32)>;

impl<F: FnMut(&Stall)> Watchdog<F> {
    fn run(mut self) {
        loop {
            thread::sleep(self.limit / PERIODS);
            let mut watches = HashMap::new();
            for workers in Workers::all() {
                for number in 0..workers.len() {
                    if let Some(watch) = self.look(&workers, number) {
                        watches.insert((workers.id().number(), number), watch);
                    }
                }
            }
            self.watches = watches;
        }
    }

    /// Looks at a worker. Returns `None` if it sleeps or has ended.
    fn look(&mut self, workers: &Workers, number: usize) -> Option<Watch> {
        let mailbox = workers.mailbox(number)?;
        let key = (workers.id().number(), number);
        let mut watch = match self.watches.remove(&key) {
            Some(watch) if watch.received == mailbox.received() => watch,
            _ if mailbox.is_asleep() => return None,
            _ => {
                let received = mailbox.received();
                mailbox.send(Message::Check);
                return Some(Watch { received, turn: None, periods: 0, due: PERIODS });
            }
        };
        let Some((turn, reported)) = watch.turn else {
            let mut survey = Survey::with_capacity(1);
            survey.wanted = Wanted::Running;
            let survey = ask(workers, number, survey)?;
            watch.turn = Some((turn_of(survey.as_ref()), false));
            return Some(watch);
        };
        watch.periods += 1;
        // The process may have been stopped in one period. So one more is asked for.
        if watch.periods > watch.due {
            let answer = Answer::of(workers, number)?;
            let now = turn_of(answer.survey.as_ref());
            // Before names are sought, which takes so long in a debug build that the turn may end.
            if mailbox.received() != watch.received || now != turn {
                return Some(Watch { turn: Some((now, false)), periods: 0, due: PERIODS, ..watch });
            }
            if !reported {
                let (run, worker) = key;
                (self.report)(&answer.stall(run, worker, self.limit));
            }
            // Another turn may begin before the message is taken. A system call should not be
            // interrupted often for that.
            (watch.turn, watch.periods) = (Some((turn, true)), 0);
            watch.due = watch.due.saturating_mul(2);
        }
        Some(watch)
    }
}

/// The answer of a worker that was held up.
struct Answer {
    call: Option<SystemCall>,
    backtraces: Backtraces,
    // `None` if it has not answered.
    survey: Option<Survey>,
}

impl Answer {
    /// Asks a worker. `None` as for [`ask`].
    fn of(workers: &Workers, number: usize) -> Option<Self> {
        let backtraces = Backtraces::new();
        let call = SystemCall::of(workers.thread(number)?);
        let (wanted, room) = match call {
            Some(SystemCall::Number(FUTEX, lock)) => (Wanted::Referring(lock), 1 + HOLDERS_MAX),
            _ => (Wanted::Running, 1),
        };
        let mut survey = backtraces.survey(room);
        survey.wanted = wanted;
        let survey = ask(workers, number, survey)?;
        Some(Self { call, backtraces, survey })
    }

    /// The answer with names.
    fn stall(mut self, run: u64, worker: usize, limit: Duration) -> Stall {
        let mut all = Vec::new();
        if let Some(survey) = &self.survey {
            let names = Names::new(|| survey.coroutines.iter());
            let new = |facts: Facts| {
                Coroutine::new(&facts, &names, self.backtraces.of(survey.frames_of(&facts)))
            };
            all.extend(survey.coroutines.iter().map(new));
        }
        let (mut running, may_hold): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.state == State::Running);
        let coroutine = running.pop();
        let cause = match (&self.survey, self.call) {
            (None, _) => Cause::Silent,
            (_, Some(SystemCall::None)) => Cause::Computes,
            (_, Some(SystemCall::Number(FUTEX, _))) => match &coroutine {
                Some(one) if one.backtrace.iter().any(is_lock) => Cause::WaitsForLock,
                _ => Cause::WaitsForThread,
            },
            (_, Some(SystemCall::Number(number, _))) if SLEEPS.contains(&number) => Cause::Sleeps,
            (_, Some(SystemCall::Number(number, _))) => Cause::SystemCall(number),
            (_, None) => Cause::Unknown,
        };
        Stall { run, worker, limit, coroutine, cause, may_hold }
    }
}

fn turn_of(survey: Option<&Survey>) -> Turn {
    survey
        .map(|survey| (survey.coroutines.iter().find(|it| it.runs()).map(|it| it.id), survey.turn))
}

/// Interrupts a worker to ask it. `None` if it was not held up any more, or cannot be asked now.
/// `Some(None)` if it does not answer.
fn ask(workers: &Workers, number: usize, survey: Survey) -> Option<Option<Survey>> {
    let _asking = asking();
    let question = Question::new(survey);
    let asked = workers.ask(number, &question)?;
    let start = Instant::now();
    signals::interrupt(workers.thread(number)?);
    while !asked.is_answered() && start.elapsed() < ANSWER {
        workers.thread(number)?;
        thread::sleep(Duration::from_micros(50));
    }
    drop(asked);
    match question.into_answer() {
        (survey, true) => survey.interrupted.is_some().then_some(Some(survey)),
        (_, false) => Some(None),
    }
}

#[cfg(target_os = "linux")]
const FUTEX: u32 = libc::SYS_futex as u32;
#[cfg(target_os = "linux")]
const SLEEPS: [u32; 2] = [libc::SYS_nanosleep as u32, libc::SYS_clock_nanosleep as u32];
// Other systems have no such files as are read below.
#[cfg(not(target_os = "linux"))]
const FUTEX: u32 = u32::MAX;
#[cfg(not(target_os = "linux"))]
const SLEEPS: [u32; 0] = [];

/// The system call that a thread is in, as far as the kernel says it.
#[derive(Clone, Copy)]
enum SystemCall {
    None,
    /// Its number and its first argument.
    Number(u32, usize),
}

impl SystemCall {
    /// `None` if the system does not say it.
    fn of(thread: i32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).ok()?;
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        match first.parse() {
            Ok(number) => {
                let argument = words.next()?.strip_prefix("0x")?;
                Some(Self::Number(number, usize::from_str_radix(argument, 16).ok()?))
            }
            // Not in a call, or on its way through the kernel for another reason.
            Err(_) => (first == "running" || first == "-1").then_some(Self::None),
        }
    }
}

/// Whether a frame is of a lock, as std, `parking_lot` and the C library have them.
fn is_lock(frame: &Frame) -> bool {
    // With little debug information, a name has no path.
    let parts = [
        "lock_contended",
        "read_contended",
        "write_contended",
        "parking_lot::raw_",
        "lock_slow",
        "pthread_mutex_lock",
        "pthread_rwlock_",
    ];
    frame.function.as_deref().is_some_and(|name| parts.iter().any(|part| name.contains(part)))
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computes => f.write_str(
                "computes: call `plainsong::yield_now` from time to time, or compute in \
                 `plainsong::blocking`",
            ),
            Self::Sleeps => {
                f.write_str("sleeps, and its thread with it: use `plainsong::time::sleep`")
            }
            Self::WaitsForLock => f.write_str(
                "waits for a lock that is not plainsong's, and its thread with it. If the holder \
                 waits on this thread, this is a deadlock: use `plainsong::sync::Mutex`, or drop \
                 the guard before the wait",
            ),
            Self::WaitsForThread => f.write_str(
                "waits for another thread, or for a lock that is not plainsong's: use \
                 `plainsong::sync`, or wait in `plainsong::blocking`",
            ),
            Self::SystemCall(number) => write!(
                f,
                "is in system call {number}, which blocks its thread: use the type of the same \
                 name in plainsong, or make the call in `plainsong::blocking`"
            ),
            Self::Silent => f.write_str("does not answer, not even to a signal"),
            Self::Unknown => f.write_str("computes or blocks its thread"),
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, worker, cause, .. } = self;
        write!(f, "plainsong: worker {worker} of run {run} is held up for more than ")?;
        match &self.coroutine {
            None => writeln!(f, "{}, outside of any coroutine\n  It {cause}.", Time(self.limit))?,
            Some(one) => {
                let by = Named(one);
                writeln!(f, "{} by coroutine {by}", Time(self.limit))?;
                writeln!(f, "{by}, spawned at {}\n  {cause}", one.spawned)?;
                write_backtrace(f, "", &one.backtrace)?;
            }
        }
        for one in &self.may_hold {
            write!(f, "The lock may be held by {}, spawned at {}\n ", Named(one), one.spawned)?;
            write_state(f, one)?;
            writeln!(f)?;
            write_backtrace(f, "", &one.backtrace)?;
        }
        Ok(())
    }
}

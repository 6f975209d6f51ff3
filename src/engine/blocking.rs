//! Calls that block their thread, such as file I/O and name resolution, made on a thread of a pool.
//!
//! There is one way to make a call, and two ways to give one up. If no thread has begun the call, a
//! caller that is cancelled, or whose time is up, takes it back. If a thread has begun it,
//! [`blocking`] waits for its end, because the call may borrow from the caller's stack. [`offload`]
//! leaves it alone, because its calls borrow nothing.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::abort::AbortOnUnwind;
use super::blocking_pool::{self as pool, Caller, Job};
use super::context;
use super::coroutine::lending;
use super::defer::Defer;
use super::error::past_deadline;
use super::mutex::Mutex;
use super::park;
use super::shared::thread_local;
use super::task::{Wait, Wake};
use super::waiter::Parker;
use super::workers::Workers;

thread_local! {
    // On a thread of the pool: the run that waits for the call that this thread makes.
    static RUN: RefCell<Option<Arc<Workers>>> = const { RefCell::new(None) };
}

const WAIT: Wait = Wait::new(&Wait::outside("a blocking call on another thread"));

/// How long a caller pauses before it tries again to get a thread for the pool.
const PAUSE: Duration = Duration::from_millis(10);

/// The state of a call.
enum Answer<T> {
    /// There is no answer yet.
    Awaited(Awaited),
    Given(thread::Result<T>),
    /// The caller has given up.
    Unwanted,
}

/// The caller of a call that has no answer yet.
#[derive(Clone, Copy, Default)]
struct Awaited {
    /// Set once it waits.
    waiter: Option<Parker>,
    /// It tries to get a thread for the pool.
    tries: bool,
}

impl<T: Send> Caller for Mutex<Answer<T>> {
    fn have_it_try_again(&self) {
        let waiter = match &mut *self.lock() {
            Answer::Awaited(awaited) => {
                awaited.tries = true;
                awaited.waiter
            }
            Answer::Given(_) | Answer::Unwanted => None,
        };
        if let Some(waiter) = waiter {
            park::wake(waiter.into());
        }
    }
}

/// A call that was submitted, from its caller's side.
struct Call<T> {
    number: u64,
    answer: Arc<Mutex<Answer<T>>>,
}

impl<T: Send + 'static> Call<T> {
    /// Submits `f` to the pool.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    fn submit(f: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let answer = Arc::new(Mutex::new(Answer::Awaited(Awaited::default())));
        let theirs = Arc::clone(&answer);
        let job = Box::new(move || {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            let before = {
                let mut answer = theirs.lock();
                if matches!(*answer, Answer::Unwanted) {
                    Answer::Given(result)
                } else {
                    mem::replace(&mut *answer, Answer::Given(result))
                }
            };
            if let Answer::Awaited(Awaited { waiter: Some(waiter), .. }) = before {
                park::wake(waiter.into());
            }
        });
        let caller: Arc<dyn Caller> = answer.clone();
        let number = pool::submit(job, Some(caller))?;
        Ok(Self { number, answer })
    }

    /// Waits until the call has ended, and returns its result.
    ///
    /// # Errors
    ///
    /// The end of the wait, if the coroutine was cancelled or `deadline` passed first.
    fn wait(&self, deadline: Option<Instant>) -> Result<thread::Result<T>, Wake> {
        loop {
            let waiter = park::waiter();
            let tries = match self.begin_wait(waiter) {
                Ok(tries) => tries,
                Err(result) => return Ok(result),
            };
            let pause = if tries && !pool::try_again() { park::deadline(PAUSE) } else { None };
            let until = deadline.into_iter().chain(pause).min();
            let wake = park::block_unless_cancelled(waiter, WAIT, until);
            // A cancellation that came after another wake has not ended this wait, and would not
            // end the next.
            if wake == Wake::Cancelled || park::is_cancel_pending() {
                return Err(Wake::Cancelled);
            }
            if wake == Wake::TimedOut && until == deadline {
                return Err(wake);
            }
        }
    }

    /// Notes that the caller waits, unless there is an answer. Returns whether it has to try to get
    /// a thread for the pool.
    fn begin_wait(&self, waiter: Parker) -> Result<bool, thread::Result<T>> {
        let mut answer = self.answer.lock();
        let tries = matches!(*answer, Answer::Awaited(Awaited { tries: true, .. }));
        let next = Answer::Awaited(Awaited { waiter: Some(waiter), tries });
        match mem::replace(&mut *answer, next) {
            Answer::Given(result) => Err(result),
            Answer::Awaited(_) | Answer::Unwanted => Ok(tries),
        }
    }

    /// Notes that the caller has given up. Returns the state before.
    fn leave(&self) -> Answer<T> {
        mem::replace(&mut *self.answer.lock(), Answer::Unwanted)
    }

    /// Takes the call back, if no thread has begun it.
    fn take_back(&self) -> Option<Job> {
        pool::take_back(self.number)
    }
}

/// Calls `f`, which may block, on another thread, and parks the coroutine until `f` has ended. Use
/// it for calls that do not know about coroutines, such as those of a database client, and for long
/// computations, such as those of a compression library.
///
/// `f` may borrow from its caller. A panic of `f` is resumed here. A plain thread may block, so
/// there this just calls `f`.
///
/// The threads come from a pool, which [`fs`](crate::fs) and the look-up of host names use too. At
/// most 512 threads work at a time, and further calls queue. A thread that waits in a call of this
/// library (`join`, `read` of a socket, `sleep`, `park`, a whole [`run`](crate::run)) is replaced
/// while it waits, so any number of calls may wait for each other that way. A thread that waits in
/// a call of std is not replaced. In `f`, thread-locals are those of the pool's thread.
///
/// # Panics
///
/// When `f` panics, with its panic. When no thread can be started.
///
/// # Cancellation
///
/// If no thread has begun the call, it is taken back, and the coroutine unwinds at once. A call
/// that has begun cannot be stopped: this waits for its end and returns its value, and the
/// coroutine's next wait unwinds. So a `timeout` around such a call is late, and
/// [`run`](crate::run) waits for it at its end.
///
/// ```
/// plainsong::run(|| {
///     let words = vec!["plain", "song"];
///     let mut longest = "";
///     plainsong::blocking(|| longest = words.iter().max_by_key(|word| word.len()).unwrap());
///     assert_eq!(longest, "plain");
/// });
/// ```
#[track_caller]
pub fn blocking<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    match attempt(f) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// [`blocking`], which returns a lack of threads as an error.
///
/// # Errors
///
/// When no thread can be started.
pub(crate) fn attempt<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let mut value = None;
    let mut f = Some(f);
    lend(&mut || value = f.take().map(|f| f()))?;
    Ok(value.expect("a call that was not made is an error"))
}

/// Makes a call that may borrow. It is one function for all calls: a debug build would compile it
/// anew for each of `fs` otherwise.
fn lend(f: &mut (dyn FnMut() + Send)) -> io::Result<()> {
    // As it lends, `make` returns or unwinds when the call has ended, or when its job, which no
    // thread has begun, was taken back.
    lending(|loan| make(loan.lend_to_thread(f), true, None))
}

/// [`blocking`] for a call that borrows nothing: a cancellation or a time-out leaves it at once.
/// Use it where a caller must not be late, such as for a query that may hang.
///
/// # Panics
///
/// When `f` panics, with its panic. When no thread can be started.
///
/// # Cancellation
///
/// Unwinds at once when the coroutine is cancelled. If no thread has begun the call, it is taken
/// back. A call that has begun runs on: the pool's thread drops its value or its panic, and
/// [`run`](crate::run) does not wait for it.
///
/// ```
/// use plainsong::time::timeout;
/// use std::sync::mpsc::channel;
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let (sender, receiver) = channel::<()>();
///     // std's `recv` blocks its thread, here until the sender is dropped.
///     let hang = move || receiver.recv();
///     assert!(timeout(Duration::from_millis(1), || plainsong::offload(hang)).is_err());
///     drop(sender);
/// });
/// ```
#[track_caller]
pub fn offload<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match try_offload(None, f) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Calls `f` on a thread of the pool and waits for it, until `deadline` at most. A caller that is
/// cancelled unwinds at once. A call that has begun then runs on by itself, so it may not borrow.
///
/// A plain thread may block, so there this just calls `f`.
///
/// # Errors
///
/// When no thread can be started; `TimedOut` when `deadline` has passed.
pub(crate) fn try_offload<T: Send + 'static>(
    deadline: Option<Instant>,
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    make(f, false, deadline)
}

/// The run that waits for the end of the [`blocking`] call that the calling thread makes.
pub(crate) fn waiting_run() -> Option<Arc<Workers>> {
    // A destructor of another thread-local may ask after this one is gone. No call is made then.
    RUN.try_with(|run| run.borrow().clone()).ok().flatten()
}

/// Calls `f`, on a thread of the pool, for `run`, which waits for its end.
fn for_run<T>(run: Option<Arc<Workers>>, f: impl FnOnce() -> T) -> T {
    let set = |run| RUN.with(|cell| drop(cell.replace(run)));
    set(run);
    let _end = Defer::new(|| set(None));
    f()
}

/// Makes a call and waits for it. If the coroutine is cancelled or `deadline` passes, it waits for
/// the end of a call that has begun only if it `lends`.
fn make<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
    lends: bool,
    deadline: Option<Instant>,
) -> io::Result<T> {
    if !park::in_coroutine() {
        return Ok(f());
    }
    // A coroutine that must not wait makes no call.
    park::check_cancelled();
    let run = context::with(|scheduler| {
        scheduler.with_worker(|worker| lends.then(|| Arc::clone(&worker.workers)))
    });
    let call = Call::submit(move || for_run(run, f))?;
    // An unwind would leave the call with what it was lent. The wait in the loop returns when the
    // coroutine is cancelled or its time is up. Any other unwind ends the process.
    let abort = AbortOnUnwind::new();
    let ended = loop {
        let wake = match call.wait(deadline) {
            Ok(result) => break Ok(result),
            Err(wake) => wake,
        };
        let job = call.take_back();
        if job.is_some() || !lends {
            // An answer that came meanwhile is not lost.
            break match call.leave() {
                Answer::Given(result) => Ok(result),
                Answer::Awaited(_) | Answer::Unwanted => Err((wake, job)),
            };
        }
    };
    abort.disarm();
    match ended {
        Ok(result) => result.map_or_else(|panic| park::resume_unwind(panic), Ok),
        Err((Wake::TimedOut, _job)) => Err(past_deadline()),
        Err((_, _job)) => {
            // The unwind drops the captures of the job, like everything else in this frame.
            park::raise()
        }
    }
}

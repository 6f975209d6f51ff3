//! Calls that block their thread, made on another one, such as file I/O and name resolution.
//!
//! There is one way to make a call and two ways to give one up. A cancelled caller takes back a
//! call that no thread has begun. A call that has begun is waited for by [`blocking`], which lends
//! it what is on the caller's stack, and left alone by [`offload`], which lends nothing.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use super::abort::AbortOnUnwind;
use super::blocking_pool::{self as pool, Job};
use super::mutex::Mutex;
use super::park;
use super::task::{Wait, Wake};
use super::waiter::Parker;

const WAIT: Wait = Wait::outside("a blocking call on another thread");

/// What a call has come to.
enum Answer<T> {
    /// Nothing yet. The caller, once it waits.
    Awaited(Option<Parker>),
    Given(thread::Result<T>),
    /// The caller has gone.
    Unwanted,
}

/// A call under way, as its caller sees it.
struct Call<T> {
    number: u64,
    answer: Arc<Mutex<Answer<T>>>,
}

impl<T: Send> Call<T> {
    /// Has `f` called by a thread of the pool.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    ///
    /// # Safety
    ///
    /// What `f` and its value borrow must live until [`wait`](Self::wait) has returned a value, or
    /// [`take_back`](Self::take_back) has returned the job and that has been dropped.
    unsafe fn submit<'a>(f: impl FnOnce() -> T + Send + 'a) -> io::Result<Self>
    where
        T: 'a,
    {
        let answer = Arc::new(Mutex::new(Answer::Awaited(None)));
        let theirs = Arc::clone(&answer);
        let job: Box<dyn FnOnce() + Send + 'a> = Box::new(move || {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            let before = {
                let mut answer = theirs.lock();
                if matches!(*answer, Answer::Unwanted) {
                    Answer::Given(result)
                } else {
                    mem::replace(&mut *answer, Answer::Given(result))
                }
            };
            if let Answer::Awaited(Some(waiter)) = before {
                park::wake(waiter.into());
            }
        });
        // SAFETY: the box differs from what it becomes in the lifetime of what it borrows. While it
        // is queued or `f` runs, that lives: by the caller's promise it lives until `wait` has
        // returned the answer, which is given after `f` has returned or unwound and its captures
        // have been dropped, or until the box has been taken back and dropped.
        //
        // What is left of the job after the answer was given is its share of `answer`. The caller
        // took the value out (`wait` leaves `Awaited` in its place), so to drop that share, however
        // late, runs no code of `T` and looks at nothing that was borrowed. A value that
        // nobody took is dropped by the job only if the caller has gone, and such a caller has
        // promised that nothing is borrowed at all.
        //
        // A submission that fails drops the box before it returns.
        let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Job>(job) };
        let number = pool::submit(job)?;
        Ok(Self { number, answer })
    }

    /// Waits until the call has ended, and returns what it did; `None` when the coroutine has been
    /// cancelled first.
    fn wait(&self) -> Option<thread::Result<T>> {
        loop {
            let waiter = park::waiter();
            let next = Answer::Awaited(Some(waiter));
            if let Answer::Given(result) = mem::replace(&mut *self.answer.lock(), next) {
                return Some(result);
            }
            if park::block_unless_cancelled(waiter, WAIT, None) == Wake::Cancelled {
                return None;
            }
        }
    }

    /// Says that nobody will ask for the answer. Returns what is there of it.
    fn leave(&self) -> Answer<T> {
        mem::replace(&mut *self.answer.lock(), Answer::Unwanted)
    }

    /// Takes the call back, if nobody has begun it.
    fn take_back(&self) -> Option<Job> {
        pool::take_back(self.number)
    }
}

/// Calls `f`, which may block, on a thread of its own, and parks the coroutine until it has ended:
/// for calls that know nothing of coroutines, such as those of a database client or of a
/// compression library that would compute for long.
///
/// `f` may borrow from its caller. Its panic is resumed here. On a plain thread, which may block,
/// this just calls `f`.
///
/// The threads are shared with [`fs`](crate::fs) and with the look-up of host names, and 512 of
/// them work at a time; further calls queue. A thread that waits in a call of this
/// library (`join`, `read` of a socket, `sleep`, `park`, a whole [`run`](crate::run)) is
/// replaced while it waits, so any number of calls may wait for each other that way. It is not
/// while it waits for something of std's. Thread-locals are those of the pool's thread.
///
/// # Panics
///
/// When `f` panics, with its panic. When the system gives no thread.
///
/// # Cancellation
///
/// A call that no thread has begun is taken back, and the coroutine unwinds at once. One that has
/// begun cannot be stopped: this waits for its end and returns its value, and the coroutine's next
/// wait unwinds. So a `timeout` around it is late, and [`run`](crate::run) waits for it at its end.
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

/// [`blocking`], where a lack of threads is an error.
///
/// # Errors
///
/// When no thread can be started.
pub(crate) fn attempt<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    // SAFETY: with `true`, this returns when nothing of `f` is left elsewhere.
    unsafe { make(f, true) }
}

/// Calls `f` on a thread of the pool and waits for it. A caller that is cancelled unwinds at
/// once; a call that has begun then goes on by itself, which is why it may not borrow.
///
/// On a plain thread, which may block, it just calls `f`.
///
/// # Errors
///
/// When no thread can be started.
pub(crate) fn offload<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // SAFETY: `f` and its value borrow nothing that could end.
    unsafe { make(f, false) }
}

/// Makes a call and waits for it; when the coroutine is cancelled, to its end only if it `lends`.
///
/// # Safety
///
/// Where it does not lend, `f` and its value may borrow nothing that could end.
unsafe fn make<T: Send>(f: impl FnOnce() -> T + Send, lends: bool) -> io::Result<T> {
    if !park::in_coroutine() {
        return Ok(f());
    }
    // A coroutine that must not wait, or not any more, makes no call.
    park::check_cancelled();
    // SAFETY: where it lends, the loop below is left only with the answer or with the job that was
    // taken back, and that is dropped in this very frame. Nothing unwinds out of the loop: its wait
    // returns when the coroutine is cancelled, and any other way ends the process
    // (`AbortOnUnwind`).
    //
    // Nor can the frame vanish while the coroutine is suspended in it: no suspended coroutine
    // is dropped, and one is given up only where it unwinds, which is after the loop.
    //
    // Where it does not lend, nothing is borrowed, by the caller's promise.
    let call = unsafe { Call::submit(f) }?;
    // The call would be left with what it was lent.
    let abort = AbortOnUnwind::new();
    let ended = loop {
        if let Some(result) = call.wait() {
            break Ok(result);
        }
        let job = call.take_back();
        if job.is_some() || !lends {
            break Err((job, call.leave()));
        }
    };
    abort.disarm();
    match ended {
        Ok(result) => result.map_or_else(|panic| panic::resume_unwind(panic), Ok),
        Err(_left) => {
            // What the job has captured is dropped by the unwind, like all else.
            park::raise()
        }
    }
}

//! Cancellation: time-outs, tokens, and shields against it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use super::body::Body;
use crate::engine::address::Target;
use crate::engine::cancel::{self, Failure, is_cancellation};
use crate::engine::defer::Defer;
use crate::engine::mutex::{Mutex, MutexGuard};
use crate::engine::park::{self, Running};
use crate::engine::scopes::{CancelReason, Level, Until};
use crate::engine::task::Wait;
use crate::engine::waiter::Waiters;
use crate::engine::{current, root};

const TOKEN: &str = "a token to be cancelled";
const WAIT: Wait = Wait::new(&Wait::for_any_thread(TOKEN));
const WAIT_OUTSIDE: Wait = Wait::new(&Wait::outside(TOKEN));

/// Runs `f` in a new scope, after `setup` got the scope as a target. `None` if the scope was
/// cancelled.
#[inline]
pub(crate) fn cancellable<T>(
    until: Until,
    setup: impl FnOnce(Target),
    f: impl FnOnce() -> T,
) -> Option<T> {
    park::running(|running| match running {
        Some(running) => cancellable_here(running, until, setup, f),
        // A wait of a plain thread cannot be cancelled, so `f` runs as a coroutine.
        None => root::start_default(|| cancellable(until, setup, f)),
    })
}

fn cancellable_here<T>(
    running: Running<'_>,
    until: Until,
    setup: impl FnOnce(Target),
    f: impl FnOnce() -> T,
) -> Option<T> {
    let Running { scheduler, task } = running;
    let scope = scheduler.open_scope(task, until);
    setup(Target::scope(scheduler, task, scope));
    let result = cancel::catch(task, Level::Scope(scope), f);
    let raised = scheduler.close_scope(task, scope)
        || matches!(&result, Err(Failure::Panicked(payload)) if is_cancellation(&***payload));
    if !raised && !task.scopes.is_pending() {
        // If the body has swallowed the payload of this scope, nothing requests that unwind any
        // more.
        task.forget_raised();
    }
    match result {
        Ok(value) => Some(value),
        Err(Failure::Cancelled(_)) => {
            // The wait may have been over before it began, and a program may loop over such calls.
            park::spend();
            None
        }
        Err(Failure::Panicked(payload)) => park::resume_unwind(*payload),
    }
}

/// Runs `f` for `limit` at most. When the time is up, its wait unwinds.
///
/// `f` ends at its next wait, and its destructors run before this returns. The unwind of a nested
/// time-out stops at that time-out. If `f` returns a value although the time is up, this returns
/// the value. On a plain thread, `f` runs as a coroutine.
///
/// An unwind can leave what `f` was reading in the middle of an operation. A single `read`, `recv`,
/// `accept` or `lock` that unwinds has taken nothing, and `read_until` keeps what it has. But
/// `read_line`, `lines`, WebSocket and CSV readers and many others lose data or break. So after
/// [`Elapsed`], drop what was being read, or use a deadline that is an error: [`fail_after`], or
/// `set_read_deadline` of a socket. The page `docs/cancel-safety.md` of the repository has a table.
///
/// # Errors
///
/// [`Elapsed`] when `f` was unwound.
///
/// # Panics
///
/// On a plain thread, as [`run`](crate::run).
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, from within `f`.
///
/// ```
/// use std::time::Duration;
/// use plainsong::time::{sleep, timeout};
///
/// plainsong::run(|| {
///     assert!(timeout(Duration::from_millis(1), || sleep(Duration::from_secs(60))).is_err());
///     assert_eq!(timeout(Duration::from_secs(60), || 42), Ok(42));
/// });
/// ```
#[inline]
pub fn timeout<T>(limit: Duration, f: impl Body<T>) -> Result<T, Elapsed> {
    let until = match park::deadline(limit) {
        Some(_) if limit.is_zero() => Until::Passed,
        Some(deadline) => Until::Later(deadline),
        // Later than the clock can say.
        None => Until::Closed,
    };
    cancellable(until, |_| (), f).ok_or(Elapsed(()))
}

/// [`timeout`] with a point in time: runs `f` until `deadline` at most.
///
/// # Errors
///
/// [`Elapsed`] when `f` was unwound.
///
/// # Panics
///
/// On a plain thread, as [`run`](crate::run).
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, from within `f`.
pub fn timeout_at<T>(deadline: Instant, f: impl Body<T>) -> Result<T, Elapsed> {
    let until = if deadline > park::now() { Until::Later(deadline) } else { Until::Passed };
    cancellable(until, |_| (), f).ok_or(Elapsed(()))
}

/// Runs `f`. When `limit` is over, its waits for I/O fail with
/// [`TimedOut`](io::ErrorKind::TimedOut). Unlike [`timeout`], this unwinds nothing, so `f` may be
/// code that an unwind out of a read would leave broken: it gets an error, ends by itself, and may
/// be used again.
///
/// From the deadline on, each wait that can say so says that its time is up:
///
/// - Reads, writes, accepts, connects, look-ups and waits for child processes and signals fail with
///   `TimedOut` where they would wait. (A call that need not wait succeeds. A loop of such calls
///   fails after 128 of them.)
/// - Waits with a time-out of their own (`recv_timeout`, `lock_timeout`, `wait_timeout`,
///   `join_timeout`, `select_timeout`, …) end as if it had passed.
/// - All others wait on: `lock`, `recv`, `send`, `join`, `sleep`, `park`, `park_timeout`,
///   `blocking`, files, a [`scope`](crate::scope) that waits for its children, futures. They have
///   no error for it, and their callers rely on what they wait for. Put a `timeout` with some grace
///   around this call if `f` must end.
///
/// The deadline is for the waits of the calling coroutine, not for coroutines that `f` spawns. A
/// [`shield`] hides it, as it hides time-outs. Of nested deadlines, the earliest counts. A
/// `timeout` around or inside unwinds when its own time is up. Code that takes every error for an
/// idle moment, and tries again, goes on for ever; each try lets other coroutines run.
///
/// On a plain thread, `f` runs as a coroutine.
///
/// # Panics
///
/// On a plain thread, as [`run`](crate::run).
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, from within `f`.
///
/// ```
/// use std::io::{self, BufRead, BufReader, ErrorKind, Write};
/// use std::time::Duration;
/// use plainsong::net::UnixStream;
/// use plainsong::time::fail_after;
///
/// # fn main() -> io::Result<()> {
/// plainsong::run(|| {
///     let (client, server) = UnixStream::pair()?;
///     let (mut lines, mut line) = (BufReader::new(&client), Vec::new());
///     (&server).write_all(b"half a ")?;
///     let error = fail_after(Duration::from_millis(1), || lines.read_until(b'\n', &mut line));
///     assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
///     // Nothing is lost.
///     (&server).write_all(b"line\n")?;
///     lines.read_until(b'\n', &mut line)?;
///     assert_eq!(line, b"half a line\n");
///     Ok(())
/// })
/// # }
/// ```
pub fn fail_after<T>(limit: Duration, f: impl Body<T>) -> T {
    // Later than the clock can say is never.
    failing(park::deadline(limit).map_or(Until::Closed, Until::Fails), f)
}

/// [`fail_after`] with a point in time: from `deadline` on, the waits for I/O of `f` fail with
/// [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Panics
///
/// On a plain thread, as [`run`](crate::run).
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, from within `f`.
pub fn fail_at<T>(deadline: Instant, f: impl Body<T>) -> T {
    failing(Until::Fails(deadline), f)
}

fn failing<T>(until: Until, f: impl FnOnce() -> T) -> T {
    match cancellable(until, |_| (), f) {
        Some(value) => value,
        None => unreachable!("nothing requests the cancellation of such a scope"),
    }
}

/// The error of [`timeout`]: the time was up first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time-out has passed first")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// Runs `f` with cancellation held off, for clean-up that has to wait. A request that comes
/// meanwhile takes effect at the first wait after `f`. Time-outs inside of `f` work as usual.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let child = plainsong::spawn(|| {
///         plainsong::shield(|| plainsong::time::sleep(Duration::from_millis(1)));
///         plainsong::yield_now(); // unwinds here
///     });
///     plainsong::yield_now();
///     child.cancel();
///     assert!(child.join().unwrap_err().is_cancelled());
/// });
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    park::shield(f)
}

/// Runs `f`, in which no wait unwinds: for code, often with `unsafe` in it, that cannot bear an
/// unwind out of a call that never unwinds in std.
///
/// This is [`shield`] with an exception. A cancellation of the whole coroutine, such as the end of
/// [`run`](crate::run), does not wait for `f`: the coroutine never runs again, and what its stack
/// holds is leaked, destructors and all. So its locks stay locked, and a promise that it was to
/// fulfil stays open. A coroutine that borrows from others, as in a [`scope`](crate::scope), is not
/// left that way. There, `f` is waited for.
///
/// A wait still panics where waits are forbidden, as in [`no_wait`].
///
/// ```
/// use plainsong::{no_unwind, thread};
///
/// plainsong::run(|| {
///     plainsong::spawn(|| no_unwind(thread::park));
///     plainsong::yield_now();
///     // The end of the run leaves the coroutine where it is.
/// });
/// ```
pub fn no_unwind<T>(f: impl FnOnce() -> T) -> T {
    park::no_unwind(f)
}

/// Runs `f` and panics if it waits. Use it for code that must not interleave with other coroutines,
/// such as the initialiser of a thread-local, or a library that relies on thread-locals.
///
/// An operation that need not wait never yields in `f`, even when the turn of the coroutine is
/// over. On a plain thread, this just calls `f`.
///
/// # Panics
///
/// At a wait inside of `f`, and when a scope that `f` opens starts a coroutine, since its end would
/// wait for it. In a destructor that an unwind runs, such a panic ends the process. So does a wait
/// that never unwinds, of plainsong-std.
///
/// ```
/// use std::time::Duration;
///
/// let waited = std::panic::catch_unwind(|| {
///     plainsong::run(|| plainsong::no_wait(|| plainsong::time::sleep(Duration::from_millis(1))));
/// });
/// assert!(waited.is_err());
/// ```
#[inline]
pub fn no_wait<T>(f: impl FnOnce() -> T) -> T {
    current::with(|task| {
        let _allow = task.map(|task| task.scopes.forbid_waits());
        let _forbid = task.is_none().then(current::forbid_yields);
        f()
    })
}

/// A request to stop that many coroutines and threads share. Some of them make the request. Others
/// check for it, wait for it, or run code whose waits it cancels.
///
/// Clones are the same token. A [`child_token`](Self::child_token) is cancelled with its parent.
///
/// ```
/// use plainsong::CancellationToken;
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let stop = CancellationToken::new();
///     let theirs = stop.clone();
///     let worker = plainsong::spawn(move || {
///         theirs.run_until_cancelled(|| plainsong::time::sleep(Duration::from_secs(60)))
///     });
///     plainsong::yield_now();
///     stop.cancel();
///     assert_eq!(worker.join().unwrap(), None);
/// });
/// ```
#[derive(Clone, Default)]
pub struct CancellationToken(Arc<Mutex<Token>>);

#[derive(Default)]
struct Token {
    cancelled: bool,
    // A signal cancels it.
    outside: bool,
    reason: Option<CancelReason>,
    waiters: Waiters,
    scopes: Slab<Target>,
    children: Vec<Weak<Mutex<Token>>>,
    // Keeps the parent alive: a token without a user still passes the request of its parent on to
    // its children.
    parent: Option<CancellationToken>,
}

impl Token {
    /// Notes a cancellation. The reason of the first one stays.
    fn cancel(&mut self, reason: Option<&CancelReason>) {
        if !mem::replace(&mut self.cancelled, true) {
            self.reason = reason.cloned();
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // One after the other, because nested drops of a long chain of parents would overflow the
        // stack.
        let mut parent = self.parent.take();
        while let Some(CancellationToken(token)) = parent {
            let last = Arc::into_inner(token).map(Mutex::into_inner);
            parent = last.and_then(|mut token| token.parent.take());
        }
    }
}

impl CancellationToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that something outside of any run cancels.
    #[cfg(feature = "signal")]
    pub(crate) fn for_outside() -> Self {
        let token = Self::new();
        token.lock().outside = true;
        token
    }

    fn lock(&self) -> MutexGuard<'_, Token> {
        self.0.lock()
    }

    /// A new token that is cancelled together with this one. It can also be cancelled alone.
    pub fn child_token(&self) -> Self {
        let child = Self::new();
        let mut token = self.lock();
        if token.cancelled {
            child.lock().cancel(token.reason.as_ref());
        } else {
            let children = &mut token.children;
            if children.len() == children.capacity() {
                // The next search comes when the list has doubled, so the cost per child stays
                // constant.
                children.retain(|child| child.strong_count() > 0);
                children.reserve(children.len());
            }
            children.push(Arc::downgrade(&child.0));
            let mut theirs = child.lock();
            theirs.parent = Some(self.clone());
            theirs.outside = token.outside;
            drop(theirs);
        }
        drop(token);
        child
    }

    /// Cancels the token and its children. This cannot be undone.
    pub fn cancel(&self) {
        self.cancel_family(None);
    }

    /// [`cancel`](Self::cancel), with a reason for people. [`reason`](Self::reason) of the token
    /// and of its children has it, and so have dumps and reports. The first request to cancel a
    /// token gives the reason.
    pub fn cancel_with(&self, reason: impl Into<Box<str>>) {
        self.cancel_family(Some(&CancelReason::new(reason.into())));
    }

    fn cancel_family(&self, reason: Option<&CancelReason>) {
        let mut family = vec![self.clone()];
        while let Some(next) = family.pop() {
            let mut token = next.lock();
            token.cancel(reason);
            let waiters = token.waiters.take();
            // The targets stay in the list, because each removes itself.
            let scopes: Vec<Target> =
                token.scopes.iter().map(|(_, target)| target.clone()).collect();
            let children = mem::take(&mut token.children);
            drop(token);
            park::wake_all(waiters);
            Target::cancel_all(&scopes, reason);
            family.extend(children.iter().filter_map(Weak::upgrade).map(Self));
        }
    }

    /// Whether the token is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Why the token was cancelled, if it was with [`cancel_with`](Self::cancel_with).
    pub fn reason(&self) -> Option<String> {
        self.lock().reason.as_ref().map(ToString::to_string)
    }

    /// Waits until the token is cancelled.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled.
    pub fn cancelled(&self) {
        park::spend();
        let why = if self.lock().outside { WAIT_OUTSIDE } else { WAIT };
        while !self.is_cancelled() {
            park::until(why, None, |waiter| {
                let mut token = self.lock();
                if token.cancelled {
                    return None;
                }
                token.waiters.push(waiter.clone());
                Some(Defer::new(move || self.lock().waiters.remove(&waiter)))
            });
        }
    }

    /// Runs `f` and returns its value. If the token is cancelled first, the wait of `f` unwinds,
    /// and this returns `None`. On a plain thread, `f` runs as a coroutine.
    ///
    /// # Panics
    ///
    /// On a plain thread, as [`run`](crate::run).
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled, from within `f`.
    pub fn run_until_cancelled<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        struct Listed<'a>(&'a CancellationToken, usize);
        impl Drop for Listed<'_> {
            fn drop(&mut self) {
                self.0.lock().scopes.remove(self.1);
            }
        }
        let token = self.lock();
        let (cancelled, outside) = (token.cancelled, token.outside);
        drop(token);
        if cancelled {
            // A program may loop over such calls.
            park::spend();
            return None;
        }
        let listed = Cell::new(None);
        let list = |target: Target| {
            let mut token = self.lock();
            let key = token.scopes.insert(target.clone());
            let (late, reason) = (token.cancelled, token.reason.clone());
            drop(token);
            listed.set(Some(Listed(self, key)));
            if late {
                target.cancel(reason.as_ref());
            }
        };
        let result = cancellable(Until::Token { outside }, list, f);
        drop(listed);
        result
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = self.is_cancelled();
        f.debug_struct("CancellationToken").field("cancelled", &cancelled).finish_non_exhaustive()
    }
}

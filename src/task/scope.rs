//! Coroutines that borrow from their parent, which waits for them.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe, Location};
use std::time::Duration;

use super::body::Body;
use super::cancel::cancellable;
use super::group::Group;
use super::join::{JoinError, JoinHandle};
use super::spawn::refuse;
use super::thread::Thread;
use crate::engine::cancel::{Failure, is_cancellation};
use crate::engine::coroutine::Lent;
use crate::engine::error::explained;
use crate::engine::id::Id;
use crate::engine::root;
use crate::engine::scopes::{CancelReason, Until};
use crate::engine::spawn::{Spec, check_running, take_stack};
use crate::engine::task::Task;
use crate::engine::{context, current, park};

/// A scope for coroutines that borrow. Made by [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    group: Group,
    // It was opened where waits are forbidden. Its end waits for the children even there, so there
    // must be none.
    refuses: bool,
    // As in std: invariant in both, so that neither can be shrunk.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Runs `f`, which may start coroutines that borrow from the caller, and waits for all of them.
///
/// This is [`std::thread::scope`] with three additions. The children need not be `Send`. The first
/// panic, of a child or of `f`, cancels the others, and is resumed when all have ended. If the
/// calling coroutine is cancelled, its children are cancelled too, and have ended before the unwind
/// goes on. On a plain thread, `f` runs as a coroutine.
///
/// # Panics
///
/// With the first panic of a child or of `f`. On a plain thread, also as [`run`](crate::run). A
/// scope that is opened inside of [`no_wait`](crate::no_wait) can start no children.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, after its children have ended.
///
/// ```
/// plainsong::run(|| {
///     let text = String::from("plain song");
///     let mut count = 0;
///     let shortest = plainsong::scope(|s| {
///         s.spawn(|| count = text.split(' ').count());
///         let shortest = s.spawn(|| text.split(' ').min_by_key(|word| word.len()));
///         shortest.join().unwrap()
///     });
///     assert_eq!((count, shortest), (2, Some("song")));
/// });
/// ```
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    if !park::in_coroutine() {
        return root::start_default(|| scope(f));
    }
    let (group, refuses) = (Group::default(), park::are_waits_refused());
    let scope = Scope { group, refuses, scope: PhantomData, env: PhantomData };
    let group = &scope.group;
    // Nothing may leave this function while a member is running. So it catches an unwind of the
    // body, waits for all members, and only then resumes the unwind.
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        cancellable(Until::Closed, |body| group.set_body(Some(body)), || f(&scope))
    }));
    group.set_body(None);
    match &result {
        Ok(Some(_)) => {}
        Ok(None) => group.cancel(None),
        Err(payload) => {
            // The panic of the body comes first, so a later panic of a member is dropped.
            if !is_cancellation(&**payload) {
                group.body_panicked();
            }
            group.cancel(None);
        }
    }
    let waited = panic::catch_unwind(AssertUnwindSafe(|| group.wait(None)));
    if waited.is_err() {
        group.cancel(None);
        group.wait_for_all();
    }
    if let Some(payload) = group.take_panic() {
        if [result.err(), waited.err()].iter().flatten().any(|payload| is_cancellation(&**payload))
        {
            // The payload of the cancellation ends here, because the panic takes its place. The
            // cancellation is raised again at the next wait.
            current::with(|task| task.into_iter().for_each(Task::clear_raised));
        }
        park::resume_unwind(payload);
    }
    match (result, waited) {
        (Err(payload), _) | (_, Err(payload)) => park::resume_unwind(payload),
        (Ok(Some(value)), Ok(())) => value,
        (Ok(None), Ok(())) => unreachable!("only a member's panic cancels the body"),
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a coroutine that may borrow what outlives the scope. It first runs when the calling
    /// coroutine waits or yields.
    ///
    /// # Panics
    ///
    /// When the system has no room for another stack, and when the scope was opened inside of
    /// [`no_wait`](crate::no_wait).
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: Body<T> + 'scope,
        T: 'scope,
    {
        match self.spawn_with(Spec::at(Location::caller()), f) {
            Ok(handle) => handle,
            Err(error) => refuse(&error),
        }
    }

    pub(super) fn spawn_with<F, T>(
        &'scope self,
        spec: Spec,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.check()?;
        let spec = Spec { borrows: true, ..spec };
        let (handle, _) = context::with(|scheduler| {
            let stack = take_stack::<T>(scheduler, spec.stack_size)?;
            // `move`, so that this captures `&'scope self` and not a borrow of this frame.
            let attend = move || self.group.attend(f);
            // SAFETY: `f` and its result borrow for `'scope`, which does not end before the
            // function `scope` is left. That does not happen, by a return or an unwind, before the
            // group is empty. A member leaves the group when it no longer uses them.
            //
            // The type of the handle says that it does not outlive `'scope`.
            let attend = unsafe { Lent::new(attend) };
            io::Result::Ok(self.group.spawn_lent(scheduler, stack, spec, attend))
        })?;
        Ok(ScopedJoinHandle { handle, scope: PhantomData })
    }

    /// Starts a coroutine on any worker, like [`spawn_anywhere`](crate::spawn_anywhere). It may
    /// borrow what outlives the scope, and must be `Send`. If there is no stack for it, that counts
    /// as its panic.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = plainsong::Runtime::builder().workers(2).build()?;
    /// let numbers: Vec<u64> = (0..1000).collect();
    /// let sum: u64 = runtime.run(|| {
    ///     plainsong::scope(|s| {
    ///         let sum = |part: &[u64]| part.iter().sum::<u64>();
    ///         let parts = numbers.chunks(250).map(|part| s.spawn_anywhere(move || sum(part)));
    ///         let parts: Vec<_> = parts.collect();
    ///         parts.into_iter().map(|part| part.join().unwrap()).sum()
    ///     })
    /// });
    /// assert_eq!(sum, 499_500);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn_anywhere<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: Body<T> + Send + 'scope,
        T: Send + 'scope,
    {
        self.spawn_at(None, Location::caller(), f)
    }

    /// Starts a coroutine on the worker with this number. It may borrow what outlives the scope,
    /// and must be `Send`.
    pub(crate) fn spawn_on<F, T>(&'scope self, number: usize, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.spawn_at(Some(number), Location::caller(), f)
    }

    #[track_caller]
    fn spawn_at<F, T>(
        &'scope self,
        number: Option<usize>,
        spawned: &'static Location<'static>,
        f: F,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let spec = Spec { borrows: true, ..Spec::at(spawned) };
        // Only the group goes to the other thread. The scope stays on its own.
        let group = self.group.clone();
        let attend = move || group.attend(f);
        let handle = context::with(|scheduler| {
            if let Err(error) = self.check().and_then(|()| check_running(scheduler)) {
                refuse(&error);
            }
            // SAFETY: as in `spawn_with`.
            let attend = unsafe { Lent::new(attend) };
            self.group.spawn_anywhere(scheduler, number, spec, attend)
        });
        ScopedJoinHandle { handle, scope: PhantomData }
    }

    fn check(&self) -> io::Result<()> {
        if self.refuses {
            let text = "its scope was opened inside of `no_wait`, where nothing can wait for it: open \
                        the scope outside";
            return Err(explained(io::ErrorKind::Unsupported, text));
        }
        Ok(())
    }

    /// Cancels the children, and those that are started from now on. The body of the scope
    /// continues.
    pub fn cancel(&self) {
        self.group.cancel(None);
    }

    /// [`cancel`](Self::cancel), with a reason: see [`JoinHandle::cancel_with`].
    pub fn cancel_with(&self, reason: impl Into<Box<str>>) {
        self.group.cancel(Some(CancelReason::new(reason.into())));
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("children", &self.group.len()).finish_non_exhaustive()
    }
}

/// The [`JoinHandle`] of a coroutine of a [`scope`].
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<T>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the coroutine to end and returns its result.
    ///
    /// # Errors
    ///
    /// [`JoinError`] when the coroutine was cancelled or panicked. The scope resumes the panic.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine that calls this is cancelled.
    pub fn join(self) -> Result<T, JoinError> {
        self.handle.join()
    }

    /// Waits for the coroutine to end, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// The handle itself, if the time is up before the coroutine has ended.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine that calls this is cancelled.
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        let scope = self.scope;
        self.handle.join_timeout(timeout).map_err(|handle| Self { handle, scope })
    }

    /// Cancels the coroutine: see [`JoinHandle::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// [`JoinHandle::cancel_with`].
    pub fn cancel_with(&self, reason: impl Into<Box<str>>) {
        self.handle.cancel_with(reason);
    }

    /// Whether the coroutine has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The coroutine's id.
    pub fn id(&self) -> Id {
        self.handle.id()
    }

    /// The coroutine's handle, to [`unpark`](Thread::unpark) it.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.handle.thread()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}

/// Runs all of `fs`, each in its own coroutine, and returns their results in order.
///
/// The closures may borrow. The first panic cancels the others.
///
/// # Panics
///
/// With the first panic of a closure, and when the system has no room for a stack. On a plain
/// thread, also as [`run`](crate::run).
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, after the coroutines of `fs` have ended.
///
/// ```
/// plainsong::run(|| {
///     let squares = plainsong::task::gather((1..4).map(|n| move || n * n));
///     assert_eq!(squares, [1, 4, 9]);
/// });
/// ```
pub fn gather<F, T>(fs: impl IntoIterator<Item = F>) -> Vec<T>
where
    F: FnOnce() -> T,
{
    scope(|s| {
        let handles: Vec<_> = fs.into_iter().map(|f| s.spawn(f)).collect();
        let value = |handle: ScopedJoinHandle<'_, T>| match handle.join() {
            Ok(value) => value,
            // The coroutine has panicked. The scope has its payload, and resumes it in place of
            // this one.
            Err(error) => park::resume_unwind(Box::new(error)),
        };
        handles.into_iter().map(value).collect()
    })
}

/// Runs all of `fs`, each in its own coroutine, until the first has ended, and returns its result.
/// The others are cancelled, and have ended when this returns.
///
/// Do not use what the others were reading any more, as after a [`timeout`](crate::time::timeout)
/// that has elapsed: its documentation says why.
///
/// # Panics
///
/// When `fs` is empty, and as [`gather`].
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled, after the coroutines of `fs` have ended.
///
/// ```
/// use std::time::Duration;
///
/// plainsong::run(|| {
///     let first = plainsong::task::race([3600, 0, 7200].map(|seconds| move || {
///         plainsong::time::sleep(Duration::from_secs(seconds));
///         seconds
///     }));
///     assert_eq!(first, 0);
/// });
/// ```
pub fn race<F, T>(fs: impl IntoIterator<Item = F>) -> T
where
    F: FnOnce() -> T,
{
    let (winner, mut any) = (Cell::new(None), false);
    scope(|s| {
        for f in fs {
            any = true;
            let winner = &winner;
            s.spawn(move || {
                let value = f();
                // Others may still end before the cancellation reaches them: the first result
                // stays.
                if !s.group.is_cancelled() {
                    winner.set(Some(value));
                    s.cancel();
                }
            });
        }
        s.group.wait(None);
    });
    winner.into_inner().unwrap_or_else(|| {
        assert!(any, "`race` needs at least one closure");
        // The end of the run has cancelled all of them, and a shield hides that from the caller.
        park::resume_unwind(Box::new(JoinError::from(Failure::Cancelled(None))))
    })
}

//! Starting coroutines: here, on any worker, and from plain threads.

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::body::Body;
use super::join::JoinHandle;
use crate::engine::blocking;
use crate::engine::context;
use crate::engine::coroutine::Lent;
use crate::engine::packet::Home;
use crate::engine::park::{self, Running};
use crate::engine::spawn::{self, Spec};
use crate::engine::workers::Injector;

/// Starts a coroutine on this thread. It first runs when the calling coroutine waits or yields.
///
/// `f` need not be `Send`, because the coroutine never leaves this thread. To borrow from the
/// caller, spawn in a [`scope`](crate::scope).
///
/// As with a thread or a task, nothing looks at the result of a coroutine whose handle is dropped.
/// If `f` returns a `Result`, join it, or handle the error in `f`:
///
/// ```
/// # use std::io;
/// # fn flush() -> io::Result<()> { Ok(()) }
/// # plainsong::run(|| {
/// plainsong::spawn(|| {
///     if let Err(error) = flush() {
///         eprintln!("cannot flush: {error}");
///     }
/// });
/// # plainsong::yield_now();
/// # });
/// ```
///
/// # Panics
///
/// Outside of a runtime, and when the system has no room for a stack.
/// [`Builder::spawn`](crate::Builder::spawn) returns these as errors.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// plainsong::run(|| {
///     let count = Rc::new(Cell::new(0));
///     let theirs = count.clone();
///     let child = plainsong::spawn(move || theirs.set(1));
///     assert_eq!(count.get(), 0);
///     child.join().unwrap();
///     assert_eq!(count.get(), 1);
/// });
/// ```
#[track_caller]
#[inline]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: Body<T> + 'static,
    T: 'static,
{
    // Outside of the closure, where the caller would be `with`.
    let spec = Spec::at(Location::caller());
    match spawn_here(spec, f) {
        Ok(handle) => handle,
        Err(error) => refuse(&error),
    }
}

#[cold]
#[track_caller]
pub(super) fn refuse(error: &io::Error) -> ! {
    panic!("cannot spawn a coroutine: {error}")
}

/// Starts a coroutine of this thread.
#[inline]
pub(super) fn spawn_here<F, T>(spec: Spec, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // Where there is no stack, `f` is dropped outside of the closure: that is code of a user.
    let mut f = Some(f);
    let spawned = context::try_with(|scheduler| {
        let stack = spawn::take_stack::<T>(scheduler, spec.stack_size)?;
        let Some(f) = f.take() else { unreachable!("it is taken once") };
        Ok(JoinHandle::new(spawn::here(scheduler, stack, spec, Lent::nothing(f), |_| ())))
    });
    spawned.unwrap_or_else(|| Err(spawn::is_ending()))
}

/// Starts a coroutine on any worker of the runtime. It waits on this worker, unless another sleeps
/// or has far less to do. Until it starts, a worker with nothing to do may take it. Once it has
/// started, it stays on its worker.
///
/// A worker starts the newest of its coroutines first, so that a program that branches like a tree
/// needs few stacks. From time to time it starts the oldest, so that none waits forever. With one
/// worker, this differs from [`spawn`](crate::spawn) only in that order.
///
/// If a worker takes it and there is no memory for its stack, the closure is dropped, and the
/// handle sees a panic that says so.
///
/// # Panics
///
/// Outside of a runtime. A plain thread spawns through a [`Handle`](crate::Handle).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = plainsong::Runtime::builder().workers(2).build()?;
/// let sum: u64 = runtime.run(|| {
///     let halves = [0..500, 500..1000];
///     let halves = halves.map(|half| plainsong::spawn_anywhere(|| half.sum::<u64>()));
///     halves.into_iter().map(|half| half.join().unwrap()).sum()
/// });
/// assert_eq!(sum, 499_500);
/// # Ok(())
/// # }
/// ```
#[track_caller]
#[inline]
pub fn spawn_anywhere<F, T>(f: F) -> JoinHandle<T>
where
    F: Body<T> + Send + 'static,
    T: Send + 'static,
{
    match spawn_in_run(Spec::at(Location::caller()), f) {
        Ok(handle) => handle,
        Err(error) => refuse(&error),
    }
}

/// Starts a coroutine on any worker of this thread's run.
pub(super) fn spawn_in_run<F, T>(spec: Spec, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    context::try_with(spawn::check_running).unwrap_or_else(|| Err(spawn::is_ending()))?;
    let (job, spawned) = context::with(|scheduler| {
        spawn::owned_anywhere(scheduler, spawn::this_run(scheduler), spec, f)
    });
    spawn::place(job, None);
    Ok(JoinHandle::new(spawned))
}

/// Starts a coroutine on the current run of the injector's runtime, or on its next one.
pub(super) fn inject<F, T>(injector: &Arc<Injector>, spec: Spec, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let is_ours = context::try_with(|scheduler| {
        scheduler.with_worker(|worker| Arc::ptr_eq(&worker.injector, injector))
    });
    if is_ours == Some(true) {
        return spawn_in_run(spec, f);
    }
    // Outside of the run, it is unknown which run will start the coroutine.
    let made =
        context::try_with(|scheduler| spawn::owned_anywhere(scheduler, Home::Unknown, spec, f));
    let Some((job, spawned)) = made else { return Err(spawn::is_ending()) };
    injector.push(job, blocking::waiting_run().as_ref());
    Ok(JoinHandle::new(spawned))
}

/// Lets the other ready coroutines of this thread run first.
///
/// On a plain thread, yields to the other threads of the system.
///
/// # Cancellation
///
/// Unwinds when the coroutine has been cancelled.
///
/// ```
/// plainsong::run(|| {
///     let child = plainsong::spawn(|| ());
///     plainsong::yield_now();
///     assert!(child.is_finished());
/// });
/// ```
#[inline]
pub fn yield_now() {
    park::running(|running| match running {
        Some(Running { scheduler, task }) => scheduler.yield_now(task),
        None => std::thread::yield_now(),
    });
}

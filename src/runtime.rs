//! Running a program of coroutines.

use std::io;
use std::panic::Location;
use std::sync::Arc;

use crate::engine::root::{self, Settings};
use crate::engine::workers::Injector;
use crate::engine::{context, stack};
use crate::task::{self, JoinHandle};

/// More threads than any machine has processors for.
const WORKERS_MAX: usize = 1024;

/// Runs `f` as a coroutine on this thread and returns its value.
///
/// When `f` returns or panics, the coroutines that are left are cancelled: each unwinds at its
/// wait, its destructors run, and `run` returns when the last one has ended. `f` may borrow.
///
/// # Panics
///
/// When `f` panics, with its panic. When every coroutine that is left waits for another of them,
/// such as two that join each other: with a report of what each one waits for. Inside of another
/// runtime on the same thread, and when the system refuses what a runtime needs.
///
/// ```
/// let words = vec!["plain", "song"];
/// let joined = plainsong::run(|| words.concat());
/// assert_eq!(joined, "plainsong");
/// ```
#[track_caller]
pub fn run<F: FnOnce() -> T, T>(f: F) -> T {
    Runtime::default().run(f)
}

/// Runs `f` as [`run`] does, but waits for all other coroutines to end by themselves first, those
/// that are still to come from [`time::after`](crate::time::after) included.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// let done = Rc::new(Cell::new(0));
/// plainsong::run_all(|| {
///     for _ in 0..3 {
///         let done = done.clone();
///         plainsong::spawn(move || {
///             plainsong::yield_now();
///             done.set(done.get() + 1);
///         });
///     }
/// });
/// assert_eq!(done.get(), 3);
/// ```
///
/// # Panics
///
/// As [`run`].
#[track_caller]
pub fn run_all<F: FnOnce() -> T, T>(f: F) -> T {
    Runtime::default().run_all(f)
}

/// Schedulers of coroutines, one a worker thread, and their settings.
///
/// With several workers, the thread that calls [`run`](Self::run) is the first, and the others are
/// started and ended by it. A coroutine stays on the worker on which it has started:
/// [`spawn`](crate::spawn) starts it on the same as its parent, and
/// [`spawn_anywhere`](crate::spawn_anywhere) on any.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = plainsong::Runtime::builder().workers(2).stack_size(128 * 1024).build()?;
/// let answer = runtime.run(|| {
///     let factors = [2, 3, 7].map(|n| plainsong::spawn_anywhere(move || n));
///     factors.into_iter().map(|n| n.join().unwrap()).product::<i32>()
/// });
/// assert_eq!(answer, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Runtime {
    settings: Settings,
    injector: Arc<Injector>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { settings: Settings::default(), injector: Arc::default() }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.injector.close();
    }
}

impl Runtime {
    /// Settings for a runtime.
    pub fn builder() -> Builder {
        Builder(Settings::default())
    }

    /// Runs `f` as a coroutine on this thread: see [`run`](crate::run).
    ///
    /// With several workers, all coroutines on all of them are cancelled when `f` has returned.
    ///
    /// # Panics
    ///
    /// When `f` panics, with its panic. When a runtime runs on this thread already: start
    /// coroutines with [`spawn`](crate::spawn) instead. When the system refuses what it needs, an
    /// epoll descriptor and a stack for each worker, and threads.
    #[track_caller]
    pub fn run<F: FnOnce() -> T, T>(&self, f: F) -> T {
        root::start(self.settings, &self.injector, true, f)
    }

    /// Runs `f` as [`run`](Self::run) does, but waits for all other coroutines to end by themselves
    /// first: see [`run_all`].
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_all<F: FnOnce() -> T, T>(&self, f: F) -> T {
        root::start(self.settings, &self.injector, false, f)
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.settings.workers
    }

    /// A way to spawn from plain threads.
    ///
    /// ```
    /// let runtime = plainsong::Runtime::default();
    /// let handle = runtime.handle();
    /// let answer = std::thread::spawn(move || handle.spawn(|| 6 * 7)).join().unwrap();
    /// assert_eq!(runtime.run(|| answer.join().unwrap()), 42);
    /// ```
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.injector))
    }
}

/// Spawns into a [`Runtime`] from anywhere, a plain thread for one; made by [`Runtime::handle`].
///
/// It does not keep a run going. What is spawned while none is under way starts with the next one;
/// when the runtime is dropped first, it never starts, and counts as cancelled.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Injector>);

impl Handle {
    /// The handle of the runtime that runs on this thread.
    ///
    /// # Panics
    ///
    /// When none does.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let handle = plainsong::Handle::current();
    ///     let theirs = std::thread::spawn(move || handle.spawn(|| "on a worker"));
    ///     assert_eq!(theirs.join().unwrap().join().unwrap(), "on a worker");
    /// });
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        let injector = context::with(|scheduler| {
            scheduler.with_worker(|worker| Some(Arc::clone(&worker.injector)))
        });
        Self(injector.expect("no plainsong runtime runs on this thread: take `Runtime::handle`"))
    }

    /// Starts a coroutine on the worker that has least to do; on a worker of the runtime itself, as
    /// [`spawn_anywhere`](crate::spawn_anywhere).
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        task::inject(&self.0, Location::caller(), f)
    }
}

/// Settings for a [`Runtime`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder(Settings);

impl Builder {
    /// Sets the number of worker threads, the one that calls [`Runtime::run`] included.
    ///
    /// The default is one. [`available_parallelism`](std::thread::available_parallelism) tells how
    /// many the machine has room for.
    pub fn workers(mut self, workers: usize) -> Self {
        self.0.workers = workers;
        self
    }

    /// Pins each worker to a processor of its own for the time of a run, as far as there are enough
    /// among those that the calling thread may use. The default is `false`.
    ///
    /// Threads and processes that a pinned worker starts inherit its processor, other than the
    /// threads for blocking calls. It does nothing where the system has no way to do so, other than
    /// on Linux.
    pub fn pin_workers(mut self, pin: bool) -> Self {
        self.0.pin = pin;
        self
    }

    /// Sets the size in bytes of the stack of each coroutine that does not ask for another size
    /// with [`Builder::stack_size`](crate::Builder::stack_size). It is rounded up to a power of
    /// two.
    ///
    /// The default is 256 KiB. Memory is used only as far as it is touched, a page for most.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.0.stack_size = bytes;
        self
    }

    /// Says that there is no outside: no plain thread will unpark a coroutine or cancel a token.
    /// Then such waits count as waits for other coroutines when a deadlock is looked for.
    ///
    /// The default is `false`: a coroutine that is parked may be waiting for a plain thread, so
    /// it is never taken for deadlocked.
    ///
    /// ```should_panic
    /// let runtime = plainsong::Runtime::builder().strict_deadlock(true).build().unwrap();
    /// runtime.run(plainsong::thread::park); // panics: nobody is left to unpark it
    /// ```
    pub fn strict_deadlock(mut self, strict: bool) -> Self {
        self.0.strict = strict;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB, and for no workers or more than
    /// 1024.
    pub fn build(&self) -> io::Result<Runtime> {
        let stack_size = stack::check_size(self.0.stack_size)?;
        if !(1..=WORKERS_MAX).contains(&self.0.workers) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} workers: ask for 1 to {WORKERS_MAX} of them", self.0.workers),
            ));
        }
        let settings = Settings { stack_size, ..self.0 };
        Ok(Runtime { settings, injector: Arc::default() })
    }
}

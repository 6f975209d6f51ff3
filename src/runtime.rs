//! `Runtime`: running a program of coroutines.

use std::io;
use std::sync::Arc;

use crate::engine::error::explained;
use crate::engine::id::Id;
use crate::engine::root;
use crate::engine::settings::{Moment, Settings};
use crate::engine::workers::Injector;
use crate::engine::{context, stack};
use crate::task::{self, Body, JoinHandle};

/// More than the number of processors of any machine.
const WORKERS_MAX: usize = 1024;

/// Runs `f` as a coroutine on this thread and returns its value.
///
/// When `f` returns or panics, the remaining coroutines are cancelled: each unwinds at its wait,
/// its destructors run, and `run` returns when the last one has ended. `f` may borrow.
///
/// A coroutine that has not begun by then never begins: its closure is dropped. This is easily a
/// mistake, such as a `spawn` that is the last thing in `f`, so a debug build reports the first
/// such coroutine of a process on the standard error. Join what must run, or use [`run_all`].
///
/// # Panics
///
/// When `f` panics, with its panic. In a deadlock, with a report of what each coroutine waits for:
/// every remaining coroutine waits for another of them, such as two that join each other. When
/// another runtime already runs on this thread. When the system refuses what a runtime needs.
///
/// ```
/// let words = vec!["plain", "song"];
/// let joined = plainsong::run(|| words.concat());
/// assert_eq!(joined, "plainsong");
/// ```
#[track_caller]
pub fn run<F: Body<T>, T>(f: F) -> T {
    Runtime::default().run(f)
}

/// Like [`run`], but waits for all other coroutines to end by themselves, including those that
/// [`time::after`](crate::time::after) has yet to start.
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
pub fn run_all<F: Body<T>, T>(f: F) -> T {
    Runtime::default().run_all(f)
}

/// The settings and the worker threads of a program of coroutines. Each worker has a scheduler of
/// its own.
///
/// With several workers, the thread that calls [`run`](Self::run) is the first one, and `run`
/// starts and ends the others. A coroutine stays on the worker that has started it:
/// [`spawn`](crate::spawn) starts it on its parent's worker, and
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
#[derive(Debug, Default)]
pub struct Runtime {
    settings: Settings,
    injector: Arc<Injector>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.injector.close();
    }
}

impl Runtime {
    /// The settings for a new runtime.
    pub fn builder() -> Builder {
        Builder(Settings::default())
    }

    /// Runs `f` as the first coroutine, on this thread: see [`run`](crate::run).
    ///
    /// When `f` has returned, the coroutines on all workers are cancelled.
    ///
    /// # Panics
    ///
    /// When `f` panics, with its panic. In a deadlock, with a report. When a runtime already runs
    /// on this thread: start coroutines with [`spawn`](crate::spawn) instead. When the system
    /// refuses what a runtime needs: threads, and for each worker an epoll descriptor and a stack.
    #[track_caller]
    pub fn run<F: Body<T>, T>(&self, f: F) -> T {
        root::start(&self.settings, &self.injector, true, None, f)
    }

    /// Like [`run`](Self::run), but waits for all other coroutines to end by themselves: see
    /// [`run_all`].
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_all<F: Body<T>, T>(&self, f: F) -> T {
        root::start(&self.settings, &self.injector, false, None, f)
    }

    /// [`run`](Self::run), with a host for the loop of each worker.
    #[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
    #[track_caller]
    pub(crate) fn run_hosted<F: Body<T>, T>(&self, host: &root::Host<'_>, f: F) -> T {
        root::start(&self.settings, &self.injector, true, Some(host), f)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.settings.workers
    }

    /// A handle for spawning from plain threads.
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

/// Spawns into a [`Runtime`] from any thread. Made by [`Runtime::handle`].
///
/// A handle does not keep a run alive. A coroutine that is spawned between two runs, or while a run
/// ends, starts with the next one. If the runtime is dropped first, it never starts, and counts as
/// cancelled. A [`blocking`](crate::blocking) call spawns into the run that waits for it, which
/// cancels the coroutine if the run is ending.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Injector>);

impl Handle {
    /// The handle of the runtime that runs on this thread.
    ///
    /// # Panics
    ///
    /// When no runtime runs on this thread.
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
        Self::try_current()
            .expect("no plainsong runtime runs on this thread: take `Runtime::handle`")
    }

    /// The handle of the runtime that runs on this thread, if one does.
    ///
    /// ```
    /// assert!(plainsong::Handle::try_current().is_none());
    /// assert!(plainsong::run(plainsong::Handle::try_current).is_some());
    /// ```
    pub fn try_current() -> Option<Self> {
        context::try_with(|scheduler| {
            scheduler.with_worker(|worker| Some(Self(Arc::clone(&worker.injector))))
        })?
    }

    /// Starts a coroutine on the least loaded worker. On a worker of this runtime, this is
    /// [`spawn_anywhere`](crate::spawn_anywhere).
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: Body<T> + Send + 'static,
        T: Send + 'static,
    {
        match self.spawn_with(task::Builder::new(), f) {
            Ok(handle) => handle,
            Err(error) => panic!("cannot spawn a coroutine: {error}"),
        }
    }

    /// [`spawn`](Self::spawn), with the name and the stack size of `builder`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB.
    ///
    /// ```
    /// let runtime = plainsong::Runtime::default();
    /// let builder = plainsong::Builder::new().name("guest");
    /// let guest = runtime.handle().spawn_with(builder, || plainsong::current()).unwrap();
    /// assert_eq!(runtime.run(|| guest.join().unwrap()).name(), Some("guest"));
    /// ```
    #[track_caller]
    pub fn spawn_with<F, T>(&self, builder: task::Builder, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        builder.inject(&self.0, f)
    }
}

/// Settings for a [`Runtime`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder(Settings);

impl Builder {
    /// Sets the number of worker threads, including the one that calls [`Runtime::run`].
    ///
    /// The default is one. [`available_parallelism`](std::thread::available_parallelism) returns
    /// how many can run at the same time.
    pub fn workers(mut self, workers: usize) -> Self {
        self.0.workers = workers;
        self
    }

    /// Pins each worker to its own processor during a run, among the processors that the calling
    /// thread may use. If there are too few, workers share them. The default is `false`.
    ///
    /// Threads and processes that a pinned worker starts inherit its processor, except the threads
    /// for blocking calls. This has an effect only on Linux and Android.
    pub fn pin_workers(mut self, pin: bool) -> Self {
        self.0.pin = pin;
        self
    }

    /// Sets the size in bytes of the stack of each coroutine that does not ask for another size
    /// with [`Builder::stack_size`](crate::Builder::stack_size). It is rounded up to a power of
    /// two.
    ///
    /// The default is 256 KiB. A stack uses memory only as far as it is touched, which is one page
    /// for most coroutines.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.0.stack_size = bytes;
        self
    }

    /// Says that no plain thread, and no coroutine of another runtime, will unpark a coroutine,
    /// send to a channel, release a lock, cancel a token and the like. Then such waits count as
    /// waits for other coroutines of this runtime, and can be part of a deadlock. The threads of a
    /// [`Pool::threads`](crate::pool::Pool::threads) are plain threads too, and so is a call of
    /// [`offload`](crate::offload) whose caller has left it. A wait for the kernel, the clock, a
    /// signal or a future is never part of a deadlock. Nor is a wait for the end of a coroutine of
    /// another runtime, or of one that a [`Handle`] has spawned from outside of the run.
    ///
    /// The default is `false`: something else may end such a wait, so it is never reported as a
    /// deadlock.
    ///
    /// ```should_panic
    /// let runtime = plainsong::Runtime::builder().strict_deadlock(true).build().unwrap();
    /// runtime.run(plainsong::thread::park); // panics: no coroutine is left to unpark it
    /// ```
    pub fn strict_deadlock(mut self, strict: bool) -> Self {
        self.0.strict = strict;
        self
    }

    /// Adds a function that is called with the id of a coroutine of this runtime when it begins a
    /// turn: when it starts, and each time it goes on after a wait. Together with
    /// [`on_suspend`](Self::on_suspend) and [`on_end`](Self::on_end), it lets a library that keeps
    /// a context in thread-locals have one for each coroutine: take the context away when the
    /// coroutine suspends, and put it back when it resumes. The page `docs/thread-locals.md` of the
    /// repository has an example.
    ///
    /// Hooks for resuming are called in the order in which they were added, and the others in the
    /// reverse order.
    ///
    /// A hook runs on the worker's thread, on the stack of the coroutine, and before anything else
    /// of its turn. There [`current`](crate::current) is the thread, not the coroutine, and
    /// [`coroutine_local!`](crate::coroutine_local) has no values. A hook may read and set
    /// thread-locals, spawn, unpark, and send where there is room. It must not wait: a wait panics.
    /// A panic of a hook is reported by the panic hook and goes no further: the switch is made, and
    /// the other hooks are called. A coroutine that is given up never ends, so its context may
    /// stay set aside.
    ///
    /// A runtime without hooks pays nothing for them. With hooks, each switch costs their calls.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let turns = Arc::new(AtomicUsize::new(0));
    /// let counted = Arc::clone(&turns);
    /// let hook = move |_| _ = counted.fetch_add(1, Relaxed);
    /// plainsong::Runtime::builder().on_resume(hook).build()?.run(plainsong::yield_now);
    /// assert_eq!(turns.load(Relaxed), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_resume(self, hook: impl Fn(Id) + Send + Sync + 'static) -> Self {
        self.hook(Moment::Resume, hook)
    }

    /// Adds a function that is called when a coroutine suspends: it waits or yields, and another
    /// one may run. See [`on_resume`](Self::on_resume).
    pub fn on_suspend(self, hook: impl Fn(Id) + Send + Sync + 'static) -> Self {
        self.hook(Moment::Suspend, hook)
    }

    /// Adds a function that is called when a coroutine has ended. See
    /// [`on_resume`](Self::on_resume).
    pub fn on_end(self, hook: impl Fn(Id) + Send + Sync + 'static) -> Self {
        self.hook(Moment::End, hook)
    }

    fn hook(mut self, moment: Moment, hook: impl Fn(Id) + Send + Sync + 'static) -> Self {
        let hooks = self.0.hooks.get_or_insert_default();
        Arc::make_mut(hooks).add(moment, hook);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB, and for zero or more than 1024
    /// workers.
    pub fn build(&self) -> io::Result<Runtime> {
        let stack_size = stack::check_size(self.0.stack_size)?;
        if !(1..=WORKERS_MAX).contains(&self.0.workers) {
            return Err(explained(
                io::ErrorKind::InvalidInput,
                format!("{} workers: ask for 1 to {WORKERS_MAX} of them", self.0.workers),
            ));
        }
        let settings = Settings { stack_size, ..self.0.clone() };
        Ok(Runtime { settings, injector: Arc::default() })
    }
}

//! Running a program of coroutines.

use std::cell::Cell;
use std::io;
use std::panic::{self, AssertUnwindSafe, Location};

use crate::engine::{context, root, stack};
use crate::task;

/// Runs `f` as a coroutine on this thread and returns its value.
///
/// When `f` returns or panics, the coroutines that are left are cancelled: each unwinds at its
/// wait, its destructors run, and `run` returns when the last one has ended. `f` may borrow.
///
/// # Panics
///
/// When `f` panics, with its panic. When every coroutine that is left waits for another of them, such
/// as two that join each other: with a report of what each one waits for. Inside of another
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

/// Runs `f` as [`run`] does, but waits for all other coroutines to end by themselves first, those that
/// are still to come from [`time::after`](crate::time::after) included.
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
    Runtime::default().start(f, false)
}

/// A scheduler of coroutines and its settings.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = plainsong::Runtime::builder().stack_size(128 * 1024).build()?;
/// assert_eq!(runtime.run(|| 6 * 7), 42);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Runtime {
    stack_size: usize,
    strict: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { stack_size: stack::DEFAULT_SIZE, strict: false }
    }
}

impl Runtime {
    /// Settings for a runtime.
    pub fn builder() -> Builder {
        Builder { stack_size: stack::DEFAULT_SIZE, strict: false }
    }

    /// Runs `f` as a coroutine on this thread: see [`run`](crate::run).
    ///
    /// # Panics
    ///
    /// When `f` panics, with its panic. When a runtime runs on this thread already: start
    /// coroutines with [`spawn`](crate::spawn) instead. When the system refuses what it needs, an epoll
    /// descriptor and a stack.
    #[track_caller]
    pub fn run<F: FnOnce() -> T, T>(&self, f: F) -> T {
        self.start(f, true)
    }

    #[track_caller]
    fn start<F: FnOnce() -> T, T>(&self, f: F, cancel_rest: bool) -> T {
        let spawned = Location::caller();
        let result = Cell::new(None);
        let outcome = context::with(|cx| {
            let body = || {
                context::with_current(|main| {
                    let Some(main) = main else { unreachable!("a coroutine is running") };
                    result.set(Some(panic::catch_unwind(AssertUnwindSafe(f))));
                    task::drop_locals(main);
                    if cancel_rest {
                        for call in cx.scheduler.close(main) {
                            // What a call holds is dropped: that may be any code.
                            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(call)));
                        }
                    }
                });
            };
            root::run(cx, self.stack_size, self.strict, spawned, Box::new(body))
        });
        if let Some(report) = context::with(|cx| cx.scheduler.take_deadlock()) {
            panic!("{report}");
        }
        match (outcome, result.into_inner()) {
            (Ok(()), Some(Ok(value))) => value,
            (Ok(()), Some(Err(payload))) => panic::resume_unwind(payload),
            (Ok(()), None) => unreachable!("the main coroutine has ended"),
            (Err(error), _) => panic!("cannot run coroutines on this thread: {error}"),
        }
    }
}

/// Settings for a [`Runtime`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    stack_size: usize,
    strict: bool,
}

impl Builder {
    /// Sets the size in bytes of the stack of each coroutine that does not ask for another size with
    /// [`Builder::stack_size`](crate::Builder::stack_size). It is rounded up to a power of two.
    ///
    /// The default is 256 KiB. Memory is used only as far as it is touched, a page for most.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes;
        self
    }

    /// Says that there is no outside: no plain thread will unpark a coroutine or cancel a token. Then
    /// such waits count as waits for other coroutines when a deadlock is looked for.
    ///
    /// The default is `false`: a coroutine that is parked may be waiting for a plain thread, so
    /// it is never taken for deadlocked.
    ///
    /// ```should_panic
    /// let runtime = plainsong::Runtime::builder().strict_deadlock(true).build().unwrap();
    /// runtime.run(plainsong::thread::park); // panics: nobody is left to unpark it
    /// ```
    pub fn strict_deadlock(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB.
    pub fn build(&self) -> io::Result<Runtime> {
        Ok(Runtime { stack_size: stack::check_size(self.stack_size)?, strict: self.strict })
    }
}

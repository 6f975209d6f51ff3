//! Coroutines under the names of [`std::thread`], so that porting a threaded program is changing
//! its `use` lines.
//!
//! What differs: a spawned closure need not be `Send`, as it never leaves this thread, and
//! [`spawn`] works only inside of a runtime. A panic of a scoped child is always the scope's, so what
//! [`ScopedJoinHandle::join`] gives is a [`JoinError`](crate::JoinError). On a plain thread, [`sleep`], [`park`], [`current`]
//! and the rest are std's own.
//!
//! ```
//! use plainsong::thread;
//!
//! plainsong::run(|| {
//!     let threads: Vec<_> = (0..3).map(|n| thread::spawn(move || n * 2)).collect();
//!     let sum: i32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
//!     assert_eq!(sum, 6);
//! });
//! ```

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::address::Address;
use crate::engine::blocking;
use crate::engine::context;
use crate::engine::task::{Flag, Id, Wait};
use crate::task;

pub use crate::task::{Scope, ScopedJoinHandle, scope, yield_now};
pub use crate::time::sleep;
pub use std::thread::{Result, available_parallelism};

/// A coroutine or a plain thread: who it is, and a way to wake it from [`park`].
#[derive(Clone)]
pub struct Thread(Kind);

#[derive(Clone)]
enum Kind {
    Coroutine { address: Address, name: Option<Arc<str>> },
    Plain(std::thread::Thread),
}

/// Identifies a coroutine or a plain thread of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(Which);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Which {
    Coroutine(Id),
    Plain(std::thread::ThreadId),
}

impl Thread {
    #[inline]
    pub(crate) fn coroutine(address: Address, name: Option<Arc<str>>) -> Self {
        Self(Kind::Coroutine { address, name })
    }

    /// Identifies it.
    pub fn id(&self) -> ThreadId {
        match &self.0 {
            Kind::Coroutine { address, .. } => ThreadId(Which::Coroutine(address.id)),
            Kind::Plain(thread) => ThreadId(Which::Plain(thread.id())),
        }
    }

    /// Its name, if it has one. The first coroutine of a runtime is called `main`.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Coroutine { name, .. } => name.as_deref(),
            Kind::Plain(thread) => thread.name(),
        }
    }

    /// Ends its [`park`], or lets its next one return at once. Works from any thread.
    pub fn unpark(&self) {
        match &self.0 {
            Kind::Plain(thread) => thread.unpark(),
            Kind::Coroutine { address, .. } => address.unpark(),
        }
    }

    /// Where the coroutine is, if it is one.
    pub(crate) fn address(&self) -> Option<&Address> {
        match &self.0 {
            Kind::Coroutine { address, .. } => Some(address),
            Kind::Plain(_) => None,
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The coroutine that calls this, or else the thread.
pub fn current() -> Thread {
    context::with_current(|task| match task {
        None => Thread(Kind::Plain(std::thread::current())),
        Some(task) => context::with(|cx| {
            let address = Address::known(cx.door(), task.slot.get(), task.id);
            Thread::coroutine(address, task.name().cloned())
        }),
    })
}

/// Whether the coroutine that calls this unwinds, from a panic or because it is cancelled; or else whether
/// the thread does.
///
/// std's speaks for the thread: in a coroutine it is true while any other is suspended in the middle of its
/// unwinding. At such a time, a panic of the one that calls this is not recognised.
pub fn panicking() -> bool {
    if context::in_coroutine() { context::is_unwinding() } else { std::thread::panicking() }
}

/// Waits until somebody calls [`Thread::unpark`], or returns at once if they have already. May
/// also return for no reason, as std's.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
///
/// ```
/// use plainsong::thread;
///
/// plainsong::run(|| {
///     let sleeper = thread::spawn(|| thread::park());
///     sleeper.thread().unpark();
///     sleeper.join().unwrap();
/// });
/// ```
pub fn park() {
    park_until(None);
}

/// [`park`], for `timeout` at most.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
pub fn park_timeout(timeout: Duration) {
    park_until(Some(timeout));
}

fn park_until(timeout: Option<Duration>) {
    context::with_current(|task| {
        let Some(task) = task else {
            let wait = || timeout.map_or_else(std::thread::park, std::thread::park_timeout);
            return blocking::waiting(wait);
        };
        if task.flags.has(Flag::ParkToken) {
            context::spend();
        } else {
            let deadline = timeout.and_then(context::deadline);
            context::block(context::waiter(), Wait::Park, deadline);
        }
        task.flags.set(Flag::ParkToken, false);
    });
}

/// Starts a coroutine: [`plainsong::spawn`](crate::spawn), under std's name.
///
/// # Panics
///
/// Outside of a runtime, and when no stack can be made.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    JoinHandle(task::spawn(f))
}

/// [`plainsong::Builder`](crate::Builder), under std's name.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder(task::Builder);

impl Builder {
    /// A builder with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the coroutine.
    pub fn name(self, name: String) -> Self {
        Self(self.0.name(name))
    }

    /// Sets the size of the coroutine's stack in bytes.
    pub fn stack_size(self, size: usize) -> Self {
        Self(self.0.stack_size(size))
    }

    /// Starts the coroutine.
    ///
    /// # Errors
    ///
    /// Those of [`plainsong::Builder::spawn`](crate::Builder::spawn).
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.0.spawn(f).map(JoinHandle)
    }

    /// Starts the coroutine in a [`scope`].
    ///
    /// # Errors
    ///
    /// Those of [`plainsong::Builder::spawn_scoped`](crate::Builder::spawn_scoped).
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.0.spawn_scoped(scope, f)
    }
}

/// [`plainsong::JoinHandle`](crate::JoinHandle), in std's shape.
pub struct JoinHandle<T>(task::JoinHandle<T>);

impl<T> JoinHandle<T> {
    /// Waits for the coroutine to end.
    ///
    /// # Errors
    ///
    /// What it panicked with; a [`JoinError`](crate::JoinError) when it was cancelled.
    ///
    /// # Cancellation
    ///
    /// A caller that is cancelled while it waits detaches the coroutine.
    pub fn join(self) -> Result<T> {
        self.0.join().map_err(|error| {
            if error.is_panic() {
                error.into_panic()
            } else {
                Box::new(error) as Box<dyn Any + Send>
            }
        })
    }

    /// The coroutine.
    pub fn thread(&self) -> &Thread {
        self.0.thread()
    }

    /// Whether the coroutine has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

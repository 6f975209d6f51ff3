//! Coroutines under the names of [`std::thread`]. To port a threaded program, change its `use`
//! lines.
//!
//! The differences: a spawned closure need not be `Send`, because it never leaves this thread.
//! [`spawn`] works only in a runtime. The scope always resumes the panic of a scoped child, so the
//! error of [`ScopedJoinHandle::join`] is a [`JoinError`](crate::JoinError). On a plain thread,
//! [`sleep`], [`park`], [`current`] and the rest behave like std's.
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
use std::time::Duration;

use crate::task::{self, Body};

#[doc(hidden)]
pub use crate::task::thread::{__are_waits_refused, __resume_unwind};
#[doc(inline)]
pub use crate::task::thread::{Thread, ThreadId, current, panicking, park, park_timeout};
#[doc(inline)]
pub use crate::task::{Scope, ScopedJoinHandle, scope, yield_now};
#[doc(inline)]
pub use crate::time::sleep;
pub use std::thread::{AccessError, LocalKey, Result, available_parallelism};

/// Starts a coroutine: [`plainsong::spawn`](crate::spawn), under std's name.
///
/// # Panics
///
/// Outside of a runtime, and when the system has no room for a stack.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: Body<T> + 'static,
    T: 'static,
{
    JoinHandle(task::spawn(f))
}

/// [`sleep`] for a number of milliseconds.
///
/// # Cancellation
///
/// As [`sleep`].
#[deprecated = "use `sleep`"]
pub fn sleep_ms(ms: u32) {
    sleep(Duration::from_millis(ms.into()));
}

/// [`park_timeout`] for a number of milliseconds.
///
/// # Cancellation
///
/// As [`park_timeout`].
#[deprecated = "use `park_timeout`"]
pub fn park_timeout_ms(ms: u32) {
    park_timeout(Duration::from_millis(ms.into()));
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
        F: Body<T> + 'static,
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
        F: Body<T> + 'scope,
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
    /// The payload of the coroutine's panic, or a [`JoinError`](crate::JoinError) if it was
    /// cancelled.
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

    /// The handle of the coroutine.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.0.thread()
    }

    /// Whether the coroutine has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> From<task::JoinHandle<T>> for JoinHandle<T> {
    fn from(handle: task::JoinHandle<T>) -> Self {
        Self(handle)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! [`std::thread`](mod@::std::thread): a thread is a coroutine.
//!
//! A thread that a coroutine starts is a coroutine of the same runtime, on any of its workers. A
//! thread that a plain thread starts, such as the one that runs `main`, is a coroutine of a runtime
//! in the background, which has a worker for each processor and lives as long as the process.

mod scope;

use ::std::env;
use ::std::io;
use ::std::os::unix::thread::RawPthread;
use ::std::sync::mpsc;
use ::std::thread as std_thread;
use ::std::time::Duration;

use ::plainsong::sync::OnceLock;
use ::plainsong::thread::__are_waits_refused;
use ::plainsong::{Handle, Runtime, no_unwind};

use crate::must_return::must_return;

pub use self::scope::{Scope, ScopedJoinHandle, scope};
pub use ::plainsong::thread::{JoinHandle, Thread, ThreadId, current, panicking};
pub use ::std::thread::*;

/// The size of a stack where none is asked for, as in std.
const STACK_SIZE: usize = 2 << 20;
/// The smallest stack that there is. std rounds a smaller size up, too.
const STACK_SIZE_MIN: usize = 16 << 10;
const NO_THREAD: &str = "a coroutine has no thread of its own, which a `pthread_t` would name";

/// Starts a thread: [`std::thread::spawn`].
///
/// # Panics
///
/// When the thread cannot be started; [`Builder::spawn`] returns that as an error.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("failed to spawn thread: {error}"),
    }
}

// Unsafe code puts its wait queues on the stacks of the waiters, and relies on these to return: the
// cells of once_cell and the channels of crossbeam do. So where waits are forbidden, these do not
// panic either. A call that need not wait returns at once. The others end the process:
//
// - `park` may return for no reason in std. But its callers call it again, and would spin for ever.
// - The callers of `park_timeout` would spin until their time is over. That stops all coroutines of
//   the thread, which is what forbids the wait.

/// Waits until [`Thread::unpark`] is called: [`std::thread::park`].
///
/// # Cancellation
///
/// Never unwinds: see [`no_unwind`]. If it has to wait where waits are forbidden, such as in
/// [`no_wait`](::plainsong::no_wait), the process ends.
pub fn park() {
    must_return("thread::park", || no_unwind(::plainsong::thread::park));
}

/// [`park`], for `timeout` at most.
///
/// # Cancellation
///
/// As [`park`]. Where waits are forbidden, a `timeout` of zero returns at once.
pub fn park_timeout(timeout: Duration) {
    if timeout.is_zero() && __are_waits_refused() {
        return;
    }
    must_return("thread::park_timeout", || {
        no_unwind(|| ::plainsong::thread::park_timeout(timeout));
    });
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

/// Lets other threads run: [`std::thread::yield_now`]. Where waits are forbidden, such as in
/// [`no_wait`](::plainsong::no_wait), these are those of the system only, and no coroutines.
///
/// # Cancellation
///
/// Never unwinds: see [`no_unwind`].
pub fn yield_now() {
    // Code that never waits may spin a few turns, until another thread has done something:
    // `try_recv` of crossbeam-channel does.
    if __are_waits_refused() {
        return std_thread::yield_now();
    }
    must_return("thread::yield_now", || no_unwind(::plainsong::thread::yield_now));
}

/// Waits for `dur`: [`std::thread::sleep`].
///
/// # Cancellation
///
/// As [`park`]. Where waits are forbidden, a `dur` of zero returns at once.
pub fn sleep(dur: Duration) {
    if dur.is_zero() && __are_waits_refused() {
        return;
    }
    must_return("thread::sleep", || no_unwind(|| ::plainsong::thread::sleep(dur)));
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

/// The settings of a thread: [`std::thread::Builder`].
#[derive(Debug)]
#[must_use = "must eventually spawn the thread"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A builder with nothing set.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { name: None, stack_size: None }
    }

    /// Names the thread.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets the size of the thread's stack in bytes. The default is that of the environment
    /// variable `RUST_MIN_STACK`, or else 2 MiB. The stack uses memory only as far as it is
    /// touched.
    pub fn stack_size(mut self, size: usize) -> Self {
        self.stack_size = Some(size);
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack of more than 1 GiB. When the runtime in the background, which the
    /// first call on a plain thread starts, cannot be started.
    ///
    /// # Panics
    ///
    /// When the name contains a null byte.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        runtime()?.spawn_with(self.settings(), f).map(JoinHandle::from)
    }

    /// Starts the thread in a [`scope`].
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn). When the scope was opened where waits are forbidden, such as in
    /// [`no_wait`](::plainsong::no_wait).
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        scope.spawn_with(self, f)
    }

    fn settings(self) -> ::plainsong::Builder {
        let builder = ::plainsong::Builder::new();
        let size = self.stack_size.unwrap_or_else(default_stack_size);
        let builder = builder.stack_size(size.max(STACK_SIZE_MIN));
        match self.name {
            Some(name) => {
                assert!(!name.contains('\0'), "thread name may not contain interior null bytes");
                builder.name(name)
            }
            None => builder,
        }
    }
}

/// [`std::os::unix::thread::JoinHandleExt`](trait@::std::os::unix::thread::JoinHandleExt), so that
/// crates compile that pass its methods on, such as crossbeam-utils.
pub trait JoinHandleExt {
    /// Panics.
    ///
    /// # Panics
    ///
    /// Always.
    #[deprecated = "a coroutine has no thread of its own, so this panics"]
    fn as_pthread_t(&self) -> RawPthread;

    /// Panics.
    ///
    /// # Panics
    ///
    /// Always.
    #[deprecated = "a coroutine has no thread of its own, so this panics"]
    fn into_pthread_t(self) -> RawPthread;
}

impl<T> JoinHandleExt for JoinHandle<T> {
    fn as_pthread_t(&self) -> RawPthread {
        panic!("{NO_THREAD}")
    }

    fn into_pthread_t(self) -> RawPthread {
        panic!("{NO_THREAD}")
    }
}

fn default_stack_size() -> usize {
    static SIZE: ::std::sync::OnceLock<usize> = ::std::sync::OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = env::var("RUST_MIN_STACK").ok().and_then(|size| size.parse().ok());
        size.unwrap_or(STACK_SIZE)
    })
}

/// Where a new thread is started: the runtime of this thread, or else the one in the background.
fn runtime() -> io::Result<Handle> {
    static BACKGROUND: OnceLock<Handle> = OnceLock::new();
    match Handle::try_current() {
        Some(handle) => Ok(handle),
        None => BACKGROUND.get_or_try_init(start_background).cloned(),
    }
}

fn start_background() -> io::Result<Handle> {
    let workers = available_parallelism().map_or(1, usize::from);
    let runtime = Runtime::builder().workers(workers).build()?;
    let handle = runtime.handle();
    let (begun, has_begun) = mpsc::channel();
    let wait = move || -> () {
        // `start_background` waits for it.
        let _ = begun.send(());
        loop {
            park();
        }
    };
    let builder = std_thread::Builder::new().name("plainsong".to_owned());
    let thread = builder.spawn(move || runtime.run(wait))?;
    if has_begun.recv().is_ok() {
        return Ok(handle);
    }
    // The run has panicked before it began, with the refusal of the system.
    let reason = thread.join().err().and_then(|payload| payload.downcast::<String>().ok());
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Err(io::Error::other(format!("the runtime in the background has not started{reason}")))
}

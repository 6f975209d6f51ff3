//! tokio and plainsong on the same thread.
//!
//! [`run`] is [`plainsong::run`] on a thread that also runs tokio. Any coroutine calls
//! [`block_on`] with a future that needs tokio, such as a request of `reqwest` or a query of
//! `sqlx`. It parks only itself. Coroutines spawn tokio's tasks, and tasks spawn and wake
//! coroutines, without a lock and without another thread.
//!
//! ```
//! let text = plainsong_tokio::run(|| {
//!     let (sender, receiver) = tokio::sync::oneshot::channel();
//!     // A task of tokio, on this thread, that uses tokio's clock.
//!     tokio::task::spawn_local(async move {
//!         tokio::time::sleep(std::time::Duration::from_millis(1)).await;
//!         sender.send("from tokio").unwrap();
//!     });
//!     plainsong_tokio::block_on(receiver).unwrap()
//! })
//! .unwrap();
//! assert_eq!(text, "from tokio");
//! ```
//!
//! # Rules
//!
//! - **A future must not park.** A call that parks its coroutine, such as a read from a socket of
//!   plainsong or another `block_on`, panics inside of a future's poll: it would stop the other
//!   branches of a `join!`, and tokio's task-locals would leak into other coroutines. Use the
//!   adapters of `plainsong-compat` there.
//! - **A task must not park either.** In a task of tokio on this thread, a wait for a coroutine, a
//!   socket or a time would stop the thread, so it panics: await a future, such as the coroutine's
//!   handle.
//! - **No `enter` guard across a wait.** Every coroutine of the thread is inside of the runtime
//!   already. A guard of another runtime would be seen by all coroutines.
//! - **tokio's own rules hold.** `Runtime::block_on`, `blocking_recv` and `block_in_place` panic on
//!   this thread. The panic can be caught, and ends only its coroutine.
//! - **Fairness.** Coroutines run in slices of about 200 µs, then tokio's tasks have their turn.
//!   tokio's budget of operations does not bound a future of `block_on`: each poll counts against
//!   the budget of the coroutine instead.

use std::future::{Future, IntoFuture};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use plainsong::host::{Guest, Next};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle, LocalOptions, LocalRuntime};
use tokio::time::Sleep;

/// How long coroutines run before tokio's tasks have their turn.
const SLICE: Duration = Duration::from_micros(200);
/// How many of tokio's tasks run, while they are always ready, before coroutines have their turn.
const TASKS: u32 = 8;

/// Runs `f` as a coroutine on this thread, which also runs tokio: see [`plainsong::run`].
///
/// When `f` has returned, the remaining coroutines are cancelled. They unwind while tokio still
/// runs, so their destructors may use it. After that the remaining tasks of tokio are dropped.
///
/// # Errors
///
/// When a runtime of tokio already runs on this thread, and when the system refuses what one needs.
///
/// # Panics
///
/// As [`plainsong::run`].
#[track_caller]
pub fn run<F: FnOnce() -> T, T>(f: F) -> io::Result<T> {
    run_on(&plainsong::Runtime::default(), f)
}

/// [`run`] with the settings of `runtime`. Each worker's thread also runs tokio, with a runtime of
/// its own.
///
/// # Errors
///
/// When a runtime of tokio already runs on this thread, and when the system refuses what one needs.
///
/// # Panics
///
/// As [`run`]. The process ends when another worker's thread cannot run tokio.
#[track_caller]
pub fn run_on<F: FnOnce() -> T, T>(runtime: &plainsong::Runtime, f: F) -> io::Result<T> {
    if Handle::try_current().is_ok() {
        return Err(io::Error::other(
            "a runtime of tokio already runs on this thread: call `plainsong_tokio::run` on a \
             thread of its own, outside of `#[tokio::main]`",
        ));
    }
    // Fails here, and not in the middle of a run, where the system refuses. Beside tokio, the loop
    // of coroutines takes two descriptors, and the duplicate of one takes a third.
    drop((local_runtime()?, UnixStream::pair()?, UnixStream::pair()?));
    Ok(plainsong::host::run(runtime, host, f))
}

/// Runs a future and returns its output: [`plainsong::block_on`], for futures that need tokio.
///
/// # Panics
///
/// When the future parks the coroutine in its poll. When it needs tokio and is called outside of
/// [`run`].
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while the future is pending. The future is dropped.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    plainsong::block_on(Unparking { future: future.into_future() })
}

pin_project! {
    /// A future that must not park in its poll.
    struct Unparking<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Unparking<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        plainsong::no_wait(|| self.project().future.poll(cx))
    }
}

fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .event_interval(TASKS)
        .build_local(LocalOptions::default())
}

/// Runs tokio on a worker's thread until the worker's loop is over.
fn host(mut guest: Guest<'_>) {
    // tokio's clock, which its tests may stop.
    guest.set_clock(|| tokio::time::Instant::now().into_std());
    let runtime = local_runtime().expect("tokio cannot run on the thread of a worker");
    // tokio's budget is for one task, and the coroutines are many.
    runtime.block_on(tokio::task::unconstrained(async {
        let events = Events::new(&guest).expect("tokio cannot watch the coroutines' descriptors");
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Coroutines { guest, events, timer }.await;
    }));
}

/// The loop of a worker, as a future.
struct Coroutines<'a> {
    guest: Guest<'a>,
    events: Events,
    timer: Pin<Box<Sleep>>,
}

impl Future for Coroutines<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match this.guest.run_for(SLICE, cx.waker()) {
                Next::Over => return Poll::Ready(()),
                Next::Later => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::Wait(until) => {
                    let events = this.events.poll(&mut this.guest, cx);
                    if !events && !until.is_some_and(|until| this.is_due(until, cx)) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Coroutines<'_> {
    /// Whether it is `until`. If not, the task of `cx` is woken then.
    fn is_due(&mut self, until: Instant, cx: &mut Context<'_>) -> bool {
        let until = tokio::time::Instant::from_std(until);
        if self.timer.deadline() != until {
            self.timer.as_mut().reset(until);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

/// The descriptor of a guest's events, watched by tokio.
struct Events(AsyncFd<OwnedFd>);

impl Events {
    #[allow(unsafe_code)]
    fn new(guest: &Guest<'_>) -> io::Result<Self> {
        // A duplicate, which only this closes, whatever the order of the drops.
        let fd = guest.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is open, and owned by what is registered. Nothing closes or
        // replaces it before.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Takes a batch of events. Returns `false` if there is none: then the task of `cx` is woken
    /// when there is.
    fn poll(&self, guest: &mut Guest<'_>, cx: &mut Context<'_>) -> bool {
        match self.0.poll_read_ready(cx) {
            Poll::Ready(Ok(mut ready)) => {
                // The readiness is an edge. To clear it while events are left would lose them.
                if !guest.poll_io() {
                    ready.clear_ready();
                }
                true
            }
            // tokio is shutting down: its drop polls nothing any more.
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }
}

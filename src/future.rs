//! The bridge to `async`: coroutines wait for futures, and futures for coroutines.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::engine::mutex::{Mutex, MutexGuard};
use crate::engine::task::Wait;
use crate::engine::waiter::{FutureWaiter, Parker};
use crate::engine::{current, park};
use crate::stack;
use crate::task::{JoinError, JoinHandle};

/// A future of this many bytes is polled on a stack that the coroutines of a thread take in turns.
/// The memory that its deep calls write is in the processor's cache then, and the coroutine's own
/// stack stays small: a poll of a hyper connection writes five kilobytes. The change of the stack
/// takes longer than a poll of a smaller future.
const LARGE: usize = 512;

const WAIT: Wait = Wait::new(&Wait::outside("a future"));

/// Runs a future and returns its output. While the future is pending, a coroutine parks, so the
/// others run on. A plain thread blocks.
///
/// The future is polled only here, so it need not be `Send`. A future that needs another runtime,
/// such as tokio's sockets and timers, must find it: see [`block_on_with`], or let that runtime run
/// the future and wait here for its handle.
///
/// In a coroutine, a future of 512 bytes or more is polled on a stack that the coroutines of the
/// thread take in turns. It is as large as the coroutine's own, which so stays small in memory.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while the future is pending. The future is dropped.
///
/// ```
/// plainsong::run(|| {
///     let worker = plainsong::spawn(|| 6 * 7);
///     let answer = plainsong::block_on(async { worker.await.unwrap() });
///     assert_eq!(answer, 42);
/// });
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    block_on_with(|| (), future)
}

/// [`block_on`], which calls `enter` before each poll of the future and drops its value after it:
/// the guard of a context that the future must find in a thread-local.
///
/// A guard that is held around the whole [`block_on`] stays there while the coroutine waits. The
/// other coroutines of the thread are in its context then, and if they have guards of their own,
/// the guards are not dropped in the reverse order of their creation. tokio panics at that.
///
/// The future should make what needs the context when it is polled first, as an `async` block does.
/// It is dropped without the context. A future that waits in a poll with the calls of this library
/// holds the context while it does.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while the future is pending. The future is dropped.
///
/// ```
/// use std::cell::Cell;
/// use plainsong::block_on_with;
///
/// thread_local! {
///     static INSIDE: Cell<bool> = const { Cell::new(false) };
/// }
///
/// struct Guard;
///
/// impl Drop for Guard {
///     fn drop(&mut self) {
///         INSIDE.set(false);
///     }
/// }
///
/// let enter = || {
///     INSIDE.set(true);
///     Guard
/// };
/// plainsong::run(|| {
///     let handle = plainsong::spawn(|| INSIDE.get());
///     // Waits for the coroutine, which is not inside.
///     assert!(!block_on_with(enter, handle).unwrap());
///     assert!(block_on_with(enter, async { INSIDE.get() }));
/// });
/// ```
///
/// With tokio: `block_on_with(|| handle.enter(), async { … })`.
pub fn block_on_with<G, F: IntoFuture>(enter: impl FnMut() -> G, future: F) -> F::Output {
    let spare = SPARE.try_with(Cell::take).ok().flatten();
    let (signal, waker) = spare.unwrap_or_else(|| {
        let signal = Arc::new(Signal::default());
        (signal.clone(), signal.into())
    });
    let output = poll_until_ready(enter, future.into_future(), &signal, &waker);
    // If the future has given the waker away, it may still be called. An unwind drops it too.
    if Arc::strong_count(&signal) == 2 {
        let _ = SPARE.try_with(|spare| spare.replace(Some((signal, waker))));
    }
    output
}

fn poll_until_ready<G, F: Future>(
    mut enter: impl FnMut() -> G,
    future: F,
    signal: &Signal,
    waker: &Waker,
) -> F::Output {
    let lent = if size_of::<F>() >= LARGE { current::own_stack_size() } else { None };
    let mut future = pin!(future);
    let mut cx = Context::from_waker(waker);
    loop {
        park::spend();
        let mut poll = || {
            let _context = enter();
            future.as_mut().poll(&mut cx)
        };
        let poll = match lent {
            Some(size) => stack::on_lent_stack(size, poll),
            None => poll(),
        };
        if let Poll::Ready(output) = poll {
            return output;
        }
        signal.wait();
    }
}

thread_local! {
    // From the last `block_on` of this thread, for its next one.
    static SPARE: Cell<Option<(Arc<Signal>, Waker)>> = const { Cell::new(None) };
}

/// The waker of [`block_on`]: ends its current wait, or else its next one.
#[derive(Default)]
struct Signal(Mutex<Called>);

#[derive(Default)]
struct Called {
    // While no wait was under way.
    woken: bool,
    waiter: Option<Parker>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Called> {
        self.0.lock()
    }

    /// Waits for a call of the waker. Returns at once if there was one since the last wait.
    fn wait(&self) {
        let mut called = self.lock();
        if !mem::take(&mut called.woken) {
            let waiter = park::waiter();
            called.waiter = Some(waiter);
            drop(called);
            park::block(waiter, WAIT, None);
        }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiter = {
            let mut called = self.lock();
            called.woken = called.waiter.is_none();
            called.waiter.take()
        };
        if let Some(waiter) = waiter {
            park::wake(waiter.into());
        }
    }
}

/// A future that waits for a coroutine to end, on any executor. Made by
/// [`JoinHandle::into_future`]. Dropping the future detaches the coroutine.
#[must_use = "a future does nothing unless it is awaited"]
pub struct JoinFuture<T> {
    // `None` when the future is done.
    handle: Option<JoinHandle<T>>,
    waiter: FutureWaiter,
    registered: bool,
}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = this.handle.as_ref().expect("a future was polled after it had ended");
        this.waiter.set_waker(cx.waker());
        if !this.registered {
            this.registered = true;
            handle.receiver.register(this.waiter.waiter());
        }
        // This check comes last: it sees an end before it, and an end after it wakes the task.
        if !handle.is_finished() {
            return Poll::Pending;
        }
        this.handle.take().map_or(Poll::Pending, |handle| Poll::Ready(handle.join()))
    }
}

impl<T> Unpin for JoinFuture<T> {}

impl<T> Drop for JoinFuture<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.as_ref().filter(|_| self.registered) {
            handle.receiver.unregister(&self.waiter.waiter());
        }
    }
}

impl<T> fmt::Debug for JoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Waits for the coroutine to end, in `async` code on any executor. Dropping the future detaches
/// the coroutine.
impl<T> IntoFuture for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { handle: Some(self), waiter: FutureWaiter::new(), registered: false }
    }
}

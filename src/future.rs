//! The bridge to `async`: a coroutine waits for a future, and a future for a coroutine.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::engine::context;
use crate::engine::remote::{TaskDoor, Waiter};
use crate::engine::task::Wait;
use crate::task::{JoinError, JoinHandle};

/// Runs a future and returns its output. In a coroutine this parks the coroutine while the future is
/// pending, so the others go on; on a plain thread it blocks the thread.
///
/// The future is polled here and nowhere else, so it need not be `Send`. One that belongs to
/// another runtime, such as tokio's sockets and timers, must find that: poll it with a runtime of its
/// kind entered, or let that run it and wait here for its handle.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while the future is pending; the future is dropped.
///
/// ```
/// plainsong::run(|| {
///     let worker = plainsong::spawn(|| 6 * 7);
///     let answer = plainsong::block_on(async { worker.await.unwrap() });
///     assert_eq!(answer, 42);
/// });
/// ```
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(signal.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        context::spend();
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        signal.wait();
    }
}

/// What a waker wakes: whoever waits here, or who will next.
#[derive(Default)]
struct Signal(Mutex<Called>);

#[derive(Default)]
struct Called {
    woken: bool,
    waiter: Option<Waiter>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Called> {
        // No user code runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is called, or has been since the last wait.
    fn wait(&self) {
        let mut called = self.lock();
        if !mem::take(&mut called.woken) {
            let waiter = context::waiter();
            called.waiter = Some(waiter);
            drop(called);
            context::block(waiter, Wait::Future, None);
            self.lock().woken = false;
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
            called.woken = true;
            called.waiter.take()
        };
        waiter.into_iter().for_each(context::wake);
    }
}

/// A coroutine's end as a future, for any executor; made by [`JoinHandle::into_future`]. Dropping it
/// detaches the coroutine.
pub struct JoinFuture<T> {
    // `None` when it is done.
    handle: Option<JoinHandle<T>>,
    door: TaskDoor,
    registered: Option<Waiter>,
}

impl<T> Future for JoinFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = this.handle.as_ref().expect("a future was polled after it had ended");
        this.door.watch(cx.waker());
        if this.registered.is_none() {
            let waiter = this.door.waiter();
            handle.receiver.register(waiter);
            this.registered = Some(waiter);
        }
        // Asked last: an end before this is seen here, and one after it wakes the task.
        if !handle.is_finished() {
            return Poll::Pending;
        }
        this.handle.take().map_or(Poll::Pending, |handle| Poll::Ready(handle.join()))
    }
}

impl<T> Unpin for JoinFuture<T> {}

impl<T> Drop for JoinFuture<T> {
    fn drop(&mut self) {
        if let (Some(handle), Some(waiter)) = (&self.handle, self.registered) {
            handle.receiver.unregister(waiter);
        }
    }
}

impl<T> fmt::Debug for JoinFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Waits for the coroutine to end, in `async` code of whatever executor. Dropping the future
/// detaches the coroutine.
impl<T> IntoFuture for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = JoinFuture<T>;

    fn into_future(self) -> JoinFuture<T> {
        JoinFuture { handle: Some(self), door: TaskDoor::acquire(), registered: None }
    }
}

//! Receivers as futures, so that `async` code of any executor can wait for what coroutines send.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::alarm::Alarm;
use super::clock;
use super::core::{Core, Pending, State, Want};
use super::ends::{Flavor, Receiver};
use super::error::{RecvError, TryRecvError};
use super::oneshot;
use crate::engine::waiter::FutureWaiter;
use crate::sync::lock::Lock;
use crate::sync::wait::Registered;

/// A receive in `async` code: made by awaiting a `&Receiver`. If it is dropped before it is done,
/// it has taken nothing.
#[must_use = "a future does nothing unless it is awaited"]
pub struct RecvFuture<'a, T> {
    receiver: &'a Receiver<T>,
    waiter: FutureWaiter,
    state: Progress<'a, T>,
}

/// A registration among a channel's receivers.
type Entry<'a, T> = Registered<&'a Lock<State<T>>, State<T>, Want<T>>;

enum Progress<'a, T> {
    New,
    Registered(Entry<'a, T>),
    /// A sender that was chosen makes its item.
    Later(Pending<'a, T>),
    Clock(clock::Registration),
    Done,
}

impl<T> Unpin for RecvFuture<'_, T> {}

impl<T> Future for RecvFuture<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.waiter.set_waker(cx.waker());
        let receiver = this.receiver;
        let core = match &receiver.flavor {
            Flavor::Items(core) => core,
            Flavor::Clock(alarm) => return this.poll_clock(alarm),
        };
        loop {
            let want = match &mut this.state {
                Progress::New => match core.take_or_register(&this.waiter) {
                    Ok(want) => want,
                    Err(entry) => {
                        this.state = Progress::Registered(entry);
                        return Poll::Pending;
                    }
                },
                Progress::Registered(entry) if !entry.is_served() => return Poll::Pending,
                Progress::Registered(entry) => match entry.deregister() {
                    // Every sender has been dropped, but an item may have been given back since.
                    Some(Want::Nothing) | None => {
                        this.state = Progress::New;
                        continue;
                    }
                    Some(want) => want,
                },
                Progress::Later(item) => match Pin::new(&mut **item).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(item)) => Want::Item(item),
                    Poll::Ready(Err(_)) => {
                        this.state = Progress::New;
                        continue;
                    }
                },
                Progress::Clock(_) | Progress::Done => {
                    panic!("a future was polled after it had ended")
                }
            };
            this.state = Progress::Done;
            match want {
                Want::Item(item) => return Poll::Ready(Ok(item)),
                Want::Nothing => return Poll::Ready(Err(RecvError)),
                Want::Later(item) => this.state = Progress::Later(core.pending(item)),
            }
        }
    }
}

impl<T> RecvFuture<'_, T> {
    fn poll_clock(&mut self, alarm: &Alarm<T>) -> Poll<Result<T, RecvError>> {
        if let Ok(item) = alarm.try_recv() {
            self.state = Progress::Done;
            return Poll::Ready(Ok(item));
        }
        let registered = match &self.state {
            Progress::Clock(registration) => Some(registration.time()),
            _ => None,
        };
        if let Some(due) = alarm.due().filter(|due| registered != Some(*due)) {
            self.state = Progress::Clock(clock::Registration::new(due, self.waiter.waiter()));
        }
        Poll::Pending
    }
}

impl<T> Core<T> {
    /// Takes an item, or else registers the waiter of a future.
    fn take_or_register(&self, waiter: &FutureWaiter) -> Result<Want<T>, Entry<'_, T>> {
        let mut state = self.state.lock();
        match state.take() {
            Some((want, waiter)) => {
                Self::release_and_wake(state, waiter);
                Ok(want)
            }
            None if state.senders_dropped => Ok(Want::Nothing),
            None => {
                let watchers = state.take_watchers();
                let (lock, waiter) = (&self.state, waiter.waiter());
                let want = Want::Nothing;
                let entry = Registered::future(lock, state, |s| &mut s.receivers, want, waiter);
                drop(watchers);
                Err(entry)
            }
        }
    }
}

impl<T> Drop for RecvFuture<'_, T> {
    fn drop(&mut self) {
        let Flavor::Items(core) = &self.receiver.flavor else { return };
        let Progress::Registered(entry) = &mut self.state else { return };
        match entry.deregister() {
            Some(Want::Item(item)) => core.give_back(item),
            Some(Want::Later(item)) => drop(core.pending(item)),
            Some(Want::Nothing) | None => {}
        }
    }
}

/// Waits for an item in `async` code of any executor: `(&receiver).await`. A future that is dropped
/// before it is done has taken nothing. Receivers of the clock are served by one thread of the
/// process, so an executor's own timers are faster.
impl<'a, T> IntoFuture for &'a Receiver<T> {
    type Output = Result<T, RecvError>;
    type IntoFuture = RecvFuture<'a, T>;

    fn into_future(self) -> RecvFuture<'a, T> {
        RecvFuture { receiver: self, waiter: FutureWaiter::new(), state: Progress::New }
    }
}

impl<T> fmt::Debug for RecvFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvFuture").finish_non_exhaustive()
    }
}

impl<T> Unpin for oneshot::Receiver<T> {}

/// Waits for the item in `async` code of any executor.
impl<T> Future for oneshot::Receiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_recv(cx.waker()) {
            Ok(item) => Poll::Ready(Ok(item)),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(Err(RecvError)),
        }
    }
}

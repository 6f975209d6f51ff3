//! Receivers as futures, so that `async` code of any executor can wait for what coroutines send.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use super::core::{Core, Owed, State, Want};
use super::error::{RecvError, TryRecvError};
use super::{Receiver, Source, oneshot};
use crate::engine::park;
use crate::engine::waiter::FutureWaiter;
use crate::sync::lock::Lock;
use crate::sync::wait::Enlisted;

/// A receive in `async` code: made by awaiting a `&Receiver`. One that is dropped has taken nothing.
pub struct RecvFuture<'a, T> {
    receiver: &'a Receiver<T>,
    waiter: FutureWaiter,
    state: Progress<'a, T>,
}

/// A place among a channel's receivers.
type Place<'a, T> = Enlisted<&'a Lock<State<T>>, State<T>, Want<T>>;

enum Progress<'a, T> {
    New,
    Enlisted(Place<'a, T>),
    /// A sender that was chosen makes its item.
    Later(Owed<'a, T>),
    /// A thread waits for this time.
    Clock(Instant),
    Done,
}

impl<T> Unpin for RecvFuture<'_, T> {}

impl<T> Future for RecvFuture<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.waiter.set_waker(cx.waker());
        let receiver = this.receiver;
        let core = match &receiver.source {
            Source::Core(core) => core,
            Source::Alarm(alarm) => {
                return match alarm.try_recv() {
                    Ok(item) => {
                        this.state = Progress::Done;
                        Poll::Ready(Ok(item))
                    }
                    Err(_) => this.wait_for_clock(alarm.due()),
                };
            }
        };
        loop {
            let want = match &mut this.state {
                Progress::New => match core.take_or_enlist(&this.waiter) {
                    Ok(want) => want,
                    Err(place) => {
                        this.state = Progress::Enlisted(place);
                        return Poll::Pending;
                    }
                },
                Progress::Enlisted(place) if !place.is_served() => return Poll::Pending,
                Progress::Enlisted(place) => match place.leave() {
                    // Every sender has gone. An item may have been given back since.
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
                Want::Later(item) => this.state = Progress::Later(core.owed(item)),
            }
        }
    }
}

impl<T> RecvFuture<'_, T> {
    /// Has the task woken when the clock sends. No executor has our timers, so that takes a thread.
    fn wait_for_clock(&mut self, due: Option<Instant>) -> Poll<Result<T, RecvError>> {
        let waits = matches!(self.state, Progress::Clock(until) if Some(until) == due);
        if let Some(due) = due.filter(|_| !waits) {
            let waiter = self.waiter.waiter();
            thread::spawn(move || {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                park::wake(waiter);
            });
            self.state = Progress::Clock(due);
        }
        Poll::Pending
    }
}

impl<T> Core<T> {
    /// Takes an item, or else enlists the waiter of a future.
    fn take_or_enlist(&self, waiter: &FutureWaiter) -> Result<Want<T>, Place<'_, T>> {
        let mut state = self.state.lock();
        match state.take() {
            Some((want, waiter)) => {
                Self::settle(state, waiter);
                Ok(want)
            }
            None if state.senders_gone => Ok(Want::Nothing),
            None => {
                state.show();
                let waiter = waiter.waiter();
                let lock = &self.state;
                Err(Enlisted::new(lock, state, |s| &mut s.receivers, Want::Nothing, waiter, None))
            }
        }
    }
}

impl<T> Drop for RecvFuture<'_, T> {
    fn drop(&mut self) {
        if let (Progress::Enlisted(place), Source::Core(core)) =
            (&mut self.state, &self.receiver.source)
        {
            match place.leave() {
                Some(Want::Item(item)) => core.give_back(item),
                Some(Want::Later(item)) => drop(core.owed(item)),
                Some(Want::Nothing) | None => {}
            }
        }
    }
}

/// Waits for an item in `async` code of whatever executor: `(&receiver).await`. A future that is
/// dropped has taken nothing. On receivers of the clock each await takes a thread: use the executor's
/// own timers there.
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

/// Waits for the item in `async` code of whatever executor.
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

//! Coroutines that end, in a `select!`.

use crate::engine::packet::Receiver;
use crate::engine::task::EndedBy;
use crate::engine::waiter::Waiter;
use crate::sync::operation::{Choice, Operation, Registration, Ticket};
use crate::task::{JoinError, JoinHandle};

mod sealed {
    pub trait Sealed {}
}

/// The argument of a `join(…)` of [`select!`](crate::select): a [`JoinHandle`], which is then used
/// up, or a `&mut JoinHandle`, which can be joined afterwards.
#[diagnostic::on_unimplemented(
    message = "`join(…)` of `select!` waits for a coroutine, and `{Self}` is not the handle of one",
    label = "not a `JoinHandle` or `&mut JoinHandle`"
)]
pub trait Joined: sealed::Sealed {
    /// The type of the coroutine's value.
    type Item;
    /// The result of a join.
    type Output;

    /// The handle.
    fn handle(&mut self) -> &mut JoinHandle<Self::Item>;

    /// The result of the join, when the coroutine has ended.
    fn finish(self) -> Self::Output;
}

impl<T> sealed::Sealed for JoinHandle<T> {}
impl<T> sealed::Sealed for &mut JoinHandle<T> {}

impl<T> Joined for JoinHandle<T> {
    type Item = T;
    type Output = Result<T, JoinError>;

    fn handle(&mut self) -> &mut Self {
        self
    }

    fn finish(self) -> Self::Output {
        self.join()
    }
}

impl<T> Joined for &mut JoinHandle<T> {
    type Item = T;
    type Output = ();

    fn handle(&mut self) -> &mut JoinHandle<T> {
        self
    }

    fn finish(self) {}
}

/// A wait for the end of a coroutine.
struct Registered<'a, T>(&'a Receiver<T>, Waiter);

impl<T> Registration for Registered<'_, T> {
    fn deregister(self: Box<Self>, _: bool) -> Option<Ticket> {
        self.0.unregister(&self.1);
        None
    }
}

impl<T> Operation for JoinHandle<T> {
    fn choose(&self) -> Option<Ticket> {
        self.is_finished().then_some(0)
    }

    fn is_ready(&self) -> bool {
        self.is_finished()
    }

    fn ended_by(&self) -> EndedBy {
        if self.receiver.is_of_this_run() { EndedBy::Run } else { EndedBy::Outside }
    }

    fn claims(&self) -> bool {
        false
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        _: &Choice,
        _: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        // A handle has one waiter at most: the select has borrowed it mutably.
        if self.is_finished() || !self.receiver.register(waiter.clone()) {
            return None;
        }
        Some(Box::new(Registered(&self.receiver, waiter)))
    }
}

//! What `select!` asks of the things that it can wait for.

use std::sync::Arc;
use std::time::Instant;

use super::wait::Claim;
use crate::engine::waiter::Waiter;

/// One wait for several operations, of which one is chosen.
pub(crate) type Choice = Arc<Claim>;

/// Names the outcome of an operation that was chosen and has not been completed, for the thing that holds it.
pub(crate) type Ticket = u64;

/// Something that can be waited for beside others.
///
/// Either a place in a [`WaitQueue`](super::wait::WaitQueue) is served, having claimed the choice; or the waiter is
/// merely woken, and looks at everything again.
pub(crate) trait Operation {
    /// Begins the operation if it can be done at once. What comes of it is held until it
    /// is completed or released.
    fn choose(&self) -> Option<Ticket>;

    /// Whether [`choose`](Self::choose) would begin it.
    fn is_ready(&self) -> bool;

    /// Has `waiter` woken when the operation has begun, or could be; `None` when it could be now.
    fn stand<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>>;

    /// [`stand`](Self::stand), for one who only wants to know.
    fn look<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Enlistment + 'a>> {
        self.stand(waiter, choice, number)
    }

    /// When it will be ready by itself, if it will.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Whether only a coroutine of the same run can make it ready.
    fn is_internal(&self) -> bool {
        false
    }

    /// Whether something is to be taken or given when it is completed.
    fn gives(&self) -> bool {
        false
    }

    /// Gives back what is held for an operation that will not be completed.
    fn release(&self, _ticket: Ticket) {}
}

/// What is taken back when a wait is over.
pub(crate) trait Enlistment {
    /// Takes it back. Returns the outcome if this one was `served`.
    fn leave(self: Box<Self>, served: bool) -> Option<Ticket>;
}

/// There is nothing to take back; and an operation that does nothing, at once.
pub(crate) struct Nothing;

impl Operation for Nothing {
    fn choose(&self) -> Option<Ticket> {
        Some(0)
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stand<'a>(&'a self, _: Waiter, _: &Choice, _: usize) -> Option<Box<dyn Enlistment + 'a>> {
        None
    }
}

impl Enlistment for Nothing {
    fn leave(self: Box<Self>, _: bool) -> Option<Ticket> {
        None
    }
}

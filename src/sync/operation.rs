//! The interface between a `select!` and the operations that it can wait for.

use std::sync::Arc;
use std::time::Instant;

use super::wait::Claim;
use crate::engine::waiter::Waiter;

/// One wait for several operations, of which one is chosen.
pub(crate) type Choice = Arc<Claim>;

/// Names the outcome of an operation that was chosen and has not been completed yet.
pub(crate) type Ticket = u64;

/// An operation that can be waited for beside others.
///
/// A waiter registers, and then one of two things happens: either its entry in a
/// [`WaitQueue`](super::wait::WaitQueue) is served, which claims the choice for this operation; or
/// the waiter is merely woken, and tries all operations again.
pub(crate) trait Operation {
    /// Begins the operation if it can be done at once. The outcome is held until the operation is
    /// completed or released.
    fn choose(&self) -> Option<Ticket>;

    /// Whether [`choose`](Self::choose) would begin it.
    fn is_ready(&self) -> bool;

    /// Registers `waiter`, to be woken when the operation has begun or could be. `None` when it
    /// could be now.
    fn register<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>>;

    /// [`register`](Self::register), for a waiter that only wants to know and takes nothing.
    fn watch<'a>(
        &'a self,
        waiter: Waiter,
        choice: &Choice,
        number: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        self.register(waiter, choice, number)
    }

    /// Whether its registrations claim the choice. If not, it must be asked again whether it is
    /// ready.
    fn claims(&self) -> bool {
        true
    }

    /// When it will be ready by itself, if it will.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Whether only a coroutine of the same run can make it ready.
    fn is_internal(&self) -> bool {
        false
    }

    /// Whether an item is sent or received when it is completed.
    fn moves_item(&self) -> bool {
        false
    }

    /// Gives back the outcome of an operation that will not be completed.
    fn release(&self, _ticket: Ticket) {}
}

/// A waiter's registration with an operation.
pub(crate) trait Registration {
    /// Takes it back. Returns the outcome if this was the one `served`.
    fn deregister(self: Box<Self>, served: bool) -> Option<Ticket>;
}

/// A registration of which nothing needs to be taken back; and an operation that does nothing, at
/// once.
pub(crate) struct Nothing;

impl Operation for Nothing {
    fn choose(&self) -> Option<Ticket> {
        Some(0)
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn register<'a>(
        &'a self,
        _: Waiter,
        _: &Choice,
        _: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        None
    }
}

impl Registration for Nothing {
    fn deregister(self: Box<Self>, _: bool) -> Option<Ticket> {
        None
    }
}

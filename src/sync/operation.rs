//! The interface between a `select!` and the operations that it can wait for.

use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use super::wait::Claim;
use crate::engine::reactor::Interest;
use crate::engine::subject::{Alternative, Object, Subject};
use crate::engine::task::{CancelWait, EndedBy, Wait};
use crate::engine::waiter::Waiter;
use crate::task::WAIT_ANY;

const SELECT: &str = "one of several operations of a `select!`";
const WAIT: Wait = Wait::new(&Wait::for_any_thread(SELECT));
const WAIT_OUTSIDE: Wait = Wait::new(&Wait::outside(SELECT));

/// The reason of a wait for operations that these can make ready.
pub(crate) fn why(origins: impl Iterator<Item = EndedBy>) -> Wait {
    // A single operation with an origin outside is enough.
    match origins.max() {
        Some(EndedBy::Outside) => WAIT_OUTSIDE,
        Some(EndedBy::AnyThread) => WAIT,
        Some(EndedBy::Run) | None => WAIT_ANY,
    }
}

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
    /// completed or released. First it must be settled.
    fn choose(&self) -> Option<Ticket>;

    /// Waits until `deadline` for an outcome that the other side is still making. `false` if there
    /// is none: the operation has not happened, and its ticket is void.
    fn settle(&self, _ticket: Ticket, _deadline: Option<Instant>) -> bool {
        true
    }

    /// Whether [`choose`](Self::choose) would begin it.
    fn is_ready(&self) -> bool;

    /// Does the part of a registration that may panic, before any waiter is registered.
    fn prepare(&self) {}

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

    /// The origin of what can make it ready.
    fn ended_by(&self) -> EndedBy {
        EndedBy::AnyThread
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
    /// The memory of the channel, if it is one.
    fn shared(&self) -> Option<Object> {
        None
    }

    /// Takes it back. Returns the outcome if this was the one `served`.
    fn deregister(self: Box<Self>, served: bool) -> Option<Ticket>;
}

/// The place in all queues of a wait for several operations.
pub(crate) struct Place<'a> {
    pub(crate) choice: &'a Claim,
    pub(crate) registrations: &'a [(usize, Box<dyn Registration + 'a>)],
}

impl CancelWait for Place<'_> {
    fn cancel(&self) -> bool {
        self.choice.withdraw().is_none()
    }

    fn subject(&self) -> Option<Subject> {
        None
    }

    fn alternatives(&self) -> Box<[Alternative]> {
        let one = |registration: &dyn Registration| {
            let start = ptr::from_ref(registration).addr();
            let memory = start..start + size_of_val(registration);
            Alternative { shared: registration.shared(), memory }
        };
        self.registrations.iter().map(|(_, registration)| one(&**registration)).collect()
    }
}

/// A descriptor, each of whose directions is an operation that is done when it is ready.
pub(crate) trait Directions {
    /// Whether the kernel says now that an operation would not block.
    fn is_ready(&self, interest: Interest) -> bool;

    /// Has this thread's reactor know the descriptor.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    fn prepare(&self);

    /// [`Operation::register`] for a direction.
    fn register<'a>(
        &'a self,
        waiter: Waiter,
        interest: Interest,
    ) -> Option<Box<dyn Registration + 'a>>;
}

/// One direction of a descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Direction<'a> {
    pub(crate) of: &'a dyn Directions,
    pub(crate) interest: Interest,
}

impl<'a> Direction<'a> {
    pub(crate) fn subscribe(self, waiter: Waiter) -> Option<Box<dyn Registration + 'a>> {
        self.of.register(waiter, self.interest)
    }
}

impl Operation for Direction<'_> {
    fn choose(&self) -> Option<Ticket> {
        self.is_ready().then_some(0)
    }

    fn is_ready(&self) -> bool {
        self.of.is_ready(self.interest)
    }

    fn prepare(&self) {
        self.of.prepare();
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        _: &Choice,
        _: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        self.subscribe(waiter)
    }

    fn claims(&self) -> bool {
        false
    }

    fn ended_by(&self) -> EndedBy {
        EndedBy::Outside
    }
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

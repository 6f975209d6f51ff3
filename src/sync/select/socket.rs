//! Sockets and other descriptors, in a `select!`.

use std::cell::Cell;
use std::fmt;
use std::io;

use crate::engine::reactor::Interest;
use crate::engine::task::EndedBy;
use crate::engine::waiter::Waiter;
use crate::sync::operation::{Choice, Direction, Directions, Operation, Registration, Ticket};

/// The descriptor of a socket, pipe or [`Pollable`](crate::io::Pollable).
#[derive(Clone, Copy)]
pub struct Descriptor<'a>(pub(crate) &'a dyn Directions);

impl fmt::Debug for Descriptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor").finish_non_exhaustive()
    }
}

impl<'a> Descriptor<'a> {
    pub(super) fn direction(self, interest: Interest) -> Direction<'a> {
        Direction { of: self.0, interest }
    }
}

/// The argument of a `readable(…)` of [`select!`](crate::select): a socket, a listener, the reading
/// end of a pipe, or a [`Pollable`](crate::io::Pollable).
#[diagnostic::on_unimplemented(
    message = "`readable(…)` of `select!` waits for a socket or pipe of plainsong, and `{Self}` is \
               none",
    note = "any other descriptor becomes one: `plainsong::io::Pollable::new(fd)`"
)]
pub trait Readable {
    /// The descriptor. Only this library can make one, so only its types are `Readable`.
    #[doc(hidden)]
    fn read_side(&self) -> Descriptor<'_>;
}

/// The argument of a `writable(…)` of [`select!`](crate::select): a socket, the writing end of a
/// pipe, or a [`Pollable`](crate::io::Pollable).
#[diagnostic::on_unimplemented(
    message = "`writable(…)` of `select!` waits for a socket or pipe of plainsong, and `{Self}` is \
               none",
    note = "any other descriptor becomes one: `plainsong::io::Pollable::new(fd)`"
)]
pub trait Writable {
    /// The descriptor. Only this library can make one, so only its types are `Writable`.
    #[doc(hidden)]
    fn write_side(&self) -> Descriptor<'_>;
}

/// The argument of an `accept(…)` of [`select!`](crate::select): a listener.
#[diagnostic::on_unimplemented(
    message = "`accept(…)` of `select!` waits for a listener of plainsong, and `{Self}` is none",
    note = "a listener of std becomes one: `plainsong::net::TcpListener::from(listener)`"
)]
pub trait Acceptor: Readable {
    /// A connection and the address of its other side.
    type Accepted;

    /// Accepts a connection that is in the queue, or fails with `WouldBlock`.
    #[doc(hidden)]
    fn accept_queued(&self) -> io::Result<Self::Accepted>;
}

impl<T: Readable + ?Sized> Readable for &T {
    fn read_side(&self) -> Descriptor<'_> {
        (**self).read_side()
    }
}

impl<T: Writable + ?Sized> Writable for &T {
    fn write_side(&self) -> Descriptor<'_> {
        (**self).write_side()
    }
}

impl<T: Acceptor + ?Sized> Acceptor for &T {
    type Accepted = T::Accepted;

    fn accept_queued(&self) -> io::Result<T::Accepted> {
        (**self).accept_queued()
    }
}

/// An accept of a `select!`, which holds the connection from the choice to the completion.
#[doc(hidden)]
pub struct Accepting<'a, L: Acceptor + ?Sized> {
    listener: &'a L,
    accepted: Cell<Option<io::Result<L::Accepted>>>,
}

impl<'a, L: Acceptor + ?Sized> Accepting<'a, L> {
    pub fn new(listener: &'a L) -> Self {
        Self { listener, accepted: Cell::new(None) }
    }

    pub fn finish(&self) -> io::Result<L::Accepted> {
        self.accepted.take().expect("the accept was chosen")
    }

    fn direction(&self) -> Direction<'_> {
        self.listener.read_side().direction(Interest::Read)
    }
}

impl<L: Acceptor + ?Sized> fmt::Debug for Accepting<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepting").finish_non_exhaustive()
    }
}

impl<L: Acceptor + ?Sized> Operation for Accepting<'_, L> {
    /// Another acceptor may be faster, so that the listener is ready is not enough.
    fn choose(&self) -> Option<Ticket> {
        match self.listener.accept_queued() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => {
                self.accepted.set(Some(accepted));
                Some(0)
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.direction().is_ready()
    }

    fn prepare(&self) {
        self.direction().prepare();
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        _: &Choice,
        _: usize,
    ) -> Option<Box<dyn Registration + 'a>> {
        self.direction().subscribe(waiter)
    }

    fn claims(&self) -> bool {
        false
    }

    fn ended_by(&self) -> EndedBy {
        EndedBy::Outside
    }
}

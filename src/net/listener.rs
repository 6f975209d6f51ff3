//! The interface that TCP and Unix listeners share for accepting.

use std::fmt;
use std::io;
use std::iter::FusedIterator;

/// A listener for a [`Server`](super::Server): a [`TcpListener`](super::TcpListener) or a
/// [`UnixListener`](super::UnixListener).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener of plainsong",
    label = "not a `plainsong::net::TcpListener` or `UnixListener`",
    note = "a listener of std becomes one of ours: `plainsong::net::TcpListener::from(listener)`"
)]
pub trait Listener: Sized + sealed::Sealed + 'static {
    /// The type of the connections.
    type Stream: fmt::Debug + 'static;

    /// The type of the peers' addresses.
    type Address: fmt::Debug + 'static;

    // Only a server calls these.

    /// Accepts a connection that is in the queue, or fails with `WouldBlock`.
    #[doc(hidden)]
    fn accept_now(&self) -> io::Result<(Self::Stream, Self::Address)>;

    /// Whether a connection is in the queue.
    #[doc(hidden)]
    fn has_connection(&self) -> io::Result<bool>;

    /// Waits until it is worthwhile to accept again, whatever the time-out and the mode.
    #[doc(hidden)]
    fn wait_for_connection(&self) -> io::Result<()>;

    /// Accepts a connection, and waits for one.
    #[doc(hidden)]
    fn accept_stream(&self) -> io::Result<Self::Stream>;

    /// An address in words.
    #[doc(hidden)]
    fn show(address: &Self::Address) -> String;

    /// A listener for another worker, on the same address.
    #[doc(hidden)]
    fn sibling(&self) -> io::Result<Self>;

    /// Another handle of the same connection.
    #[doc(hidden)]
    fn another(stream: &Self::Stream) -> io::Result<Self::Stream>;

    /// Ends a connection of which another handle exists.
    #[doc(hidden)]
    fn end_shared(stream: &Self::Stream);
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// The connections of a listener, made by its `incoming`.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is used"]
pub struct Incoming<'a, L> {
    pub(super) listener: &'a L,
}

impl<L: Listener> Iterator for Incoming<'_, L> {
    type Item = io::Result<L::Stream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept_stream())
    }
}

impl<L: Listener> FusedIterator for Incoming<'_, L> {}

/// Implements [`Listener`] for a type of listener.
macro_rules! listener {
    ($listener:ident, $stream:ident, $address:ty, $show:expr, $sibling:expr) => {
        impl $crate::net::listener::sealed::Sealed for $listener {}

        impl crate::sync::select::Acceptor for $listener {
            type Accepted = ($stream, $address);

            fn accept_queued(&self) -> std::io::Result<($stream, $address)> {
                // The method of the type itself.
                self.accept_queued()
            }
        }

        impl $crate::net::listener::Listener for $listener {
            type Stream = $stream;
            type Address = $address;

            fn accept_now(&self) -> std::io::Result<($stream, $address)> {
                self.accept_queued()
            }

            fn has_connection(&self) -> std::io::Result<bool> {
                $crate::net::socket::is_readable(self)
            }

            fn wait_for_connection(&self) -> std::io::Result<()> {
                self.wait_readable()
            }

            fn accept_stream(&self) -> std::io::Result<$stream> {
                self.accept().map(|(stream, _)| stream)
            }

            fn show(address: &$address) -> String {
                $show(address)
            }

            fn sibling(&self) -> std::io::Result<Self> {
                $sibling(self)
            }

            fn another(stream: &$stream) -> std::io::Result<$stream> {
                stream.try_clone()
            }

            fn end_shared(stream: &$stream) {
                if stream.is_shared() {
                    // It may have ended already.
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
        }
    };
}

pub(super) use listener;

//! The interface that TCP and Unix listeners share for accepting.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::Shutdown;

use super::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A listener for a [`Server`](super::Server): a [`TcpListener`] or a [`UnixListener`].
pub trait Listener: Sized + sealed::Sealed {
    /// The type of the connections.
    type Stream: fmt::Debug + 'static;

    // Only a server calls these.

    /// Accepts a connection; without `wait`, fails with `WouldBlock` when there is none.
    #[doc(hidden)]
    fn accept_one(&self, wait: bool) -> io::Result<Self::Stream>;

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

mod sealed {
    pub trait Sealed {}
}

macro_rules! listener {
    ($listener:ident, $stream:ident, $accept:expr, $sibling:expr) => {
        impl sealed::Sealed for $listener {}

        impl Listener for $listener {
            type Stream = $stream;

            fn accept_one(&self, wait: bool) -> io::Result<$stream> {
                $accept(self, wait)
            }

            fn sibling(&self) -> io::Result<Self> {
                $sibling(self)
            }

            fn another(stream: &$stream) -> io::Result<$stream> {
                stream.try_clone()
            }

            fn end_shared(stream: &$stream) {
                if stream.is_shared() {
                    // It may have ended already.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    };
}

listener!(
    TcpListener,
    TcpStream,
    |listener: &TcpListener, wait| listener.accept_peer(wait).map(|(stream, _)| stream),
    TcpListener::share_port
);
listener!(UnixListener, UnixStream, UnixListener::accept_stream, UnixListener::try_clone);

/// The connections of a listener, made by its `incoming`.
#[derive(Debug)]
pub struct Incoming<'a, L = TcpListener> {
    pub(super) listener: &'a L,
}

impl<L: Listener> Iterator for Incoming<'_, L> {
    type Item = io::Result<L::Stream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept_one(true))
    }
}

impl<L: Listener> FusedIterator for Incoming<'_, L> {}

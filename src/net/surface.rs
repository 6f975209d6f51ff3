//! The parts of std's surface that are the same for several sockets.
//!
//! A type is a tuple of a [`Socket`](super::socket::Socket) of std's type of the same name.

/// The methods of every socket.
macro_rules! socket_surface {
    ($type:ident, $std:ty) => {
        impl $type {
            fn inner(&self) -> &$std {
                self.0.get()
            }

            /// Another handle of the same socket, which shares its time-outs and its mode.
            ///
            /// # Errors
            ///
            /// None: the handles share one descriptor. The result is std's.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                Ok(Self(self.0.clone()))
            }

            /// Takes the pending error of the socket, if there is one (`SO_ERROR`).
            ///
            /// # Errors
            ///
            /// When the system refuses.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                self.0.take_error()
            }

            /// Makes calls fail with `WouldBlock` where they would wait. Shared with the clones.
            ///
            /// # Errors
            ///
            /// None. The result is std's.
            pub fn set_nonblocking(&self, nonblocking: bool) -> std::io::Result<()> {
                self.0.set_nonblocking(nonblocking);
                Ok(())
            }

            crate::io::ready::read_deadline!(self, self.0);
            crate::io::ready::read_readiness!(self, self.0);
            crate::io::ready::try_io!(self, self.0);
        }

        crate::io::ready::selectable!(Readable, read_side, [] $type, self, *self.0);

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.inner().fmt(f)
            }
        }

        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.inner().as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.inner().as_raw_fd()
            }
        }

        impl std::os::fd::IntoRawFd for $type {
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                <$std>::from(self).into_raw_fd()
            }
        }

        /// Takes any such socket, with its time-outs, and puts it in non-blocking mode. The
        /// descriptor shares that mode with its duplicates, those in other processes included.
        impl From<$std> for $type {
            fn from(socket: $std) -> Self {
                Self(Socket::adopt(socket))
            }
        }

        /// As from std's type.
        impl From<std::os::fd::OwnedFd> for $type {
            fn from(fd: std::os::fd::OwnedFd) -> Self {
                Self::from(<$std>::from(fd))
            }
        }

        crate::engine::fd::from_raw_fd!($type);

        /// As from std's type. A `connect` of socket2's own has blocked its thread before.
        #[cfg(feature = "socket2")]
        impl From<socket2::Socket> for $type {
            fn from(socket: socket2::Socket) -> Self {
                Self::from(std::os::fd::OwnedFd::from(socket))
            }
        }

        /// Gives the socket up, with its time-outs and in the mode that was set with
        /// `set_nonblocking`. The descriptor's duplicates get that mode, too. Do not give one up
        /// while another is used here: its calls would block the thread.
        ///
        /// If other handles of the socket are left, this is a duplicate. It stays in non-blocking
        /// mode then, as it shares that with the other handles.
        ///
        /// # Panics
        ///
        /// When other handles of it are left and the process has no descriptor for a duplicate.
        impl From<$type> for $std {
            fn from(socket: $type) -> Self {
                socket.0.release()
            }
        }

        /// As into std's type.
        impl From<$type> for std::os::fd::OwnedFd {
            fn from(socket: $type) -> Self {
                <$std>::from(socket).into()
            }
        }

        /// As into std's type.
        #[cfg(feature = "socket2")]
        impl From<$type> for socket2::Socket {
            fn from(socket: $type) -> Self {
                std::os::fd::OwnedFd::from(socket).into()
            }
        }
    };
}

/// Time-outs, which every socket has that moves data.
macro_rules! timeout_surface {
    ($type:ident) => {
        impl $type {
            /// Sets how long a read waits at most; `None` is for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(
                &self,
                timeout: Option<std::time::Duration>,
            ) -> std::io::Result<()> {
                self.0.set_timeout(crate::engine::reactor::Interest::Read, timeout)
            }

            /// Sets how long a write waits at most; `None` is for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(
                &self,
                timeout: Option<std::time::Duration>,
            ) -> std::io::Result<()> {
                self.0.set_timeout(crate::engine::reactor::Interest::Write, timeout)
            }

            /// How long a read waits at most.
            ///
            /// # Errors
            ///
            /// None. The result is std's.
            pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.0.timeout(crate::engine::reactor::Interest::Read))
            }

            /// How long a write waits at most.
            ///
            /// # Errors
            ///
            /// None. The result is std's.
            pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.0.timeout(crate::engine::reactor::Interest::Write))
            }

            crate::io::ready::write_deadline!(self, self.0);
            crate::io::ready::write_readiness!(self, self.0);
        }

        crate::io::ready::selectable!(Writable, write_side, [] $type, self, *self.0);
    };
}

/// The methods of every stream beside `Read` and `Write`.
macro_rules! stream_surface {
    ($type:ident) => {
        impl $type {
            /// Ends one or both directions. Waiting readers see the end of the stream.
            ///
            /// # Errors
            ///
            /// `NotConnected` when the connection has ended already.
            pub fn shutdown(&self, how: std::net::Shutdown) -> std::io::Result<()> {
                self.inner().shutdown(how)
            }

            /// Reads data without taking it away, and waits until there is some.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the read time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits.
            pub fn peek(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.peek(buf)
            }

            crate::io::ready::try_read!(self, self.0);
            crate::io::ready::try_write!(self, self.0);
        }

        impl crate::io::copy::sealed::Sealed for $type {}

        impl crate::io::ReadPooled for $type {
            fn read_pooled(&self) -> std::io::Result<crate::io::copy::PooledBuf> {
                self.0.read_pooled()
            }
        }
    };
}

/// The methods of every datagram socket. `$recv` and `$try_recv` are the methods of `Socket` that
/// receive for it.
macro_rules! datagram_surface {
    ($type:ident, $recv:ident, $try_recv:ident) => {
        impl $type {
            /// Receives a datagram. Bytes that do not fit into `buf` are dropped.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the read time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits; no datagram is lost.
            pub fn recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.$recv(buf, 0)
            }

            /// Receives a datagram without taking it away, and waits until there is one.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the read time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits.
            pub fn peek(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.$recv(buf, libc::MSG_PEEK)
            }

            /// Sends a datagram to the address that the socket is connected to.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the write time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits; nothing has been sent.
            pub fn send(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.0.send(buf)
            }

            /// Receives a datagram that is there, and waits for none. Bytes that do not fit into
            /// `buf` are dropped.
            ///
            /// # Errors
            ///
            /// `WouldBlock` when none is there; those of the system.
            pub fn try_recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.$try_recv(buf)
            }

            /// Sends a datagram to the address that the socket is connected to, and waits for
            /// nothing.
            ///
            /// # Errors
            ///
            /// `WouldBlock` when there is no room; those of the system.
            pub fn try_send(&self, buf: &[u8]) -> std::io::Result<usize> {
                self.0.try_send(buf)
            }
        }
    };
}

pub(super) use {datagram_surface, socket_surface, stream_surface, timeout_surface};

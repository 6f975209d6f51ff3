//! The part of std's surface that several sockets have, each time the same.
//!
//! A type is a tuple of a [`Socket`](super::socket::Socket) of std's type of the same name.

/// What every socket has.
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

            /// Takes the error that the socket has run into, if any.
            ///
            /// # Errors
            ///
            /// When the system does not tell.
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
        }

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

        /// Takes any such socket, with its time-outs. It is put in non-blocking mode, as the
        /// waits are ours now; that mode is shared with the descriptor's duplicates, those
        /// in other processes included.
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

        /// Gives the socket up, with its time-outs and in the mode that was set with
        /// `set_nonblocking`. While other handles of it are left, it is a duplicate, and stays in
        /// non-blocking mode, which its descriptor shares with theirs.
        ///
        /// # Panics
        ///
        /// When other handles of it are left, and the process has no descriptor for a duplicate.
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
    };
}

/// What every socket has that moves data. `$recv` is how its `Socket` receives for it.
macro_rules! timeout_surface {
    ($type:ident, $recv:ident) => {
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

            /// Reads what has come without taking it away, waiting until something has.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the read time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits.
            pub fn peek(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.$recv(buf, rustix::net::RecvFlags::PEEK)
            }
        }
    };
}

/// What every stream has. `$ends_show`: see [`Socket::read`](super::socket::Socket::read).
macro_rules! stream_surface {
    ($type:ident, ends_show: $ends_show:literal) => {
        impl $type {
            /// Ends one or both directions. Those who wait to read see the end of the stream.
            ///
            /// # Errors
            ///
            /// `NotConnected` when the connection has ended already.
            pub fn shutdown(&self, how: std::net::Shutdown) -> std::io::Result<()> {
                self.inner().shutdown(how)
            }
        }

        impl crate::io::copy::sealed::Sealed for $type {}

        impl crate::io::ReadLent for $type {
            fn read_lent(&self) -> std::io::Result<crate::io::copy::Lent> {
                self.0.read_lent($ends_show)
            }
        }

        impl std::io::Read for &$type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(buf, $ends_show)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                self.0.read_vectored(bufs)
            }
        }

        impl std::io::Write for &$type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.0.write(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.0.write_vectored(bufs)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Read for $type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                (&*self).read(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }

        impl std::io::Write for $type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                (&*self).write(buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// What every socket for datagrams has. `$recv` is how its `Socket` receives for it.
macro_rules! datagram_surface {
    ($type:ident, $recv:ident) => {
        impl $type {
            /// Receives a datagram. What does not fit into `buf` is dropped.
            ///
            /// # Errors
            ///
            /// Those of the system; `WouldBlock` after the read time-out.
            ///
            /// # Cancellation
            ///
            /// Unwinds when the coroutine is cancelled while it waits; no datagram is lost.
            pub fn recv(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.0.$recv(buf, rustix::net::RecvFlags::empty())
            }

            /// Sends a datagram to where the socket is connected.
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
        }
    };
}

pub(super) use {datagram_surface, socket_surface, stream_surface, timeout_surface};

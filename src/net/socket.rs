//! What all sockets have in common, whatever they are called and addressed.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType};

use crate::engine::reactor::Interest;
use crate::io::source::Source;

/// Connections that the kernel holds for a listener; it lowers this to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// A socket of std's in non-blocking mode, which its clones share: descriptor, time-outs and mode.
pub(super) struct Socket<T: AsFd>(Arc<Source<T>>);

impl<T: AsFd> Socket<T> {
    /// Takes a socket that is in non-blocking mode and has no time-outs: a new one.
    pub(super) fn new(socket: T) -> Self {
        Self(Arc::new(Source::new(socket)))
    }

    /// Whether another handle of the same socket exists.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Receives what has come; with `PEEK`, without taking it away.
    pub(super) fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        self.retry(Interest::Read, |io| Ok(rustix::net::recv(io, &mut *buf, flags)?.0))
    }

    /// [`recv`](Self::recv), for Unix datagrams.
    pub(super) fn recv_unless_shut(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        self.retry_unless_shut(|io| Ok(rustix::net::recv(io, &mut *buf, flags)?.0), || Ok(0))
    }

    /// Retries `op`, which receives a Unix datagram, where a blocking socket would wait. That gets
    /// `nothing` once the reading side has been shut down, and a non-blocking one `EAGAIN` for ever.
    pub(super) fn retry_unless_shut<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
        nothing: impl Fn() -> io::Result<R>,
    ) -> io::Result<R> {
        let would_block = |result: &io::Result<R>| {
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        self.retry(Interest::Read, |io| {
            let result = op(io);
            if !would_block(&result) || self.is_nonblocking() || !is_shut(io)? {
                return result;
            }
            // The last datagram may have come before it was shut down, and after the first try.
            Some(op(io)).filter(|result| !would_block(result)).unwrap_or_else(&nothing)
        })
    }

    /// Sends to where the socket is connected.
    pub(super) fn send(&self, buf: &[u8]) -> io::Result<usize> {
        // As std does: an error instead of a signal when the other side has gone.
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        let flags = SendFlags::NOSIGNAL;
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        let flags = SendFlags::empty();
        self.retry(Interest::Write, |io| Ok(rustix::net::send(io, buf, flags)?))
    }

    /// Accepts a connection with `op`; without `wait`, only one that is there already.
    pub(super) fn accept<R>(
        &self,
        wait: bool,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        if wait { self.retry(Interest::Read, op) } else { self.attempt(op) }
    }

    /// Takes the error that the socket has run into.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(sockopt::socket_error(self.get())?.err().map(io::Error::from))
    }
}

impl<T: AsFd + From<OwnedFd>> Socket<T> {
    /// Takes any socket, with its time-outs, and puts it in non-blocking mode.
    pub(super) fn adopt(socket: T) -> Self {
        // These fail only for what is no socket, whose first use will then tell.
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        let socket = Self::new(socket);
        for (interest, kernels) in TIMEOUTS {
            let timeout = sockopt::socket_timeout(socket.get(), kernels).ok().flatten();
            let _ = socket.set_timeout(interest, timeout);
        }
        socket
    }

    /// Gives the socket up, with its time-outs and in the mode that its user has set.
    pub(super) fn release(self) -> T {
        let duplicate = self.get().as_fd().try_clone_to_owned();
        let duplicate = duplicate.expect("no descriptor is left to give a socket up");
        for (interest, kernels) in TIMEOUTS {
            let _ = sockopt::set_socket_timeout(&duplicate, kernels, self.timeout(interest));
        }
        if !self.is_shared() {
            let _ = rustix::io::ioctl_fionbio(&duplicate, self.is_nonblocking());
        }
        T::from(duplicate)
    }
}

/// The time-outs of a socket: ours, and the kernel's, which only blocking calls heed.
const TIMEOUTS: [(Interest, Timeout); 2] =
    [(Interest::Read, Timeout::Recv), (Interest::Write, Timeout::Send)];

impl<T: AsFd> Socket<T>
where
    for<'a> &'a T: Read + Write,
{
    /// Reads from a stream. `ends_show` says that whatever may be left behind a short read of such
    /// a stream has been reported as its end, so that the next read may park at once.
    #[inline]
    pub(super) fn read(&self, buf: &mut [u8], ends_show: bool) -> io::Result<usize> {
        let len = buf.len();
        let short = |&n: &usize| ends_show && n > 0 && n < len;
        self.retry_unless_short(Interest::Read, |mut io| io.read(buf), short)
    }

    pub(super) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.retry(Interest::Read, |mut io| io.read_vectored(bufs))
    }

    #[inline]
    pub(super) fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.retry(Interest::Write, |mut io| io.write(buf))
    }

    pub(super) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.retry(Interest::Write, |mut io| io.write_vectored(bufs))
    }
}

impl<T: AsFd> Deref for Socket<T> {
    type Target = Source<T>;

    #[inline]
    fn deref(&self) -> &Source<T> {
        &self.0
    }
}

impl<T: AsFd> Clone for Socket<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Whether the reading side has been shut down, where the system does not say so in another way.
fn is_shut(socket: impl AsFd) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut poll_fd = [PollFd::new(&socket, PollFlags::RDHUP)];
        poll(&mut poll_fd, Some(&Timespec::default()))?;
        Ok(poll_fd[0].revents().contains(PollFlags::RDHUP))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        Ok(false)
    }
}

/// A non-blocking socket for connections.
pub(super) fn socket(family: AddressFamily) -> io::Result<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let flags = SocketFlags::empty();
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    prepare(&fd)?;
    Ok(fd)
}

/// Accepts a connection in non-blocking mode, with one system call where there is one.
pub(super) fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(rustix::net::acceptfrom_with(listener, flags)?)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let (fd, peer) = rustix::net::acceptfrom(listener)?;
        prepare(&fd)?;
        Ok((fd, peer))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn prepare(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

// What follows is the part of std's surface that several types have, each time the same: a type is
// a tuple of a `Socket<$std>`.

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
        /// `set_nonblocking`. While other handles of it are left, it stays in non-blocking
        /// mode, which its descriptor shares with theirs.
        ///
        /// # Panics
        ///
        /// When the process has no descriptor left for the moment of the exchange.
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

/// What every socket has that moves data. `$recv` is how [`Socket`] receives for it.
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

/// What every stream has. `$ends_show`: see [`Socket::read`].
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

/// What every socket for datagrams has. `$recv` is how [`Socket`] receives for it.
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

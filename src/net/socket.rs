//! The part that all sockets share, independent of names and addresses.

#![allow(unsafe_code)]

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{ioctl_fionbio, retry_on_intr};
use socket2::{Domain, SockAddr, SockRef, Type};

use crate::engine::reactor::Interest;
use crate::io::copy::PooledBuf;
use crate::io::source::{Descriptor, Source};

/// Connections that the kernel holds for a listener; it lowers this to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// As std does: an error and not a signal when the other side has closed.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const SEND: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const SEND: i32 = 0;

/// A socket of std's in non-blocking mode, which its clones share: descriptor, time-outs and mode.
pub(super) struct Socket<T: Descriptor>(Arc<Source<T>>);

impl<T: Descriptor> Socket<T> {
    /// Takes a socket that is in non-blocking mode and has no time-outs: a new one.
    pub(super) fn new(socket: T) -> Self {
        Self(Arc::new(Source::new(socket)))
    }

    /// Whether another handle of the same socket exists.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Receives a datagram; with `MSG_PEEK`, without taking it away.
    pub(super) fn recv(&self, buf: &mut [u8], flags: i32) -> io::Result<usize> {
        self.retry(Interest::Read, |io| receive(io, buf, flags))
    }

    /// Reads from a stream without taking the data away.
    pub(super) fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len();
        let peek = |io: &T| receive(io, buf, libc::MSG_PEEK);
        // A peek drains nothing, however short.
        if len == 0 { self.read_nothing(peek) } else { self.retry(Interest::Read, peek) }
    }

    /// Reads from a stream into a buffer of the worker.
    pub(super) fn read_pooled(&self) -> io::Result<PooledBuf>
    where
        for<'a> &'a T: Read,
    {
        let read = |mut io: &T| PooledBuf::fill(|buf| io.read(buf));
        self.transfer(Interest::Read, PooledBuf::CAPACITY, read, |data| data.len())
    }

    /// [`recv`](Self::recv), for Unix datagrams.
    pub(super) fn recv_unless_shut(&self, buf: &mut [u8], flags: i32) -> io::Result<usize> {
        self.retry_unless_shut(|io| receive(io, buf, flags), || Ok(0))
    }

    /// Retries `op`, which receives a Unix datagram.
    ///
    /// Once the reading side has been shut down, the kernel answers a blocking socket with no data
    /// and a non-blocking one with `EAGAIN` for ever. This returns `nothing` then.
    pub(super) fn retry_unless_shut<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
        nothing: impl Fn() -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry(Interest::Read, |io| self.unless_shut(io, &mut op, &nothing))
    }

    fn unless_shut<R>(
        &self,
        io: &T,
        mut op: impl FnMut(&T) -> io::Result<R>,
        nothing: impl Fn() -> io::Result<R>,
    ) -> io::Result<R> {
        let would_block = |result: &io::Result<R>| {
            result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let result = op(io);
        if !would_block(&result) || self.is_nonblocking() || !is_shut(io)? {
            return result;
        }
        // The last datagram may have come before it was shut down, and after the first try.
        let result = op(io);
        if would_block(&result) { nothing() } else { result }
    }

    /// Receives a datagram that is there.
    pub(super) fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_once(Interest::Read, |io| receive(io, buf, 0))
    }

    /// [`try_recv`](Self::try_recv), for Unix datagrams.
    pub(super) fn try_recv_unless_shut(&self, buf: &mut [u8]) -> io::Result<usize> {
        let recv = |io: &T| receive(io, buf, 0);
        self.try_once(Interest::Read, |io| self.unless_shut(io, recv, || Ok(0)))
    }

    /// Sends to where the socket is connected.
    pub(super) fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.retry(Interest::Write, |io| SockRef::from(io).send_with_flags(buf, SEND))
    }

    /// [`send`](Self::send), which waits for nothing.
    pub(super) fn try_send(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_once(Interest::Write, |io| SockRef::from(io).send_with_flags(buf, SEND))
    }

    /// Takes over the time-outs of the listener that has accepted this, as the kernel does.
    pub(super) fn inherit_timeouts<L: Descriptor>(&self, listener: &Source<L>) {
        for interest in [Interest::Read, Interest::Write] {
            if let Some(timeout) = listener.timeout(interest) {
                // Only zero is refused.
                let _ = self.set_timeout(interest, Some(timeout));
            }
        }
    }

    /// Takes the error that the socket has run into.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self.get()).take_error()
    }
}

impl<T: Descriptor + From<OwnedFd>> Socket<T> {
    /// Takes any socket, with its time-outs, and puts it in non-blocking mode.
    pub(super) fn adopt(socket: T) -> Self {
        // These fail only for a descriptor that is no socket. Its first use will report that.
        let _ = ioctl_fionbio(&socket, true);
        let (read, write) = timeouts(&socket);
        let mut source = Source::new(socket);
        // It may be a socket of any kind.
        if T::SHORT_READ_DRAINS && !is_tcp(source.get()) {
            source.distrust_short_reads();
        }
        let socket = Self(Arc::new(source));
        let _ = socket.set_timeout(Interest::Read, read);
        let _ = socket.set_timeout(Interest::Write, write);
        socket
    }

    /// Gives the socket up, with its time-outs and in the mode that its user has set.
    pub(super) fn release(self) -> T {
        let (read, write) = (self.timeout(Interest::Read), self.timeout(Interest::Write));
        let nonblocking = self.is_nonblocking();
        let socket = match Arc::try_unwrap(self.0) {
            Ok(source) => {
                let socket = source.into_inner();
                let _ = ioctl_fionbio(&socket, nonblocking);
                socket
            }
            Err(shared) => {
                let duplicate = shared.get().as_fd().try_clone_to_owned();
                T::from(duplicate.expect("no descriptor is left to give up a socket with clones"))
            }
        };
        let system = SockRef::from(&socket);
        let _ = system.set_read_timeout(read);
        let _ = system.set_write_timeout(write);
        socket
    }
}

/// The kernel's time-outs of a socket, for reads and for writes. They concern only blocking calls.
fn timeouts(socket: &impl AsFd) -> (Option<Duration>, Option<Duration>) {
    let socket = SockRef::from(socket);
    (socket.read_timeout().ok().flatten(), socket.write_timeout().ok().flatten())
}

impl<T: Descriptor> Deref for Socket<T> {
    type Target = Source<T>;

    #[inline]
    fn deref(&self) -> &Source<T> {
        &self.0
    }
}

impl<T: Descriptor> Clone for Socket<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Whether it is a TCP socket, where that matters: on other systems no read is taken to have
/// drained a socket.
fn is_tcp(socket: &impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        matches!(SockRef::from(socket).protocol(), Ok(Some(socket2::Protocol::TCP)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        true
    }
}

/// Whether the reading side has been shut down, where the system does not say so in another way.
fn is_shut(socket: impl AsFd) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return is_now(socket, PollFlags::RDHUP);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        Ok(false)
    }
}

/// Whether a read, or an accept, has something to take.
pub(super) fn is_readable(socket: impl AsFd) -> io::Result<bool> {
    is_now(socket, PollFlags::IN)
}

fn is_now(socket: impl AsFd, state: PollFlags) -> io::Result<bool> {
    let mut poll_fd = [PollFd::new(&socket, state)];
    // It does not wait, and is interrupted all the same by a signal that is pending.
    retry_on_intr(|| poll(&mut poll_fd, Some(&Timespec::default())))?;
    Ok(poll_fd[0].revents().contains(state))
}

/// Receives from a socket, with flags of the system.
fn receive(socket: &impl AsFd, buf: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: as in `receive_from`.
    SockRef::from(socket).recv_with_flags(unsafe { as_uninit(buf) }, flags)
}

/// [`receive`], with the address of the sender.
pub(super) fn receive_from(
    socket: &impl AsFd,
    buf: &mut [u8],
    flags: i32,
) -> io::Result<(usize, SockAddr)> {
    // SAFETY: only the kernel writes into the slice, and it writes bytes that are initialised.
    SockRef::from(socket).recv_from_with_flags(unsafe { as_uninit(buf) }, flags)
}

/// The form in which socket2 takes a buffer.
///
/// # Safety
///
/// Nothing uninitialised may be written into it.
unsafe fn as_uninit(buf: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the two have the same layout, and the lifetime stays the same.
    unsafe { &mut *(&raw mut *buf as *mut [MaybeUninit<u8>]) }
}

/// A non-blocking socket for connections.
pub(super) fn socket(domain: Domain) -> io::Result<socket2::Socket> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    return socket2::Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    {
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Accepts a connection in non-blocking mode, with one system call where there is one.
pub(super) fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, SockAddr)> {
    let listener = SockRef::from(&listener);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let (socket, peer) = listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let (socket, peer) = {
        let (socket, peer) = listener.accept()?;
        socket.set_nonblocking(true)?;
        (socket, peer)
    };
    Ok((socket.into(), peer))
}

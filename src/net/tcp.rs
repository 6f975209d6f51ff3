//! TCP, with the names, signatures and errors of [`std::net`].

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::addr::{ToSocketAddrs, name, try_each};
use crate::engine::reactor::Interest;
use crate::io::source::{Source, after, zero_timeout};

/// Connections that the kernel holds for a listener; it lowers this to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// A TCP connection: [`std::net::TcpStream`], whose calls park only their own coroutine.
///
/// Reads and writes through `&TcpStream` too, and may be used by several coroutines and threads
/// at once. Clones share the descriptor, the time-outs and the mode; the connection closes when the last
/// one is dropped.
///
/// # Cancellation
///
/// A read or write that is cancelled has moved nothing: it unwinds only while it waits. What goes on
/// over many of them, such as `write_all` or `read_exact`, may have moved some.
///
/// ```
/// use plainsong::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     plainsong::spawn(move || {
///         let (mut peer, _) = listener.accept()?;
///         peer.write_all(b"hello")
///     });
///     let mut text = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok(())
/// })
/// # }
/// ```
pub struct TcpStream(Arc<Source<net::TcpStream>>);

impl TcpStream {
    /// Opens a connection, trying the addresses one after the other.
    ///
    /// # Errors
    ///
    /// That of the last address, which it names; those of [`ToSocketAddrs`].
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the connection is given up.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        try_each(addr, |address| Self::connect_until(address, None))
    }

    /// Opens a connection within `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it takes longer, `InvalidInput` for a `timeout` of zero, and those of the
    /// connection, naming the address.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; the connection is given up.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        Self::connect_until(*addr, Some(timeout))
    }

    fn connect_until(address: SocketAddr, timeout: Option<Duration>) -> io::Result<Self> {
        let named = |error: io::Error| name("connect to", address, error);
        let fd = socket(address).map_err(named)?;
        let stream = Self::from_nonblocking(net::TcpStream::from(fd));
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(named(error.into())),
        }
        stream.0.wait_connected(timeout.and_then(after)).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::Error::new(
                error.kind(),
                format!(
                    "cannot connect to {address}: no answer within {:?}",
                    timeout.unwrap_or_default()
                ),
            ),
            _ => named(error),
        })?;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(named(error)),
        }
    }

    fn from_nonblocking(stream: net::TcpStream) -> Self {
        Self(Arc::new(Source::new(stream)))
    }

    fn inner(&self) -> &net::TcpStream {
        self.0.get()
    }

    /// The address of the other side.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner().peer_addr()
    }

    /// The address of this side.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    /// Ends one or both directions. Those who wait to read see the end of the stream.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection has ended already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner().shutdown(how)
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    ///
    /// None: the handles share one descriptor. The result is std's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(Arc::clone(&self.0)))
    }

    /// Sets how long a read waits at most; `None` is for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(Interest::Read, timeout)
    }

    /// Sets how long a write waits at most; `None` is for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_timeout(Interest::Write, timeout)
    }

    /// How long a read waits at most.
    ///
    /// # Errors
    ///
    /// None. The result is std's.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.timeout(Interest::Read))
    }

    /// How long a write waits at most.
    ///
    /// # Errors
    ///
    /// None. The result is std's.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.0.timeout(Interest::Write))
    }

    /// Reads what has come without taking it away, waiting until something has.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.retry(Interest::Read, |stream| stream.peek(buf))
    }

    /// Turns off Nagle's algorithm (`TCP_NODELAY`), which holds small writes back.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.inner().set_nodelay(nodelay)
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner().nodelay()
    }

    /// Sets what happens to unsent data at the close (`SO_LINGER`): `Some(ZERO)` resets the connection.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(self.inner(), linger)?)
    }

    /// What happens to unsent data at the close.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        Ok(sockopt::socket_linger(self.inner())?)
    }

    /// Sets how many routers a packet may cross (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.inner().set_ttl(ttl)
    }

    /// How many routers a packet may cross.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn ttl(&self) -> io::Result<u32> {
        self.inner().ttl()
    }

    /// Takes the error that the connection has run into, if any.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner().take_error()
    }

    /// Makes calls fail with `WouldBlock` where they would wait. Shared with the clones.
    ///
    /// # Errors
    ///
    /// None. The result is std's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Whether another handle of the same connection exists.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len();
        self.0.retry_unless_short(Interest::Read, |mut io| io.read(buf), |&n| n > 0 && n < len)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.retry(Interest::Read, |mut io| io.read_vectored(bufs))
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.retry(Interest::Write, |mut io| io.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.retry(Interest::Write, |mut io| io.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner().fmt(f)
    }
}

/// A TCP socket that listens: [`std::net::TcpListener`], whose `accept` parks only its own
/// coroutine.
///
/// ```
/// use plainsong::net::TcpListener;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     println!("listening on {}", listener.local_addr()?);
///     # let address = listener.local_addr()?;
///     # plainsong::spawn(move || plainsong::net::TcpStream::connect(address));
///     let (_stream, peer) = listener.accept()?;
///     println!("{peer} connected");
///     Ok(())
/// })
/// # }
/// ```
pub struct TcpListener(Arc<Source<net::TcpListener>>);

impl TcpListener {
    /// Listens on the first of the addresses that can be had; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// That of the last address, which it names; those of [`ToSocketAddrs`].
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        try_each(addr, |address| {
            let named = |error: Errno| name("listen on", address, error.into());
            let fd = socket(address).map_err(|error| name("listen on", address, error))?;
            // As std does: a server that is restarted gets its port back at once.
            sockopt::set_socket_reuseaddr(&fd, true).map_err(named)?;
            rustix::net::bind(&fd, &address).map_err(named)?;
            rustix::net::listen(&fd, BACKLOG).map_err(named)?;
            Ok(Self(Arc::new(Source::new(net::TcpListener::from(fd)))))
        })
    }

    fn inner(&self) -> &net::TcpListener {
        self.0.get()
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    ///
    /// None: the handles share one descriptor. The result is std's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(Arc::clone(&self.0)))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open descriptors; the listener stays usable.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; no connection is lost.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.retry(Interest::Read, accept)?;
        Ok((TcpStream::from_nonblocking(stream), peer))
    }

    /// The connections, as they come. Never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets how many routers a packet may cross (`IP_TTL`).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.inner().set_ttl(ttl)
    }

    /// How many routers a packet may cross.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn ttl(&self) -> io::Result<u32> {
        self.inner().ttl()
    }

    /// Takes the error that the listener has run into, if any.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner().take_error()
    }

    /// Makes `accept` fail with `WouldBlock` where it would wait. Shared with the clones.
    ///
    /// # Errors
    ///
    /// None. The result is std's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking);
        Ok(())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner().fmt(f)
    }
}

/// The connections of a [`TcpListener`], made by [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

/// A non-blocking socket for connections to or at this address.
fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
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
fn accept(listener: &net::TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    let (fd, peer) = {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::acceptfrom_with(listener, flags)?
    };
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    let (fd, peer) = {
        let (fd, peer) = rustix::net::acceptfrom(listener)?;
        prepare(&fd)?;
        (fd, peer)
    };
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // A connection that was reset before it was accepted may have no address any more.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((net::TcpStream::from(fd), peer))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn prepare(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

macro_rules! descriptor_of {
    ($type:ident) => {
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.inner().as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.inner().as_raw_fd()
            }
        }

        impl IntoRawFd for $type {
            fn into_raw_fd(self) -> RawFd {
                net::$type::from(self).into_raw_fd()
            }
        }

        /// Takes any such socket, with its time-outs. It is put in non-blocking mode, as the
        /// waits are ours now; that mode is shared with the descriptor's duplicates.
        impl From<net::$type> for $type {
            fn from(socket: net::$type) -> Self {
                // These fail only for what is no socket, whose first use will then tell.
                let _ = socket.set_nonblocking(true);
                let source = Source::new(socket);
                for (interest, timeout) in
                    [(Interest::Read, Timeout::Recv), (Interest::Write, Timeout::Send)]
                {
                    let timeout = sockopt::socket_timeout(source.get(), timeout).ok().flatten();
                    let _ = source.set_timeout(interest, timeout);
                }
                Self(Arc::new(source))
            }
        }

        /// As from std's type.
        impl From<OwnedFd> for $type {
            fn from(fd: OwnedFd) -> Self {
                Self::from(net::$type::from(fd))
            }
        }

        /// Gives the socket up, in the mode that was set with `set_nonblocking`. While other
        /// handles of it are left, it shares their descriptor's non-blocking mode.
        ///
        /// # Panics
        ///
        /// When the process has no descriptor left for the moment of the exchange.
        impl From<$type> for net::$type {
            fn from(socket: $type) -> Self {
                let duplicate = socket.inner().try_clone();
                let duplicate = duplicate.expect("no descriptor is left to give a socket up");
                if Arc::strong_count(&socket.0) == 1 {
                    let _ = duplicate.set_nonblocking(socket.0.is_nonblocking());
                }
                duplicate
            }
        }

        /// As into std's type.
        impl From<$type> for OwnedFd {
            fn from(socket: $type) -> Self {
                net::$type::from(socket).into()
            }
        }
    };
}

descriptor_of!(TcpStream);
descriptor_of!(TcpListener);

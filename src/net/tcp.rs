//! TCP, with the names, signatures and errors of [`std::net`].

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockRef};

use super::addr::{ToSocketAddrs, name, try_each};
use super::listener::{Incoming, listener};
use super::socket::{BACKLOG, Socket, accept, socket};
use super::surface::{socket_surface, stream_surface, timeout_surface};
use crate::engine::error::explained;
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::io::source::Descriptor;
use crate::io::waits::zero_timeout;

/// A TCP connection: [`std::net::TcpStream`], whose calls park only their own coroutine.
///
/// `&TcpStream` implements [`Read`] and [`Write`] too, so several coroutines and threads may use a
/// stream at once. Clones share the descriptor, the time-outs and the mode. The connection closes
/// when the last clone is dropped.
///
/// # Cancellation
///
/// A read or write that is cancelled has moved nothing: it unwinds only while it waits. A call that
/// makes several of them, such as `write_all` or `read_exact`, may have moved some data.
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
pub struct TcpStream(Socket<net::TcpStream>);

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
        let socket = socket(Domain::for_address(address)).map_err(named)?;
        let connected = socket.connect(&address.into());
        let stream = Self(Socket::new(socket.into()));
        match connected {
            Ok(()) => {
                park::spend();
                return Ok(stream);
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            }
            Err(error) => return Err(named(error)),
        }
        let until = timeout.and_then(park::deadline);
        if !stream.0.wait_until(Interest::Write, until).map_err(named)? {
            let text = format!(
                "cannot connect to {address}: no answer within {:?}",
                timeout.unwrap_or_default()
            );
            return Err(explained(io::ErrorKind::TimedOut, text));
        }
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(named(error)),
        }
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
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
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
    /// When the system refuses.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner().nodelay()
    }

    /// Has received data acknowledged at once (`TCP_QUICKACK`). The system may turn that off again.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        SockRef::from(self.inner()).set_tcp_quickack(quickack)
    }

    /// Whether received data is acknowledged at once.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn quickack(&self) -> io::Result<bool> {
        SockRef::from(self.inner()).tcp_quickack()
    }

    /// Sets what happens to unsent data at the close (`SO_LINGER`): `Some(ZERO)` resets the
    /// connection.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        // The system takes whole seconds, and zero has a meaning of its own.
        let seconds = |time: Duration| {
            let seconds = time.as_secs().saturating_add((time.subsec_nanos() > 0).into());
            Duration::from_secs(seconds.min(i32::MAX as u64))
        };
        SockRef::from(self.inner()).set_linger(linger.map(seconds))
    }

    /// The time that a close allows for unsent data (`SO_LINGER`).
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self.inner()).linger()
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
    /// When the system refuses.
    pub fn ttl(&self) -> io::Result<u32> {
        self.inner().ttl()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return self.0.read_nothing(|mut io| io.read(buf));
        }
        self.0.transfer(Interest::Read, buf.len(), |mut io| io.read(buf), |&len| len)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if len == 0 {
            return self.0.read_nothing(|mut io| io.read_vectored(bufs));
        }
        self.0.transfer(Interest::Read, len, |mut io| io.read_vectored(bufs), |&len| len)
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.transfer(Interest::Write, buf.len(), |mut io| io.write(buf), |&len| len)
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

impl Descriptor for net::TcpStream {
    // A read stops short before urgent data and before the end of the stream, and the reactor is
    // notified of both.
    const SHORT_READ_DRAINS: bool = true;
    const CLOSES_FILE: bool = true;
}

socket_surface!(TcpStream, net::TcpStream);
timeout_surface!(TcpStream);
stream_surface!(TcpStream);

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
pub struct TcpListener(Socket<net::TcpListener>);

listener!(
    TcpListener,
    TcpStream,
    net::SocketAddr,
    net::SocketAddr::to_string,
    TcpListener::share_port
);

impl TcpListener {
    /// Listens on the first of the addresses that is available; port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// That of the last address, which it names; those of [`ToSocketAddrs`].
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        try_each(addr, |address| Self::bind_to(address, |_| Ok(())))
    }

    fn bind_to(
        address: SocketAddr,
        prepare: impl FnOnce(&socket2::Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let bind = || {
            let socket = socket(Domain::for_address(address))?;
            // As std does: a server that is restarted gets its port back at once.
            socket.set_reuse_address(true)?;
            prepare(&socket)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(Self(Socket::new(socket.into())))
        };
        bind().map_err(|error| name("listen on", address, error))
    }

    /// Another listener on the same port: the kernel distributes connections between the two. A
    /// clone on systems that do not do that.
    pub(super) fn share_port(&self) -> io::Result<Self> {
        // This listener was bound without `SO_REUSEPORT`, so no other program has the port. Had it
        // been shared from the start, a port that another program shares too would have counted as
        // free.
        let this = SockRef::from(self.inner());
        let shared = share_port(&this).and_then(|()| {
            let address = self.local_addr()?;
            Self::bind_to(address, |other| {
                share_port(other)?;
                // It must accept no clients that this listener refuses.
                if address.is_ipv6() {
                    other.set_only_v6(this.only_v6()?)?;
                }
                // Connections inherit it.
                other.set_ttl_v4(this.ttl_v4()?)
            })
        });
        shared.or_else(|_| self.try_clone())
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }

    /// Waits for a connection.
    ///
    /// As with std on Linux, the stream has the time-outs that the listener had when it was taken
    /// from std, and is not in non-blocking mode.
    ///
    /// # Errors
    ///
    /// Those of the system, such as too many open descriptors; the listener stays usable.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled; no connection is lost.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.retry(Interest::Read, accept_with_address).map(|accepted| self.adopt(accepted))
    }

    /// Polls for a connection: [`accept`](Self::accept) for futures. If there is none, the task of
    /// `cx` is woken when there is. Only the waker of the last call is kept.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept) and of [`poll_read_ready`](Self::poll_read_ready).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.0
            .poll_retry(Interest::Read, cx, accept_with_address)
            .map_ok(|accepted| self.adopt(accepted))
    }

    /// Accepts a connection that is in the queue, or fails with `WouldBlock`.
    pub(super) fn accept_queued(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.attempt(accept_with_address).map(|accepted| self.adopt(accepted))
    }

    /// Waits until it is worthwhile to accept again, whatever the time-out and the mode.
    pub(super) fn wait_readable(&self) -> io::Result<()> {
        self.0.wait_until(Interest::Read, None).map(drop)
    }

    fn adopt(&self, (fd, peer): (OwnedFd, SocketAddr)) -> (TcpStream, SocketAddr) {
        let socket = Socket::new(fd.into());
        socket.inherit_timeouts(&self.0);
        (TcpStream(socket), peer)
    }

    /// The connections, as they come. Never ends.
    pub fn incoming(&self) -> Incoming<'_, Self> {
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
    /// When the system refuses.
    pub fn ttl(&self) -> io::Result<u32> {
        self.inner().ttl()
    }
}

impl Descriptor for net::TcpListener {}
socket_surface!(TcpListener, net::TcpListener);

fn accept_with_address(listener: &net::TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    let (fd, peer) = accept(listener)?;
    // A connection that was reset before it was accepted may have lost its address.
    Ok((fd, peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?))
}

/// Lets other sockets of this user listen on the same port. Only Linux distributes connections
/// between them.
fn share_port(socket: &socket2::Socket) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket.set_reuse_port(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        Err(io::ErrorKind::Unsupported.into())
    }
}

//! Unix datagrams, with the names, signatures and errors of [`std::os::unix::net`].

use std::io;
use std::net::Shutdown;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use socket2::SockAddr;

use super::socket::{Socket, receive_from};
use super::surface::{datagram_surface, socket_surface, timeout_surface};
use super::unix::{name, to_address};
use crate::io::source::Descriptor;

/// A Unix socket for datagrams: [`std::os::unix::net::UnixDatagram`], whose calls park only their
/// own coroutine.
///
/// No datagram is lost on its way or comes out of order: a sender waits while the receiver's queue
/// is full. As with std, the file that gives a socket its name stays when the socket is dropped.
///
/// # Cancellation
///
/// A call that is cancelled has moved nothing: it unwinds only while it waits.
///
/// ```
/// use plainsong::net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let (one, two) = UnixDatagram::pair()?;
///     plainsong::spawn(move || two.send(b"hello"));
///     let mut buf = [0; 64];
///     assert_eq!(one.recv(&mut buf)?, 5);
///     Ok(())
/// })
/// # }
/// ```
pub struct UnixDatagram(Socket<net::UnixDatagram>);

impl UnixDatagram {
    /// A socket of this name in the file system.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when a file of that name is there, `InvalidInput` for a path that is too
    /// long for a socket, and those of the system, naming the path.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::bind_addr(&to_address("bind to", path.as_ref())?)
    }

    /// A socket of this address: [`bind`](Self::bind), also for names that are not in the file
    /// system.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        let socket = net::UnixDatagram::bind_addr(socket_addr);
        Self::prepare(socket.map_err(|error| name("bind to", socket_addr, error))?)
    }

    /// A socket without a name: it can receive only if it is connected.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub fn unbound() -> io::Result<Self> {
        Self::prepare(net::UnixDatagram::unbound()?)
    }

    /// Two sockets that are connected with each other.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, two) = net::UnixDatagram::pair()?;
        Ok((Self::prepare(one)?, Self::prepare(two)?))
    }

    fn prepare(socket: net::UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Socket::new(socket)))
    }

    /// Sends to, and receives from, only the socket of this name. Can be called again.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a path that is too long for a socket, and those of the system, naming the
    /// path.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.connect_addr(&to_address("connect to", path.as_ref())?)
    }

    /// Sends to, and receives from, only this address.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        let connected = self.inner().connect_addr(socket_addr);
        connected.map_err(|error| name("connect to", socket_addr, error))
    }

    /// Receives a datagram; returns its length and its sender. Bytes that do not fit into `buf` are
    /// dropped.
    ///
    /// # Errors
    ///
    /// Those of the system; `WouldBlock` after the read time-out.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no datagram is lost.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.retry_unless_shut(|socket| socket.recv_from(buf), nothing)
    }

    /// [`recv_from`](Self::recv_from), which leaves the datagram in the queue.
    ///
    /// # Errors
    ///
    /// Those of the system; `WouldBlock` after the read time-out.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let peek = |socket: &_| {
            let (len, peer) = receive_from(socket, buf, libc::MSG_PEEK)?;
            Ok((len, from_system(&peer)?))
        };
        self.0.retry_unless_shut(peek, nothing)
    }

    /// Sends a datagram to the socket of this name. Waits while that socket's queue is full.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a path that is too long for a socket; those of the system;
    /// `WouldBlock` after the write time-out.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; nothing has been sent.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &to_address("send to", path.as_ref())?)
    }

    /// Sends a datagram to this address. Waits while the receiver's queue is full.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to).
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; nothing has been sent.
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        // Events report room in the queue only if the socket is connected to the receiver.
        self.0.retry_unannounced(|socket| socket.send_to_addr(buf, socket_addr))
    }

    /// Ends one or both directions. Waiting receivers get an empty datagram.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner().shutdown(how)
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    ///
    /// `NotConnected` when it is not.
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
}

impl Descriptor for net::UnixDatagram {}
socket_surface!(UnixDatagram, net::UnixDatagram);
timeout_surface!(UnixDatagram);
datagram_surface!(UnixDatagram, recv_unless_shut, try_recv_unless_shut);

/// The result of a receive after the shutdown: no bytes, without a sender.
fn nothing() -> io::Result<(usize, SocketAddr)> {
    Ok((0, SocketAddr::from_pathname("")?))
}

/// std's form of the system's address of a sender.
fn from_system(address: &SockAddr) -> io::Result<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = address.as_abstract_namespace() {
        return SocketAddr::from_abstract_name(name);
    }
    // A path may be a byte longer than std can write.
    let readable = address.len() as usize <= size_of::<libc::sockaddr_un>();
    let path = address.as_pathname().filter(|_| readable);
    SocketAddr::from_pathname(path.unwrap_or(Path::new("")))
}

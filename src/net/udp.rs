//! UDP, with the names, signatures and errors of [`std::net`].

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::addr::{ToSocketAddrs, name, try_each};
use super::socket::Socket;
use super::surface::{datagram_surface, socket_surface, timeout_surface};
use crate::engine::error::explained;
use crate::engine::reactor::Interest;
use crate::io::source::Descriptor;

/// A UDP socket: [`std::net::UdpSocket`], whose calls park only their own coroutine.
///
/// Several coroutines and threads may use a socket at once; each datagram goes to one receiver.
/// Clones share the descriptor, the time-outs and the mode.
///
/// # Cancellation
///
/// A call that is cancelled has moved nothing: it unwinds only while it waits.
///
/// ```
/// use plainsong::net::UdpSocket;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(server.local_addr()?)?;
///     plainsong::spawn(move || {
///         let mut buf = [0; 1500];
///         let (len, peer) = server.recv_from(&mut buf)?;
///         server.send_to(&buf[..len], peer)
///     });
///     client.send(b"hello")?;
///     let mut buf = [0; 1500];
///     assert_eq!(client.recv(&mut buf)?, 5);
///     Ok(())
/// })
/// # }
/// ```
pub struct UdpSocket(Socket<net::UdpSocket>);

impl UdpSocket {
    /// Binds a socket to the first of the addresses that is available; port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// That of the last address, which it names; those of [`ToSocketAddrs`].
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it looks up a name.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        try_each(addr, |address| {
            let socket = net::UdpSocket::bind(address);
            let socket = socket.map_err(|error| name("bind to", address, error))?;
            socket.set_nonblocking(true)?;
            Ok(Self(Socket::new(socket)))
        })
    }

    /// Connects to the first of the addresses that works: the socket then sends to, and receives
    /// from, only that.
    ///
    /// # Errors
    ///
    /// That of the last address, which it names; those of [`ToSocketAddrs`].
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it looks up a name.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        try_each(addr, |address| {
            self.inner().connect(address).map_err(|error| name("connect to", address, error))
        })
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
        self.0.retry(Interest::Read, |socket| socket.recv_from(buf))
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
        self.0.retry(Interest::Read, |socket| socket.peek_from(buf))
    }

    /// Sends a datagram to the first of the addresses.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when there is no address; those of [`ToSocketAddrs`] and of the system;
    /// `WouldBlock` after the write time-out.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; nothing has been sent.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(address) = addr.to_socket_addrs()?.next() else {
            let error = "there is no address to send the datagram to";
            return Err(explained(io::ErrorKind::InvalidInput, error));
        };
        self.0.retry(Interest::Write, |socket| socket.send_to(buf, address))
    }

    /// Receives a datagram that is there, and the address of its sender. Waits for none.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when none is there; those of the system.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.try_once(Interest::Read, |socket| socket.recv_from(buf))
    }

    /// Sends a datagram to `target`, and waits for nothing.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room; those of the system.
    pub fn try_send_to(&self, buf: &[u8], target: SocketAddr) -> io::Result<usize> {
        self.0.try_once(Interest::Write, |socket| socket.send_to(buf, target))
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

/// Options: each is read and set as with std.
macro_rules! options {
    ($($(#[$doc:meta])* $get:ident, $set:ident: $type:ty;)*) => {
        impl UdpSocket {$(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// When the system refuses.
            pub fn $set(&self, value: $type) -> io::Result<()> {
                self.inner().$set(value)
            }

            #[doc = concat!("What [`", stringify!($set), "`](Self::", stringify!($set), ") sets.")]
            ///
            /// # Errors
            ///
            /// When the system refuses.
            pub fn $get(&self) -> io::Result<$type> {
                self.inner().$get()
            }
        )*}
    };
}

options! {
    /// Sets whether it may send to a broadcast address (`SO_BROADCAST`).
    broadcast, set_broadcast: bool;
    /// Sets how many routers a packet may cross (`IP_TTL`).
    ttl, set_ttl: u32;
    /// Sets whether IPv4 multicast comes back to this host (`IP_MULTICAST_LOOP`).
    multicast_loop_v4, set_multicast_loop_v4: bool;
    /// Sets how many routers an IPv4 multicast packet may cross (`IP_MULTICAST_TTL`).
    multicast_ttl_v4, set_multicast_ttl_v4: u32;
    /// Sets whether IPv6 multicast comes back to this host (`IPV6_MULTICAST_LOOP`).
    multicast_loop_v6, set_multicast_loop_v6: bool;
}

/// Groups: joined and left as with std.
macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident($group:ty, $interface:ty);)*) => {
        impl UdpSocket {$(
            $(#[$doc])*
            ///
            /// # Errors
            ///
            /// When the system refuses.
            pub fn $name(&self, group: $group, interface: $interface) -> io::Result<()> {
                self.inner().$name(group, interface)
            }
        )*}
    };
}

groups! {
    /// Receives what is sent to an IPv4 group, on the interface that has this address; on one that
    /// the system chooses, if it is unspecified.
    join_multicast_v4(&Ipv4Addr, &Ipv4Addr);
    /// Receives what is sent to an IPv6 group, on the interface of this number; 0 is any.
    join_multicast_v6(&Ipv6Addr, u32);
    /// Ends [`join_multicast_v4`](Self::join_multicast_v4).
    leave_multicast_v4(&Ipv4Addr, &Ipv4Addr);
    /// Ends [`join_multicast_v6`](Self::join_multicast_v6).
    leave_multicast_v6(&Ipv6Addr, u32);
}

impl Descriptor for net::UdpSocket {}
socket_surface!(UdpSocket, net::UdpSocket);
timeout_surface!(UdpSocket);
datagram_surface!(UdpSocket, recv, try_recv);

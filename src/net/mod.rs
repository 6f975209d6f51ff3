//! Sockets under std's names: the calls look blocking and park only their own coroutine.
//!
//! On a plain thread the same calls block that thread. Coroutines and threads may share a socket
//! and use it at once.
//!
//! An error of `bind` or `connect` is the system's in other words, with the address and advice. Its
//! [`kind`](std::io::Error::kind) is the same, and its [`source`](std::error::Error::source) is the
//! system's own error, which has the number. A time-out fails with the system's `WouldBlock`, as
//! with std.

mod accept;
mod addr;
mod listener;
mod log;
mod serve;
mod socket;
mod surface;
mod tcp;
mod udp;
mod unix;
mod unix_datagram;
mod workers;

pub use addr::ToSocketAddrs;
pub use listener::Listener;
pub use serve::{Outcome, Server, ServerCounters, serve};
pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;

/// The connections of a listener, one after the other; made by [`TcpListener::incoming`] and
/// [`UnixListener::incoming`].
pub type Incoming<'a, L = TcpListener> = listener::Incoming<'a, L>;

//! Sockets under std's names: the calls look blocking and park only their own coroutine.
//!
//! On a plain thread the same calls block that thread. Coroutines and threads may share a socket and
//! use it at once.

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
pub use listener::{Incoming, Listener};
pub use serve::{Outcome, Server, ServerCounters, serve};
pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;

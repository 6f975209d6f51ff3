//! Sockets under std's names: the calls look blocking and park only their own coroutine.
//!
//! On a plain thread the same calls block that thread. A socket may be used from any coroutine or thread,
//! and by several at once.

mod addr;
mod serve;
mod tcp;

pub use addr::ToSocketAddrs;
pub use serve::{Outcome, Server, serve};
pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};
pub use tcp::{Incoming, TcpListener, TcpStream};

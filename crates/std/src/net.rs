//! [`std::net`](mod@::std::net): sockets park the coroutine that waits.

pub use ::plainsong::net::{Incoming, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
pub use ::std::net::*;

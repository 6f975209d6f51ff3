//! Sockets and servers: a file per type.

mod addr;
mod serve;
mod serve_workers;
mod server;
mod tcp;
mod tcp_listener;
mod threads;
mod udp;
mod unix;
mod unix_datagram;

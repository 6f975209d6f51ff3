//! Sockets and servers: a file per type.

mod addr;
mod as_std;
mod serve;
mod serve_workers;
mod server;
mod server_trouble;
mod tcp;
mod tcp_listener;
mod threads;
mod udp;
mod unix;
mod unix_datagram;

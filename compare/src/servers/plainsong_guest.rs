//! The server of `plainsong.rs`, on a thread that also runs tokio.

use std::io;
use std::net::SocketAddr;

/// Serves each client in a coroutine; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    plainsong_tokio::run(|| super::plainsong::listen(address))?
}

//! Stackful coroutines on plainsong: sequential code, on one thread.

use std::io;
use std::net::SocketAddr;

use plainsong::net::TcpStream;

/// Serves each client in a coroutine; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    plainsong::run(|| listen(address))
}

pub(super) fn listen(address: SocketAddr) -> io::Result<()> {
    plainsong::net::serve(address, |conn| {
        if let Err(error) = echo(conn) {
            super::report(&error);
        }
    })
}

fn echo(conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    // std's `io::copy` works as well. This one needs no buffer while it waits for a client.
    plainsong::io::copy(&mut &conn, &mut &conn).map(drop)
}

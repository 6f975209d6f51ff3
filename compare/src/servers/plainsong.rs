//! Stackful coroutines on plainsong: sequential code, on one thread.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use plainsong::net::TcpStream;

/// Serves each client in a coroutine; all of them on this thread.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    plainsong::run(|| {
        plainsong::net::serve(address, |conn| {
            if let Err(error) = echo(conn) {
                super::report(&error);
            }
        })
    })
}

fn echo(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buffer = [0; super::BUFFER_BYTES];
    loop {
        match conn.read(&mut buffer)? {
            0 => return Ok(()),
            n => conn.write_all(&buffer[..n])?,
        }
    }
}

//! Sequential: the simplest echo server. It serves one client at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Serves clients one after the other.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    for conn in TcpListener::bind(address)?.incoming() {
        if let Err(error) = echo(conn?) {
            super::report(&error);
        }
    }
    Ok(())
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

//! Thread per connection: sequential code, and the kernel does the scheduling.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Serves each client in a thread of its own.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    for conn in TcpListener::bind(address)?.incoming() {
        let conn = conn?;
        thread::spawn(move || {
            if let Err(error) = echo(conn) {
                super::report(&error);
            }
        });
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

//! Stackful coroutines on `may`, as in its README: one worker for each core, and the buffer on the
//! heap because a stack has 32 KiB.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use may::go;
use may::net::{TcpListener, TcpStream};

/// Serves each client in a coroutine.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    may::config().set_workers(std::thread::available_parallelism()?.get());
    let listener = TcpListener::bind(address)?;
    for conn in listener.incoming() {
        let conn = conn?;
        go!(move || {
            if let Err(error) = echo(conn) {
                super::report(&error);
            }
        });
    }
    Ok(())
}

fn echo(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buffer = vec![0; super::BUFFER_BYTES];
    loop {
        match conn.read(&mut buffer)? {
            0 => return Ok(()),
            n => conn.write_all(&buffer[..n])?,
        }
    }
}

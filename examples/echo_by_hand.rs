//! The echo server again, with each step written out: listen, accept, spawn, read, write.
//!
//! Each call looks blocking and parks only its own coroutine.
//!
//! ```text
//! cargo run --release --example echo_by_hand [ADDR]
//! nc 127.0.0.1 4915
//! ```

use std::io::{self, Read, Write};

use plainsong::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            // `serve` would pause and go on after an error, such as too many open descriptors.
            let (conn, _peer) = listener.accept()?;
            // The handle is dropped: nobody waits for this coroutine, and an error ends only it.
            plainsong::spawn(move || echo(conn));
        }
    })
}

fn echo(mut conn: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        let n = conn.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        conn.write_all(&buffer[..n])?;
    }
}

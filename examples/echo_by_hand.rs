//! The echo server again, with each step written out: listen, accept, spawn, read, write.
//!
//! Each call looks blocking and parks only its own coroutine.
//!
//! ```text
//! cargo run --release --example echo_by_hand [ADDR]
//! nc 127.0.0.1 4915
//! ```

mod args;

use std::io::{self, Read, Write};

use plainsong::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            // An error ends this server. `serve` would survive it: when descriptors run out, for
            // example, it pauses and goes on.
            let (conn, _peer) = listener.accept()?;
            // No other coroutine joins this one, so its handle is dropped. An error ends it alone.
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

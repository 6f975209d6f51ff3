//! The echo server: one coroutine for each connection, and each is an ordinary blocking loop.
//!
//! ```text
//! cargo run --release --example echo [ADDR]
//! nc 127.0.0.1 4915
//! ```

mod args;

use plainsong::net::TcpListener;

fn main() -> std::io::Result<()> {
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(|conn| std::io::copy(&mut &conn, &mut &conn))
    })
}

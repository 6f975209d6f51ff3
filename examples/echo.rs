//! The echo server: one coroutine a connection, each an ordinary blocking loop.
//!
//! ```text
//! cargo run --release --example echo [ADDR]
//! nc 127.0.0.1 4915
//! ```

use plainsong::net::TcpListener;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(|conn| std::io::copy(&mut &conn, &mut &conn))
    })
}

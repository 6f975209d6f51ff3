//! The echo server on all processors, with a scheduler and a listener for each.
//!
//! `cargo run --release --example many_cores [ADDR]`

use std::{env, io, thread};

use plainsong::Runtime;
use plainsong::net::{Server, TcpListener};

fn main() -> io::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".into());
    let runtime = Runtime::builder().workers(thread::available_parallelism()?.get()).build()?;
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    Server::new(listener).serve_on(&runtime, || {
        // Called once on each worker. What it returns is for that worker's connections, which stay
        // there: it may hold an `Rc` or whatever else is not `Send`.
        |conn| io::copy(&mut &conn, &mut &conn)
    })
}

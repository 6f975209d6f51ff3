//! The echo server on all processors: each has a scheduler and a listener of its own.
//!
//! ```text
//! cargo run --release --example many_cores [ADDR]
//! nc 127.0.0.1 4915
//! ```

mod args;

use std::{io, thread};

use plainsong::Runtime;
use plainsong::net::{Server, TcpListener};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(args::address())?;
    let runtime = Runtime::builder().workers(thread::available_parallelism()?.get()).build()?;
    println!("listening on {}", listener.local_addr()?);
    Server::new(listener).serve_on(&runtime, || {
        // Runs once on each worker and returns the handler for that worker's connections. They
        // never leave the worker, so the handler may hold an `Rc` or anything else that is not
        // `Send`.
        |conn| io::copy(&mut &conn, &mut &conn)
    })
}

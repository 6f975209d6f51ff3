//! A TCP proxy: a client that connects to LISTEN talks to TARGET. Each direction ends by itself, so
//! a client can end its request and still read the answer, and a server can answer before the
//! request has ended. A reset on one side becomes a reset on the other.
//!
//! ```text
//! cargo run --release --example proxy LISTEN TARGET
//! cargo run --release --example proxy 127.0.0.1:8080 example.org:80
//! curl -H 'Host: example.org' http://127.0.0.1:8080/
//! ```

mod args;

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream, ToSocketAddrs};

fn main() -> io::Result<()> {
    let [listen, target] =
        args::exactly("LISTEN TARGET, such as: proxy 127.0.0.1:4915 example.org:80");
    plainsong::run(|| {
        let target: Vec<SocketAddr> = target.to_socket_addrs()?.collect();
        let listener = TcpListener::bind(listen)?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(move |client| {
            // A close that lingers for no time is a reset: so ends what does not end in order.
            client.set_linger(Some(Duration::ZERO))?;
            let server = TcpStream::connect(&target[..])?;
            server.set_linger(Some(Duration::ZERO))?;
            relay(&client, &server)
        })
    })
}

fn relay(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let failed = Cell::new(false);
    plainsong::scope(|s| {
        s.spawn(|| pipe(client, server, &failed));
        pipe(server, client, &failed);
    });
    if !failed.get() {
        client.set_linger(None)?;
        server.set_linger(None)?;
    }
    Ok(())
}

/// Copies one direction to its end, and passes the end on.
fn pipe(mut from: &TcpStream, mut to: &TcpStream, failed: &Cell<bool>) {
    let copied = io::copy(&mut from, &mut to);
    if copied.is_err() {
        failed.set(true);
        // If `from` has failed, the other direction has no reader any more and must stop. If `to`
        // has failed, that direction still gets what was received before, and then ends by itself.
        // Shutting down a connection that has failed is an error that changes nothing.
        let _ = to.shutdown(Shutdown::Read);
    } else if !failed.get() {
        // After a failure, this end is not one that the peer has meant: it must not look complete.
        let _ = to.shutdown(Shutdown::Write);
    }
}

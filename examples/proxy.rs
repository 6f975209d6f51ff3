//! A TCP proxy: whoever connects to LISTEN talks to TARGET. Each direction ends by itself, as the
//! two ends may: a client can say that it has sent everything and still read the answer.
//!
//! ```text
//! cargo run --release --example proxy LISTEN TARGET
//! cargo run --release --example proxy 127.0.0.1:8080 example.org:80
//! curl -H 'Host: example.org' http://127.0.0.1:8080/
//! ```

use std::io::{self, Error, ErrorKind};
use std::net::Shutdown;

use plainsong::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target] = args.try_into().map_err(|_| {
        let usage = "usage: proxy LISTEN TARGET, such as proxy 127.0.0.1:4915 example.org:80";
        Error::new(ErrorKind::InvalidInput, usage)
    })?;
    plainsong::run(|| {
        let listener = TcpListener::bind(listen)?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(move |client| relay(&client, &TcpStream::connect(target.as_str())?))
    })
}

fn relay(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    plainsong::scope(|s| {
        s.spawn(|| pipe(client, server));
        pipe(server, client)
    })
}

/// Copies one direction to its end, and passes the end on. An error ends both directions.
fn pipe(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    if copied.is_err() {
        // They may have ended already.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
    copied.and_then(|_| to.shutdown(Shutdown::Write))
}

//! An echo server that can be replaced while it runs, and no connection is lost: it serves on a
//! listener that its parent (systemd, systemfd, a supervisor of your own) has opened and keeps open.
//! Started by hand, it opens one itself.
//!
//! The parent starts the next server before it sends SIGTERM to this one. Both accept from the same
//! listener for a while; then this one finishes what it has and exits.
//!
//! ```text
//! cargo run --release --example activated [ADDR]
//! systemd-socket-activate -l 127.0.0.1:4915 target/release/examples/activated
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use listenfd::ListenFd;
use plainsong::CancellationToken;
use plainsong::net::{Server, TcpListener, TcpStream};
use plainsong::signal::{SIGINT, SIGTERM, Signals};

/// A longer line is answered in pieces.
const LINE_MAX: u64 = 4096;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    // The parent may pass several, with names: ours is `echo`, or else the first.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let ours = names.split(':').position(|name| name == "echo").unwrap_or(0);
    let inherited = ListenFd::from_env().take_tcp_listener(ours)?;
    plainsong::run(|| {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let listener = match inherited {
            Some(listener) => TcpListener::from(listener),
            None => TcpListener::bind(address)?,
        };
        println!("listening on {}", listener.local_addr()?);

        let stop = CancellationToken::new();
        let stopper = stop.clone();
        plainsong::spawn(move || {
            let signal = signals.wait();
            stopper.cancel();
            signal
        });
        Server::new(listener)
            .stop_with(&stop)
            .grace(Duration::from_secs(10))
            .serve(|conn| echo_lines(&conn))?;
        println!("stopped");
        Ok(())
    })
}

fn echo_lines(mut conn: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(conn);
    let mut line = Vec::new();
    while lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? > 0 {
        conn.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

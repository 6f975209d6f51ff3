//! An echo server that can be replaced while it runs, without losing a connection. It serves on a
//! listener that its parent (systemd, systemfd, a supervisor of your own) has opened and keeps
//! open. Started by hand, it opens a listener itself.
//!
//! The parent starts the next server before it sends SIGTERM to this one. Both accept from the same
//! listener for a while; then this one finishes its connections and exits. A second SIGTERM or
//! Ctrl-C ends it at once.
//!
//! ```text
//! cargo run --release --example activated [ADDR]
//! systemd-socket-activate -l 127.0.0.1:4915 target/release/examples/activated
//! nc 127.0.0.1 4915
//! ```

mod args;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use listenfd::ListenFd;
use plainsong::io::stdout;
use plainsong::net::{Server, TcpListener, TcpStream};
use plainsong::signal::{SIGINT, SIGTERM, cancel_on};

/// A longer line is echoed in pieces.
const LINE_MAX: u64 = 4096;

fn main() -> io::Result<()> {
    let address = args::address();
    // The parent may pass several listeners, with names. Ours is called `echo`, or is the first.
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let ours = names.split(':').position(|name| name == "echo").unwrap_or(0);
    let inherited = ListenFd::from_env().take_tcp_listener(ours)?;
    plainsong::run(|| {
        let stop = cancel_on(&[SIGINT, SIGTERM])?;
        let listener = match inherited {
            Some(listener) => TcpListener::from(listener),
            None => TcpListener::bind(address)?,
        };
        // The server works also without a reader of its output.
        let _ = writeln!(stdout(), "listening on {}", listener.local_addr()?);
        Server::new(listener)
            .stop_with(&stop)
            .grace(Duration::from_secs(10))
            .serve(|conn| echo_lines(&conn))?;
        let _ = writeln!(stdout(), "stopped");
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

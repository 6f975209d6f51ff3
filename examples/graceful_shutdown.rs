//! An echo server that stops in order. On Ctrl-C or SIGTERM it accepts no more connections, answers
//! what its clients have sent, and exits. After ten seconds it cuts off the clients that still
//! send. A second Ctrl-C or SIGTERM ends it at once.
//!
//! ```text
//! cargo run --release --example graceful_shutdown [ADDR]
//! nc 127.0.0.1 4915
//! kill -TERM PID
//! ```

mod args;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use plainsong::CancellationToken;
use plainsong::io::stdout;
use plainsong::net::{Server, TcpListener, TcpStream};
use plainsong::signal::{SIGINT, SIGTERM, cancel_on};
use plainsong::time::timeout;

/// A longer line is echoed in pieces.
const LINE_MAX: u64 = 4096;
/// How long a client may take for one more request once the server stops.
const LAST_CALL: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let stop = cancel_on(&[SIGINT, SIGTERM])?;
        let listener = TcpListener::bind(args::address())?;
        // The server works also without a reader of its output.
        let _ = writeln!(stdout(), "listening on {}", listener.local_addr()?);
        let stopping = stop.clone();
        plainsong::spawn(move || {
            stopping.cancelled();
            writeln!(stdout(), "stopping: no more connections, the last requests are answered")
        });

        let stopping = stop.clone();
        Server::new(listener)
            .stop_with(&stop)
            .grace(Duration::from_secs(10))
            .serve(move |conn| echo_lines(&conn, &stopping))?;
        let _ = writeln!(stdout(), "stopped");
        Ok(())
    })
}

/// Echoes each line. When the server stops, this echoes what has been sent and then closes.
fn echo_lines(mut conn: &TcpStream, stopping: &CancellationToken) -> io::Result<()> {
    let mut lines = BufReader::new(conn);
    loop {
        // A stop shortens the wait for the next request, but never the wait for the rest of one.
        let mut has_more = || lines.fill_buf().map(|data| !data.is_empty());
        let more = stopping
            .run_until_cancelled(&mut has_more)
            .or_else(|| timeout(LAST_CALL, has_more).ok());
        if !more.unwrap_or(Ok(false))? {
            return Ok(());
        }
        let mut line = Vec::new();
        lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        conn.write_all(&line)?;
    }
}

//! An echo server that stops well: on Ctrl-C or SIGTERM it accepts no more, serves those who
//! are connected to the end of what they have sent, and only then exits. Who goes on talking is cut off
//! after ten seconds.
//!
//! ```text
//! cargo run --release --example graceful_shutdown [ADDR]
//! nc 127.0.0.1 4915
//! kill -TERM PID
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use plainsong::CancellationToken;
use plainsong::net::{Server, TcpListener, TcpStream};
use plainsong::signal::{SIGINT, SIGTERM, Signals};
use plainsong::time::timeout;

/// A longer line is answered in pieces.
const LINE_MAX: u64 = 4096;
/// How long a client may take for one more request once the server stops.
const LAST_CALL: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let listener = TcpListener::bind(address)?;
        println!("listening on {}", listener.local_addr()?);

        let stop = CancellationToken::new();
        let stopper = stop.clone();
        plainsong::spawn(move || {
            let signal = signals.wait();
            println!("stopping: no more connections, the last requests are served");
            stopper.cancel();
            signal
        });

        let stopping = stop.clone();
        Server::new(listener)
            .stop_with(&stop)
            .grace(Duration::from_secs(10))
            .serve(move |conn| echo_lines(&conn, &stopping))?;
        println!("stopped");
        Ok(())
    })
}

/// Answers each line with itself. When the server stops, this answers what has been sent, and lets
/// the client go.
fn echo_lines(mut conn: &TcpStream, stopping: &CancellationToken) -> io::Result<()> {
    let mut lines = BufReader::new(conn);
    loop {
        // The stop cuts a wait for the next request short, never one for the rest of it.
        let mut is_more = || lines.fill_buf().map(|data| !data.is_empty());
        let is_more =
            stopping.run_until_cancelled(&mut is_more).or_else(|| timeout(LAST_CALL, is_more).ok());
        if !is_more.unwrap_or(Ok(false))? {
            return Ok(());
        }
        let mut line = Vec::new();
        lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        conn.write_all(&line)?;
    }
}

//! Fetches in parallel. Each fetch borrows from the main function: nothing is cloned, counted or
//! locked.
//!
//! Without arguments it asks three servers of its own, which take 0.2 s for an answer.
//!
//! ```text
//! cargo run --release --example scope [HOST:PORT...]
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use plainsong::io::stdout;
use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::sleep;

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    plainsong::run(|| {
        let servers = if arguments.is_empty() { own_servers()? } else { arguments };
        let request = &format!("GET / HTTP/1.0\r\nFrom: {}\r\n\r\n", std::process::id());
        let mut answers = Vec::new();

        let start = Instant::now();
        plainsong::scope(|s| {
            let fetches: Vec<_> = servers
                .iter()
                .map(|server| s.spawn(move || (server, fetch(server, request))))
                .collect();
            for fetch in fetches {
                answers.push(fetch.join().expect("a fetch panicked"));
            }
        });

        let took = start.elapsed().as_secs_f64();
        for (server, answer) in &answers {
            match answer {
                Ok(line) => writeln!(stdout(), "{server}: {line}")?,
                Err(error) => writeln!(stdout(), "{server}: failed: {error}")?,
            }
        }
        let answered = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
        let failed = answers.len() - answered;
        writeln!(stdout(), "{answered} answers in {took:.3} s, {failed} failed")?;
        Ok(if answered > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Returns the first line of the answer.
fn fetch(server: &str, request: &str) -> io::Result<String> {
    let mut conn = TcpStream::connect(server)?;
    conn.set_read_timeout(Some(Duration::from_secs(10)))?;
    conn.write_all(request.as_bytes())?;
    BufReader::new(conn).lines().next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()))
}

/// Starts three servers in this runtime, and returns their addresses.
fn own_servers() -> io::Result<Vec<String>> {
    let start = |_| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        plainsong::spawn(move || listener.serve(answer));
        Ok(address)
    };
    (0..3).map(start).collect()
}

fn answer(conn: TcpStream) -> io::Result<()> {
    let mut request = BufReader::new(&conn).lines();
    while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    sleep(Duration::from_millis(200));
    (&conn).write_all(b"HTTP/1.0 200 OK\r\n\r\n")
}

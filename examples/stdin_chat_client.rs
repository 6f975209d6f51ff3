//! A client for the chat: sends what you type and prints what the others say, both at once.
//!
//! ```text
//! cargo run --release --example chat &
//! cargo run --release --example stdin_chat_client [ADDR]
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;

use plainsong::io::{stderr, stdin, stdout};
use plainsong::net::TcpStream;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4915".to_owned());
    plainsong::run(|| {
        let conn = TcpStream::connect(address)?;
        let server = conn.try_clone()?;
        plainsong::spawn(move || {
            if let Err(error) = send_lines(&server) {
                let _ = writeln!(stderr(), "cannot send: {error}");
            }
        });
        for line in BufReader::new(conn).lines() {
            writeln!(stdout(), "{}", line?)?;
        }
        // The server has hung up. What waits for the keyboard is cancelled here.
        Ok(())
    })
}

fn send_lines(mut server: &TcpStream) -> io::Result<()> {
    for line in stdin().lines() {
        server.write_all(format!("{}\n", line?).as_bytes())?;
    }
    // The end of the input: the server answers with its own.
    server.shutdown(Shutdown::Write)
}

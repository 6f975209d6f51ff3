//! A client for the chat: it sends what you type and prints what the others say, both at once.
//!
//! ```text
//! cargo run --release --example chat &
//! cargo run --release --example stdin_chat_client [ADDR]
//! ```

mod args;

use std::io::{self, Write};
use std::net::Shutdown;

use plainsong::io::{stderr, stdin, stdout};
use plainsong::net::TcpStream;

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let conn = TcpStream::connect(args::address())?;
        let server = conn.try_clone()?;
        plainsong::spawn(move || {
            let sent = io::copy(&mut stdin(), &mut &server);
            // The server answers the end of the input with its own, so the client ends in any case.
            let ended = server.shutdown(Shutdown::Write);
            if let Err(error) = sent.and(ended) {
                let _ = writeln!(stderr(), "cannot send: {error}");
            }
        });
        // At the end, the coroutine that waits for the keyboard is cancelled.
        io::copy(&mut &conn, &mut stdout()).map(drop)
    })
}

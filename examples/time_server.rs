//! Sends the time to every client, once a second: a loop that writes and sleeps.
//!
//! ```text
//! cargo run --release --example time_server [ADDR]
//! nc 127.0.0.1 4915
//! ```

mod args;

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plainsong::net::{TcpListener, TcpStream};
use plainsong::thread;

fn main() -> io::Result<()> {
    plainsong::run(|| {
        let listener = TcpListener::bind(args::address())?;
        println!("listening on {}", listener.local_addr()?);
        listener.serve(send_the_time)
    })
}

/// Ends when the client has closed the connection, because the write fails then.
fn send_the_time(mut conn: TcpStream) -> io::Result<()> {
    loop {
        conn.write_all(format!("{}\r\n", time_of_day()).as_bytes())?;
        thread::sleep(Duration::from_secs(1));
    }
}

fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02} UTC")
}

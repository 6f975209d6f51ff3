//! Asks several servers the same question and takes the first answer. The other clients are
//! cancelled where they wait, and have cleaned up before the race ends.
//!
//! ```text
//! cargo run --release --example race
//! ```

mod args;

use std::io::{self, Read, Write};
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::task::race;
use plainsong::time::sleep;

fn main() -> io::Result<()> {
    args::none();
    plainsong::run(|| {
        let delays = [3_600_000, 20, 60_000];
        let servers: Vec<String> = delays.into_iter().map(start).collect::<io::Result<_>>()?;
        let ask = |server: &String| {
            let server = server.clone();
            move || ask(&server)
        };
        println!("the winner says: {}", race(servers.iter().map(ask))?);
        Ok(())
    })
}

/// Reads until the server closes the connection.
fn ask(server: &str) -> io::Result<String> {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            // Not `println!`: a panic in a destructor that unwinds would end the process.
            let _ = writeln!(io::stdout(), "a client has ended");
        }
    }
    let _ended = Ended;
    let mut answer = String::new();
    TcpStream::connect(server)?.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Starts a server that answers after `delay` milliseconds, and returns its address.
fn start(delay: u64) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    plainsong::spawn(move || {
        listener.serve(move |mut conn| {
            sleep(Duration::from_millis(delay));
            conn.write_all(format!("I took {delay} ms").as_bytes())
        })
    });
    Ok(address)
}

//! Three clients of an echo server at once. Each waits for one second in all, and so do the three
//! together.
//!
//! ```text
//! cargo run --release --example echo &
//! cargo run --release --example clients [ADDR]
//! ```

mod args;

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use plainsong::net::TcpStream;
use plainsong::thread;

fn main() -> io::Result<()> {
    let address = args::address();
    let start = Instant::now();
    plainsong::run(|| {
        let spawn = |id| {
            let address = address.clone();
            thread::spawn(move || client(id, &address, start))
        };
        let clients = [0, 1, 2].map(spawn);
        for client in clients {
            client.join().expect("a client panicked")?;
        }
        Ok(())
    })
}

fn client(id: usize, address: &str, start: Instant) -> io::Result<()> {
    let log = |what: &str| {
        let (seconds, indent) = (start.elapsed().as_secs_f64(), 4 * id);
        println!("[{seconds:09.6}] {:indent$}Client {id} {what}", "");
    };

    log("tries to connect.");
    let mut conn = TcpStream::connect(address)?;
    log("connects.");
    for text in ["Hello", "world!"] {
        thread::sleep(Duration::from_millis(500));
        log(&format!("sends {text:?}."));
        conn.write_all(text.as_bytes())?;

        let mut reply = vec![0; text.len()];
        conn.read_exact(&mut reply)?;
        log(&format!("receives {:?}.", String::from_utf8_lossy(&reply)));
    }
    drop(conn);
    log("disconnects.");
    Ok(())
}

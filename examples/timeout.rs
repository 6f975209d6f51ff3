//! Waits that take too long: a timeout unwinds each where it waits, and its destructors run.
//!
//! ```text
//! cargo run --release --example timeout
//! ```

mod args;

use std::io::{self, Read, Write};
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::{sleep, timeout};

struct CleanUp(&'static str);

impl Drop for CleanUp {
    fn drop(&mut self) {
        // Not `println!`: a panic in a destructor that unwinds would end the process.
        let _ = writeln!(io::stdout(), "  cleaning up after {}", self.0);
    }
}

fn main() -> io::Result<()> {
    args::none();
    plainsong::run(|| {
        println!("a short sleep: {:?}", timeout(Duration::from_secs(60), || work(10)));
        println!("a long sleep: {:?}", timeout(Duration::from_millis(50), || work(60_000)));

        // Any wait can be cut short, here a read from a server that never answers.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut conn = TcpStream::connect(listener.local_addr()?)?;
        match timeout(Duration::from_millis(50), || conn.read(&mut [0; 64])) {
            Ok(read) => println!("a read: {read:?}"),
            Err(elapsed) => println!("a read: {elapsed}"),
        }

        // Timeouts nest: each ends only what is inside of it.
        let outer = timeout(Duration::from_secs(60), || {
            let inner = timeout(Duration::from_millis(50), || work(60_000));
            println!("the inner one: {inner:?}");
            "done"
        });
        println!("the outer one: {outer:?}");
        Ok(())
    })
}

fn work(millis: u64) -> u64 {
    let _clean_up = CleanUp("a sleep");
    sleep(Duration::from_millis(millis));
    millis
}

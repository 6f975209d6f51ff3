//! Waits for things that take too long: a time-out ends them where they wait, and they clean up.
//!
//! ```text
//! cargo run --release --example timeout
//! ```

use std::io::{self, Read};
use std::time::Duration;

use plainsong::net::{TcpListener, TcpStream};
use plainsong::time::{sleep, timeout};

struct CleanUp(&'static str);

impl Drop for CleanUp {
    fn drop(&mut self) {
        println!("  cleaning up after {}", self.0);
    }
}

fn main() -> io::Result<()> {
    plainsong::run(|| {
        println!("a short sleep: {:?}", timeout(Duration::from_secs(60), || work(10)));
        println!("a long sleep: {:?}", timeout(Duration::from_millis(50), || work(60_000)));

        // Any code that waits will do, here a read from a server that never answers.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut conn = TcpStream::connect(listener.local_addr()?)?;
        match timeout(Duration::from_millis(50), || conn.read(&mut [0; 64])) {
            Ok(read) => println!("a read: {read:?}"),
            Err(elapsed) => println!("a read: {elapsed}"),
        }

        // They nest: each ends at its own.
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

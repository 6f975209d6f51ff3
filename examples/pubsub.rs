//! A publisher, and subscribers that all get each message. A slow subscriber learns how many
//! messages it has missed.
//!
//! ```text
//! cargo run --release --example pubsub
//! ```

mod args;

use plainsong::spawn;
use plainsong::sync::broadcast::{self, Receiver, RecvError};
use plainsong::sync::channel;
use plainsong::task::join_all;

fn main() {
    args::none();
    plainsong::run(|| {
        let (publisher, first) = broadcast::channel(4);
        let second = publisher.subscribe();
        let slow = publisher.subscribe();
        let (wake, sleeping) = channel::bounded::<()>(0);

        let readers = [
            spawn(move || read("first", first)),
            spawn(move || read("second", second)),
            spawn(move || {
                // It reads only after everything has been published.
                let _ = sleeping.recv();
                read("slow", slow)
            }),
        ];
        for number in 1..=10 {
            publisher.send(format!("message {number}")).expect("there are subscribers");
            plainsong::yield_now(); // lets the subscribers read
        }
        drop((publisher, wake));
        for report in join_all(readers) {
            println!("{}", report.expect("a reader does not panic"));
        }
    });
}

/// Reads until the publisher is dropped, and returns a report.
fn read(name: &str, mut messages: Receiver<String>) -> String {
    let (mut read, mut missed, mut last) = (0, 0, String::new());
    loop {
        match messages.recv() {
            Ok(message) => (read, last) = (read + 1, message),
            Err(RecvError::Lagged(lost)) => missed += lost,
            Err(RecvError::Closed) => {
                return format!("{name}: {read} read, {missed} missed, the last was {last}");
            }
        }
    }
}

//! crossbeam-channel, whose peers are other threads.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{after, bounded, never, select, unbounded};
use trial::{DELAY, expect};

fn main() {
    // Nothing is cancelled: an unwind out of the middle of `select!` ends the process.
    trial::uncancelled_client("crossbeam-channel", 1000, move |middle| {
        // With capacity zero, `select!` spins, and so keeps the other side from running.
        let (sender, numbers) = bounded(1);
        let (stop, stopped) = unbounded::<()>();
        let producer = thread::spawn(move || {
            let mut sent = 0;
            loop {
                select! {
                    send(sender, sent) -> outcome => match outcome {
                        Ok(()) => sent += 1,
                        Err(_) => return sent,
                    },
                    recv(stopped) -> _ => return sent,
                }
            }
        });
        let mut received = 0;
        let late = after(DELAY);
        loop {
            select! {
                recv(numbers) -> number => {
                    expect(number?, received)?;
                    received += 1;
                    select! {
                        recv(late) -> _ => break,
                        default(Duration::from_millis(10)) => {}
                    }
                }
                recv(never::<()>()) -> _ => return Err("never".into()),
            }
        }
        middle();
        drop(stop);
        let sent = producer.join().map_err(|_| "the producer panicked")?;
        expect(sent >= received, true)
    });
}

//! crossbeam-channel, whose peers are other threads.

use std::plainsong::time::{Elapsed, timeout};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use trial::{DELAY, Middle, Outcome, expect};

const MOMENT: Duration = Duration::from_millis(1);

fn main() {
    trial::client("crossbeam-channel", 1000, |middle| {
        // With room and without, by `select!` and by plain calls.
        for (capacity, selects) in [(1, true), (1, false), (0, true), (0, false)] {
            operation(middle, bounded(capacity), selects)?;
        }
        Ok(())
    });
}

fn operation(middle: Middle, channel: (Sender<u32>, Receiver<u32>), selects: bool) -> Outcome {
    let (sender, numbers) = channel;
    let (stop, stopped) = unbounded::<()>();
    // One side selects, and the other does if `selects` is set, so that each meets each.
    let producer = thread::spawn(move || produce(&sender, &stopped, true));
    let (replies, answers) = bounded(0);
    let copier = thread::spawn(move || {
        let mut copied = 0;
        while let Ok(number) = receive(&numbers, selects) {
            if send(&replies, &never(), number, selects).is_none() {
                break;
            }
            copied += 1;
        }
        copied
    });
    let mut received = 0;
    let late = after(DELAY / 4);
    loop {
        // The time is up in the middle of it. The end waits until the call has returned, so no
        // number is lost.
        expect(timeout(MOMENT, || receive(&answers, true)), Ok(Ok(received)))?;
        received += 1;
        select! {
            recv(late) -> _ => break,
            default(2 * MOMENT) => {}
        }
    }
    middle();
    drop((stop, answers));
    let sent = producer.join().map_err(|_| "the producer panicked")?;
    let copied = copier.join().map_err(|_| "the copier panicked")?;
    expect(sent >= copied && copied >= received, true)
}

fn produce(sender: &Sender<u32>, stopped: &Receiver<()>, selects: bool) -> u32 {
    let mut sent = 0;
    while send(sender, stopped, sent, selects).is_some() {
        thread::sleep(2 * MOMENT);
        sent += 1;
    }
    sent
}

/// `None` when the other side is gone, or `stopped` is disconnected.
fn send(sender: &Sender<u32>, stopped: &Receiver<()>, number: u32, selects: bool) -> Option<()> {
    if !selects {
        return sender.send(number).ok();
    }
    let sent: Result<_, Elapsed> = timeout(MOMENT, || {
        select! {
            send(sender, number) -> outcome => outcome.ok(),
            recv(stopped) -> _ => None,
        }
    });
    sent.expect("the end of the time waits")
}

fn receive(numbers: &Receiver<u32>, selects: bool) -> Result<u32, crossbeam_channel::RecvError> {
    if !selects {
        return numbers.recv();
    }
    select! {
        recv(numbers) -> number => number,
        recv(never::<()>()) -> _ => unreachable!(),
    }
}

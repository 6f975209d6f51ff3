//! Two producers and three slower consumers. The queue has room for four items, so the producers
//! wait for the consumers. At the end, one `None` for each consumer says that there is no more.
//!
//! ```text
//! cargo run --release --example producer_consumer
//! ```

mod args;

use std::time::Duration;

use plainsong::sync::{Mutex, Queue};
use plainsong::time::sleep;

const PRODUCERS: u32 = 2;
const CONSUMERS: u32 = 3;
const EACH: u32 = 9;

fn main() {
    args::none();
    let queue = Queue::fifo(Some(4));
    let done = Mutex::new(Vec::new());
    plainsong::run(|| {
        plainsong::scope(|s| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let queue = &queue;
                    s.spawn(move || {
                        for n in 0..EACH {
                            // Waits while the queue is full.
                            queue.put(Some(producer * EACH + n)).unwrap();
                        }
                    })
                })
                .collect();
            for _ in 0..CONSUMERS {
                s.spawn(|| {
                    while let Ok(Some(item)) = queue.get() {
                        sleep(Duration::from_millis(2));
                        done.lock().unwrap().push(item);
                        queue.task_done();
                    }
                });
            }
            producers.into_iter().for_each(|producer| producer.join().unwrap());
            queue.join();
            println!("everything is done");
            (0..CONSUMERS).for_each(|_| queue.put(None).unwrap());
        });
    });
    let mut done = done.into_inner().unwrap();
    done.sort_unstable();
    assert!(done.iter().copied().eq(0..PRODUCERS * EACH));
    println!("{} things, each consumed once", done.len());
}

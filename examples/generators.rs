//! Generators: a producer, a consumer, and tasks that take turns.
//!
//! ```text
//! cargo run --release --example generators
//! ```

mod args;

use plainsong::generator::Generator;
use plainsong::thread;

fn main() {
    args::none();
    plainsong::run(|| {
        let numbers: Vec<_> = fib().take(12).collect();
        println!("fib: {numbers:?}");

        let mut grep = grep("song");
        for line in ["a plain line", "a plain song", "and a songbird"] {
            grep.send(line);
        }
        grep.close();

        take_turns();
    });
}

/// A producer yields one value after the other, and is an iterator.
fn fib() -> Generator<u64> {
    Generator::new(|out| {
        let (mut a, mut b) = (0, 1);
        loop {
            out.yield_(a);
            (a, b) = (b, a + b);
        }
    })
}

/// A consumer receives one value after the other, until it is closed.
fn grep(pattern: &'static str) -> Generator<(), &'static str> {
    Generator::<(), &str>::new(move |lines| {
        println!("grep: looks for {pattern:?}");
        while let Some(line) = lines.receive() {
            if line.contains(pattern) {
                println!("grep: {line}");
            }
        }
        println!("grep: done");
    })
}

/// Coroutines take turns wherever they wait. `yield_now` waits only for its next turn.
fn take_turns() {
    let task = |(name, count)| {
        thread::spawn(move || {
            for left in (1..=count).rev() {
                println!("task {name}: {left}");
                thread::yield_now();
            }
        })
    };
    let tasks = [("a", 3), ("b", 1), ("c", 2)].map(task);
    for task in tasks {
        task.join().expect("a task panicked");
    }
}

//! A program to look at with gdb: docs/debugging.md shows what is seen.
//!
//! ```text
//! cargo run --example debugger
//! ```

mod args;

use std::hint;
use std::io::{self, Write};
use std::time::Duration;

use plainsong::sync::channel::{self, Sender};
use plainsong::time::sleep;
use plainsong::{Builder, JoinHandle, run, stack, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

fn main() -> io::Result<()> {
    args::none();
    // Before the first run, so that a core file has the coroutines' stacks.
    stack::keep_in_core_files();
    run(|| {
        let (sender, receiver) = channel::bounded(16);
        let reader = move || receiver.iter().sum::<u32>();
        Builder::new().name("reader").spawn(reader)?;
        let sleeper = Builder::new().name("sleeper").spawn(|| sleeps_deep_down(3))?;
        yield_now();
        sender.send(1).expect("the reader is there");
        // It keeps the thread to itself, so that one coroutine runs.
        Builder::new().name("counter").spawn(counts_for_ever)?;
        println!("{} waits to be looked at", std::process::id());
        io::stdout().flush()?;
        holds(&sleeper, &sender);
        Ok(())
    })
}

#[inline(never)]
fn sleeps_deep_down(depth: u32) -> u32 {
    if depth == 0 {
        sleep(HOUR);
        return 0;
    }
    sleeps_deep_down(depth - 1) + 1
}

#[inline(never)]
fn counts_for_ever() {
    loop {
        hint::spin_loop();
    }
}

#[inline(never)]
fn holds(sleeper: &JoinHandle<u32>, sender: &Sender<u32>) {
    sleep(HOUR);
    println!("{sleeper:?} {}", sender.len());
}

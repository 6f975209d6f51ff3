//! `memory`: the memory of a sleeping task, without that of the empty runtime.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::line::Line;
use super::runtimes::{Async, May, Plainsong, Smol, Stackful, Threads, Tokio};
use super::{Bench, Peer, no_arm, print};
use crate::process::field;

/// Longer than any sample takes.
const LONG: Duration = Duration::from_secs(3600);
/// How long the first task sleeps, which only warms up the empty runtime.
const SHORT: Duration = Duration::from_millis(1);

/// Prints the memory of each of `tasks` sleeping tasks, and ends the process while they still
/// sleep.
pub(super) fn take(peer: Peer, tasks: usize) -> Result<()> {
    match peer {
        Peer::Plainsong => with_stacks::<Plainsong>(tasks),
        Peer::Tokio => with_await::<Tokio>(tasks),
        Peer::Smol => with_await::<Smol>(tasks),
        Peer::May => {
            // Its pool has a thousand stacks from the start, which would hide the memory of as many
            // tasks.
            may::config().set_pool_capacity(1);
            with_stacks::<May>(tasks)
        }
        // These numbers leave out the 16 KiB that the kernel uses for each thread's own stack.
        Peer::Threads => with_stacks::<Threads>(tasks),
        Peer::Bare | Peer::Go | Peer::Guest => Err(no_arm(Bench::Memory, peer)),
    }
}

fn with_stacks<R: Stackful>(tasks: usize) -> Result<()> {
    fn all_sleep<R: Stackful>(tasks: usize, duration: Duration) -> Result<()> {
        let line = Arc::new(Line::new(tasks));
        for _ in 0..tasks {
            let line = Arc::clone(&line);
            R::spawn(move || {
                line.cross();
                R::sleep(duration);
            })?;
        }
        while !line.all_crossed() {
            R::sleep(SHORT);
        }
        R::sleep(2 * SHORT);
        Ok(())
    }
    R::run(move || {
        all_sleep::<R>(1, SHORT)?;
        let before = Held::now()?;
        all_sleep::<R>(tasks, LONG)?;
        Held::print_and_exit(&before, tasks)
    })?
}

fn with_await<R: Async>(tasks: usize) -> Result<()> {
    async fn all_sleep<R: Async>(tasks: usize, duration: Duration) {
        let line = Arc::new(Line::new(tasks));
        for _ in 0..tasks {
            let line = Arc::clone(&line);
            R::detach(R::spawn(async move {
                line.cross();
                R::sleep(duration).await;
            }));
        }
        while !line.all_crossed() {
            R::sleep(SHORT).await;
        }
        R::sleep(2 * SHORT).await;
    }
    R::run(async {
        all_sleep::<R>(1, SHORT).await;
        let before = Held::now()?;
        all_sleep::<R>(tasks, LONG).await;
        Held::print_and_exit(&before, tasks)
    })?
}

/// The memory of a process, in bytes.
struct Held {
    resident: u64,
    page_tables: u64,
}

impl Held {
    /// `smaps_rollup` counts pages one by one, while `status` may be off by some hundred kilobytes.
    fn now() -> Result<Held> {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(Held {
            resident: field(&rollup, "Rss:")? * 1024,
            page_tables: field(&status, "VmPTE:")? * 1024,
        })
    }

    fn print_and_exit(before: &Held, tasks: usize) -> Result<()> {
        let now = Held::now()?;
        let each = |before: u64, now: u64| Some((now as f64 - before as f64) / tasks as f64);
        print(&vec![
            each(before.resident, now.resident),
            each(before.page_tables, now.page_tables),
        ])?;
        std::process::exit(0)
    }
}

//! Pools of workers: threads for jobs that compute, coroutines for jobs that wait.
//!
//! ```text
//! cargo run --release --example worker_pool
//! ```

mod args;

use std::io;
use std::time::{Duration, Instant};

use plainsong::pool::Pool;
use plainsong::time::sleep;

fn main() -> io::Result<()> {
    args::none();
    plainsong::run(|| {
        let threads = Pool::threads(2)?;
        let primes = threads.submit(|| (2..20_000).filter(|n| is_prime(*n)).count());
        primes.on_done(|_| println!("the primes are counted"));

        // Twenty pauses, five at a time, take as long as four.
        let waits = Pool::coroutines(5)?;
        let started = Instant::now();
        let pauses = waits.map((1..=20).rev(), |n| {
            sleep(Duration::from_millis(20));
            n
        });
        let order: Vec<u32> = pauses.map(|result| result.expect("no job panics")).collect();
        assert!(order.iter().copied().eq((1..=20).rev()));
        assert!(started.elapsed() >= Duration::from_millis(80));
        println!("20 pauses are over, and their results are in order");

        println!("there are {} primes below 20000", primes.wait().expect("no job panics"));
        let failed = threads.submit(|| -> u32 { panic!("this job is broken") });
        println!("{}", failed.wait().unwrap_err());
        threads.shutdown();
        Ok(())
    })
}

fn is_prime(n: u32) -> bool {
    (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)
}

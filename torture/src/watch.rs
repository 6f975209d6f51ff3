//! Ends the process when something fails or hangs, and says which seed led there.

use std::backtrace::Backtrace;
use std::panic;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::process::Held;

/// The payload of a panic that is a part of the run.
pub(crate) struct Scripted;

static SEED: AtomicU64 = AtomicU64::new(0);
static PROGRESS: AtomicU64 = AtomicU64::new(0);

/// Without progress for this long, a run hangs. On a busy machine a round takes seconds.
const HANG: Duration = Duration::from_secs(100);

/// Call this before the first run: the library's own hook must be in front of this one.
pub(crate) fn install() {
    panic::set_hook(Box::new(|info| {
        if info.payload().is::<Scripted>() {
            return;
        }
        fail(&format!("{info}\n{}", Backtrace::capture()));
    }));
    let watchdog = move || {
        let mut last = progress();
        loop {
            thread::sleep(HANG);
            let now = progress();
            if now == last {
                fail(&format!("no progress for {HANG:?}; {}", Held::now()));
            }
            last = now;
        }
    };
    // A run whose watchdog is missing would only hang for longer.
    let _ = thread::Builder::new().name("watchdog".to_owned()).spawn(watchdog);
}

fn progress() -> u64 {
    PROGRESS.load(Ordering::Relaxed)
}

pub(crate) fn progressed() {
    PROGRESS.fetch_add(1, Ordering::Relaxed);
}

/// What follows is what this seed leads to.
pub(crate) fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    progressed();
}

fn fail(what: &str) -> ! {
    let seed = SEED.load(Ordering::Relaxed);
    eprintln!("torture: FAILED with --seed {seed}: {what}");
    process::abort()
}

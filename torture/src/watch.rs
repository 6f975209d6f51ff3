//! Ends the process when something fails or hangs, and says which seed led there.

use std::backtrace::Backtrace;
use std::panic;
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The payload of a panic that is a part of the run.
pub(crate) struct Scripted;

static SEED: AtomicU64 = AtomicU64::new(0);
static PROGRESS: AtomicU64 = AtomicU64::new(0);
static SHOW: Mutex<Option<Show>> = Mutex::new(None);

/// Prints what a run that hangs waits for.
type Show = Box<dyn FnOnce() + Send>;

/// Without progress for this long, a run hangs. On a busy machine a round takes seconds.
const HANG: Duration = Duration::from_secs(30);

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
                let show = SHOW.lock().unwrap().take();
                if let Some(show) = show {
                    show();
                }
                eprintln!("{}", plainsong::inspect::dump());
                fail(&format!("no progress for {HANG:?}"));
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

/// If what follows hangs, calls `show` before the end.
pub(crate) fn on_hang(show: impl FnOnce() + Send + 'static) {
    *SHOW.lock().unwrap() = Some(Box::new(show));
}

/// From now on, a failure names this seed.
pub(crate) fn set_seed(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
    progressed();
}

fn fail(what: &str) -> ! {
    let seed = SEED.load(Ordering::Relaxed);
    eprintln!("torture: FAILED with --seed {seed}: {what}");
    process::abort()
}

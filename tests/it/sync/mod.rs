//! Locks, channels and queues: a file per type.

mod barrier;
mod broadcast;
mod cancelled;
mod channel;
mod condvar;
mod corners;
mod event;
mod locks;
mod mpsc;
mod mutex;
mod once;
mod oneshot;
mod promise;
mod queue;
mod reentrant;
mod rwlock;
mod select;
mod select_io;
mod select_now;
mod semaphore;
mod wait_group;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use plainsong::sync::TryLockError;
use plainsong::time::{sleep, timeout};

use crate::util::HOUR;

/// Cannot be copied, as in std's tests.
#[derive(PartialEq, Eq, Debug)]
struct NonCopy(i32);

/// Panics while it holds a guard.
fn panic_with<G>(guard: impl FnOnce() -> G) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = guard();
        std::panic::resume_unwind(Box::new("scripted"));
    }));
    assert!(result.is_err());
}

/// Is cancelled while it holds a guard.
fn cancelled_with<G>(guard: impl FnOnce() -> G) {
    let result = timeout(Duration::ZERO, || {
        let _guard = plainsong::shield(guard);
        sleep(HOUR);
    });
    assert!(result.is_err());
}

fn would_block<G, T>(result: Result<G, TryLockError<T>>) -> bool {
    matches!(result, Err(TryLockError::WouldBlock))
}

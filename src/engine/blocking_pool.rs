//! Threads for calls that have no other way than to block theirs.
//!
//! The pool grows with the calls that are under way, up to [`THREADS_MAX`], and its threads
//! end when they have had nothing to do for [`IDLE_MAX`]. A thread that waits for something of
//! ours is not counted while it waits: what it waits for may be a call that has no thread yet.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::Duration;

use super::cancel;
use super::mutex::{Condvar, Mutex, MutexGuard};
use super::pin;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;

thread_local! {
    // Whether this thread is one of the pool that is counted there.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// tokio's figure for the same thing.
const THREADS_MAX: usize = 512;
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(super) type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

struct Queue {
    // Each with its number, by which it can be taken back.
    jobs: VecDeque<(u64, Job)>,
    next: u64,
    // The threads that work or are idle, without those that wait for something of ours.
    threads: usize,
    idle: usize,
}

static POOL: Pool = Pool {
    queue: Mutex::new(Queue { jobs: VecDeque::new(), next: 0, threads: 0, idle: 0 }),
    work: Condvar::new(),
};

/// Queues a job; returns its number.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn submit(job: Job) -> io::Result<u64> {
    let mut queue = POOL.queue.lock();
    let number = queue.next;
    queue.next += 1;
    queue.jobs.push_back((number, job));
    let Err(error) = grow(&mut queue) else { return Ok(number) };
    let job = queue.jobs.pop_back();
    // Its destructors are code of users.
    drop(queue);
    drop(job);
    Err(error)
}

/// Takes back a job that no thread has begun.
pub(super) fn take_back(number: u64) -> Option<Job> {
    let mut queue = POOL.queue.lock();
    // They are in the order of their numbers.
    let at = queue.jobs.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    queue.jobs.remove(at).map(|(_, job)| job)
}

/// Runs `wait`, in which this thread does nothing but wait for something of ours. If it is one of
/// the pool, another takes its place meanwhile.
pub(crate) fn while_blocked<R>(wait: impl FnOnce() -> R) -> R {
    struct Return;
    impl Drop for Return {
        fn drop(&mut self) {
            POOL.queue.lock().threads += 1;
            COUNTED.set(true);
        }
    }
    let _return = COUNTED.replace(false).then(|| {
        let mut queue = POOL.queue.lock();
        queue.threads -= 1;
        if !queue.jobs.is_empty() {
            // When there is no room for another thread, the next call tries again.
            let _ = grow(&mut queue);
        }
        Return
    });
    wait()
}

/// Makes sure that a thread takes the last job.
fn grow(queue: &mut MutexGuard<'_, Queue>) -> io::Result<()> {
    if queue.idle >= queue.jobs.len() {
        POOL.work.notify_one();
        return Ok(());
    }
    if queue.threads < THREADS_MAX {
        match thread::Builder::new().name("plainsong-blocking".to_owned()).spawn(serve) {
            Ok(_) => queue.threads += 1,
            // A thread that is at work will come to the job.
            Err(_) if queue.threads > 0 => {}
            // Not its own kind: `WouldBlock` would mean something else to the caller.
            Err(error) => {
                return Err(io::Error::other(format!(
                    "no thread can be started for a blocking call: {error}; the limit of \
                     threads or of memory is reached"
                )));
            }
        }
    }
    Ok(())
}

/// What each thread of the pool does.
fn serve() {
    COUNTED.set(true);
    pin::unpin();
    let mut queue = POOL.queue.lock();
    loop {
        // There may be too many for a while: threads that have waited come back at once.
        if queue.threads > THREADS_MAX {
            // It may have been notified of a job, which is for another then.
            POOL.work.notify_one();
            break;
        }
        if let Some((_, job)) = queue.jobs.pop_front() {
            drop(queue);
            // The panics of the call are caught in there; this one is of a destructor.
            cancel::catch_and_forget(job);
            queue = POOL.queue.lock();
            continue;
        }
        queue.idle += 1;
        let (woken, timed_out) = POOL.work.wait_timeout(queue, IDLE_MAX);
        queue = woken;
        queue.idle -= 1;
        if timed_out && queue.jobs.is_empty() {
            break;
        }
    }
    queue.threads -= 1;
}

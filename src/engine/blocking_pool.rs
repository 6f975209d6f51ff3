//! A pool of threads for calls that block their thread.
//!
//! The pool grows with the number of calls, up to [`THREADS_MAX`]. A thread ends when it has been
//! idle for [`IDLE_MAX`]. A thread that waits in an operation of this library does not count while
//! it waits, because it may wait for a call that has no thread yet.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::cancel;
use super::current;
use super::error::explained;
use super::mutex::{Condvar, Mutex, MutexGuard};
use super::pin;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::{start_thread, thread_local};

thread_local! {
    // Whether this thread belongs to the pool and is counted there.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// tokio's figure for the same thing.
const THREADS_MAX: usize = 512;
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The caller of a job, which waits for its end.
pub(super) trait Caller: Send + Sync {
    /// Has the caller call [`try_again`], and again after pauses, until that returns `true`.
    fn have_it_try_again(&self);
}

/// A job that no thread has begun.
struct Queued {
    number: u64,
    job: Job,
    caller: Option<Arc<dyn Caller>>,
}

struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

struct Queue {
    // In the order of their numbers.
    jobs: VecDeque<Queued>,
    next: u64,
    // The threads that are working or idle, without those that wait in an operation of this
    // library.
    threads: usize,
    idle: usize,
    // The process that the threads are in.
    process: u32,
}

static POOL: Pool = Pool {
    queue: Mutex::new(Queue { jobs: VecDeque::new(), next: 0, threads: 0, idle: 0, process: 0 }),
    work: Condvar::new(),
};

/// Queues a job and returns its number.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn submit(job: Job, caller: Option<Arc<dyn Caller>>) -> io::Result<u64> {
    let mut queue = POOL.queue.lock();
    let process = std::process::id();
    if queue.process != process {
        // A forked process has the queue of its parent and none of its threads. The jobs in it are
        // the parent's, so they are leaked here.
        mem::forget(mem::take(&mut queue.jobs));
        (queue.threads, queue.idle, queue.process) = (0, 0, process);
    }
    let number = queue.next;
    queue.next += 1;
    queue.jobs.push_back(Queued { number, job, caller });
    let Err(error) = grow(&mut queue) else { return Ok(number) };
    let job = queue.jobs.pop_back();
    // Its destructors are user code, which must not run under the lock.
    drop(queue);
    drop(job);
    Err(error)
}

/// The threads of the pool that do not wait, those of them that are idle, the jobs that no thread
/// has begun, and how many jobs there ever were.
pub(crate) fn numbers() -> (usize, usize, usize, u64) {
    let queue = POOL.queue.lock();
    (queue.threads, queue.idle, queue.jobs.len(), queue.next)
}

/// Takes a job back, if no thread has begun it.
pub(super) fn take_back(number: u64) -> Option<Job> {
    let mut queue = POOL.queue.lock();
    let at = queue.jobs.binary_search_by_key(&number, |queued| queued.number).ok()?;
    let taken = queue.jobs.remove(at);
    if queue.threads == 0 {
        // Its caller may have been the one that tries again.
        serve_all(queue);
    }
    taken.map(|queued| queued.job)
}

/// Whether the jobs in the queue have a thread, or have got one now.
pub(super) fn try_again() -> bool {
    let mut queue = POOL.queue.lock();
    queue.threads > 0 || queue.jobs.is_empty() || grow(&mut queue).is_ok()
}

/// Makes sure that some thread will take the jobs in the queue. If none is left and none can be
/// started, the caller of a job tries again: the threads that wait cannot.
fn serve_all(mut queue: MutexGuard<'_, Queue>) {
    if queue.jobs.is_empty() || grow(&mut queue).is_ok() {
        return;
    }
    let caller = queue.jobs.iter().find_map(|queued| queued.caller.clone());
    drop(queue);
    if let Some(caller) = caller {
        caller.have_it_try_again();
    }
}

/// Runs `wait`, which does nothing but wait in an operation of this library. If this thread belongs
/// to the pool, another thread may take its place meanwhile.
///
/// # Panics
///
/// In a hook, and in the code of a host.
pub(crate) fn while_blocked<R>(wait: impl FnOnce() -> R) -> R {
    current::refuse_to_block();
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
        serve_all(queue);
        Return
    });
    wait()
}

/// Makes sure that some thread will take the last job.
fn grow(queue: &mut MutexGuard<'_, Queue>) -> io::Result<()> {
    if queue.idle >= queue.jobs.len() {
        POOL.work.notify_one();
        return Ok(());
    }
    if queue.threads < THREADS_MAX {
        match start_thread("plainsong-blocking", Box::new(serve)) {
            Ok(()) => queue.threads += 1,
            // A busy thread will take the job when it is free.
            Err(_) if queue.threads > 0 => {}
            // Not with the kind of `error`: the caller would misunderstand `WouldBlock`.
            Err(error) => {
                let text = format!(
                    "no thread can be started for a blocking call: {error}; the limit of \
                     threads or of memory is reached"
                );
                return Err(explained(io::ErrorKind::Other, text));
            }
        }
    }
    Ok(())
}

/// The loop of each thread of the pool.
fn serve() {
    COUNTED.set(true);
    pin::unpin();
    let mut queue = POOL.queue.lock();
    loop {
        // There may be too many threads for a while, because a thread that has waited returns
        // without asking.
        if queue.threads > THREADS_MAX {
            // A notification that this thread has taken is passed on to another.
            POOL.work.notify_one();
            break;
        }
        if let Some(Queued { job, caller, .. }) = queue.jobs.pop_front() {
            drop(queue);
            drop(caller);
            // The job catches the panics of its call, so a panic here comes from a destructor.
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

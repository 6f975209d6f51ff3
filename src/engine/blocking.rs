//! Threads for calls that have no other way than to block theirs, such as name resolution.
//!
//! The pool grows with the calls that are under way, up to [`THREADS_MAX`], and its threads
//! end when they have had nothing to do for [`IDLE_MAX`].

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::context;
use super::remote::Waiter;
use super::task::{Wait, Wake};

/// tokio's figure for the same thing.
const THREADS_MAX: usize = 512;
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    queue: Mutex<Queue>,
    work: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Pool = Pool {
    queue: Mutex::new(Queue { jobs: VecDeque::new(), threads: 0, idle: 0 }),
    work: Condvar::new(),
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No user code runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn submit(&'static self, job: Job) -> io::Result<()> {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() {
            self.work.notify_one();
            return Ok(());
        }
        if queue.threads < THREADS_MAX {
            let name = "plainsong-blocking".to_owned();
            match thread::Builder::new().name(name).spawn(|| self.serve()) {
                Ok(_) => queue.threads += 1,
                // With a thread at work, the job's turn will come.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    queue.jobs.pop_back();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn serve(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job();
                queue = lock(&self.queue);
                continue;
            }
            queue.idle += 1;
            let (woken, timeout) =
                self.work.wait_timeout(queue, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

enum Answer<T> {
    Awaited(Waiter),
    Given(Result<T, Box<dyn Any + Send>>),
    /// The caller was cancelled.
    Unwanted,
}

/// Runs `f` on a thread of the pool and waits for it. A caller that is cancelled unwinds at
/// once; `f` then goes on by itself, which is why it may not borrow.
///
/// On a plain thread, which may block, it just calls `f`.
///
/// # Errors
///
/// When no thread can be started.
pub(crate) fn offload<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if !context::in_coroutine() {
        return Ok(f());
    }
    struct Abandon<'a, T>(&'a Mutex<Answer<T>>);
    impl<T> Drop for Abandon<'_, T> {
        fn drop(&mut self) {
            *lock(self.0) = Answer::Unwanted;
        }
    }
    let waiter = context::waiter();
    let answer = Arc::new(Mutex::new(Answer::Awaited(waiter)));
    let theirs = Arc::clone(&answer);
    POOL.submit(Box::new(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(f));
        let before = {
            let mut answer = lock(&theirs);
            match &*answer {
                Answer::Unwanted => return,
                _ => std::mem::replace(&mut *answer, Answer::Given(result)),
            }
        };
        if let Answer::Awaited(waiter) = before {
            context::wake(waiter);
        }
    }))?;
    let abandon = Abandon(&answer);
    let mut wake = context::block(waiter, Wait::Blocking, None);
    loop {
        debug_assert_eq!(wake, Wake::Ready);
        let mut slot = lock(&answer);
        match std::mem::replace(&mut *slot, Answer::Unwanted) {
            Answer::Given(result) => {
                drop(slot);
                drop(abandon);
                return result.map_or_else(|panic| panic::resume_unwind(panic), Ok);
            }
            _ => {
                let waiter = context::waiter();
                *slot = Answer::Awaited(waiter);
                drop(slot);
                wake = context::block(waiter, Wait::Blocking, None);
            }
        }
    }
}

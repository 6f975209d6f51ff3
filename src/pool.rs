//! Workers that take jobs in turn. (Python's `Executor`.)

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::cancel;
use crate::engine::park;
use crate::sync::{Promise, PromiseError, Queue, WaitGroup};
use crate::task;

/// A number of coroutines or threads that work off the jobs they are given, first come first served.
///
/// Dropping it lets the jobs that it has be done, and waits for none of them.
///
/// ```
/// use plainsong::pool::Pool;
///
/// plainsong::run(|| {
///     let pool = Pool::threads(2).unwrap();
///     let answer = pool.submit(|| 6 * 7); // on another thread
///     assert_eq!(answer.wait().unwrap(), &42);
///     let squares: Vec<_> = pool.map(1..=3, |n| n * n).map(Result::unwrap).collect();
///     assert_eq!(squares, [1, 4, 9]);
///     pool.shutdown(true, false);
/// });
/// ```
pub struct Pool {
    queue: Arc<Queue<Job>>,
    workers: WaitGroup,
    count: usize,
}

/// A job; dropped undone, it cancels its promise.
type Job = Box<dyn FnOnce() + Send>;

impl Pool {
    /// A pool of `count` coroutines on this thread, which share it with all others.
    ///
    /// # Errors
    ///
    /// Outside of a runtime, and when the system has no room for their stacks.
    ///
    /// # Panics
    ///
    /// When `count` is zero.
    #[track_caller]
    pub fn coroutines(count: usize) -> io::Result<Self> {
        let pool = Self::new(count);
        for _ in 0..count {
            task::Builder::new().name("pool").spawn(pool.worker())?;
        }
        Ok(pool)
    }

    /// A pool of `count` threads, for jobs that compute, or block their thread.
    ///
    /// # Errors
    ///
    /// When the system starts no more threads.
    ///
    /// # Panics
    ///
    /// When `count` is zero.
    pub fn threads(count: usize) -> io::Result<Self> {
        let pool = Self::new(count);
        for _ in 0..count {
            thread::Builder::new().name("plainsong-pool".to_owned()).spawn(pool.worker())?;
        }
        Ok(pool)
    }

    fn new(count: usize) -> Self {
        assert!(count > 0, "a pool without workers: nobody would do the jobs");
        Self { queue: Arc::default(), workers: WaitGroup::new(), count }
    }

    fn worker(&self) -> impl FnOnce() + Send + use<> {
        /// At the end of its run a coroutine is cancelled, and so are then all jobs.
        struct Leaves(Arc<Queue<Job>>);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.shutdown(true);
            }
        }
        let (leaves, share) = (Leaves(Arc::clone(&self.queue)), self.workers.clone());
        move || {
            let _share = share;
            while let Ok(job) = leaves.0.get() {
                match panic::catch_unwind(AssertUnwindSafe(job)) {
                    Ok(()) => {}
                    // The worker is cancelled.
                    Err(payload) if cancel::is_cancellation(&*payload) => {
                        panic::resume_unwind(payload)
                    }
                    // A job's own panic is caught in there. This one is of a destructor, or of who was
                    // told of the result, and the payload's may panic as well.
                    Err(payload) => mem::forget(payload),
                }
                leaves.0.task_done();
            }
        }
    }

    /// Has `f` called by a worker. A panic of `f` is its promise's error.
    ///
    /// A promise that is cancelled before a worker has begun is not worked on. When the pool has been shut
    /// down, it is cancelled at once.
    ///
    /// # Cancellation
    ///
    /// May let others run first, and unwinds then when the coroutine is cancelled; nobody calls `f`.
    pub fn submit<T, F>(&self, f: F) -> Promise<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + Sync + 'static,
    {
        /// Nobody else will keep it.
        struct Undone<T>(Promise<T>);
        impl<T> Drop for Undone<T> {
            fn drop(&mut self) {
                // A panic of who is told of it must not meet the one that brought us here.
                if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| self.0.cancel())) {
                    mem::forget(payload);
                }
            }
        }
        let promise = Promise::new();
        let undone = Undone(promise.clone());
        let job = move || {
            if undone.0.is_done() {
                return;
            }
            // It may have been cancelled meanwhile, and then what comes of it is dropped.
            match panic::catch_unwind(AssertUnwindSafe(f)) {
                Ok(value) => drop(undone.0.finish(Ok(value))),
                Err(payload) if cancel::is_cancellation(&*payload) => panic::resume_unwind(payload),
                // The payload goes last: its drop may panic.
                Err(payload) => {
                    let message = task::message(&*payload);
                    let message = message.unwrap_or_else(|| "not a string".to_owned());
                    drop(undone.0.finish(Err(PromiseError::Panicked(message))));
                }
            }
        };
        // Dropped undone if the pool is shut down.
        drop(self.queue.put(Box::new(job)));
        promise
    }

    /// Has `f` called with each of `items`, and gives the results in their order, as they come.
    ///
    /// All jobs are handed in at once. Those that have not begun when what this returns is dropped are
    /// cancelled.
    ///
    /// # Cancellation
    ///
    /// May let others run meanwhile, and unwinds then when the coroutine is cancelled; the jobs that were
    /// handed in are done.
    pub fn map<I, T, F>(&self, items: I, f: F) -> Map<T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        let submit = |item: I::Item| {
            let f = Arc::clone(&f);
            self.submit(move || Mutex::new(Some(f(item))))
        };
        let promises: Vec<_> = items.into_iter().map(submit).collect();
        Map { promises: promises.into_iter(), deadline: None }
    }

    /// Takes no more jobs; those that have not begun are done first, or cancelled if `cancel_pending`. If
    /// `wait`, waits until every worker has ended.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn shutdown(self, wait: bool, cancel_pending: bool) {
        self.queue.shutdown(cancel_pending);
        let workers = self.workers.clone();
        drop(self);
        if wait {
            workers.wait();
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.count
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.shutdown(false);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.count).finish_non_exhaustive()
    }
}

/// Results of jobs in order; made by [`Pool::map`].
#[must_use = "the jobs that have not begun are cancelled when this is dropped"]
pub struct Map<T> {
    promises: std::vec::IntoIter<Promise<Mutex<Option<T>>>>,
    deadline: Option<Instant>,
}

/// Why a job of [`Pool::map`] has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The job has panicked, with this message.
    Panicked(String),
    /// The pool has been shut down before the job began.
    Cancelled,
    /// The time is over. No more results follow.
    TimedOut,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "the job panicked: {message}"),
            Self::Cancelled => f.write_str("the pool was shut down before the job began"),
            Self::TimedOut => f.write_str("the job has not ended in time"),
        }
    }
}

impl std::error::Error for MapError {}

impl<T> Map<T> {
    /// Waits for `timeout` from now on at most, for all results together.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = park::deadline(timeout);
        self
    }

    fn cancel(&mut self) {
        for promise in self.promises.by_ref() {
            promise.cancel();
        }
    }
}

impl<T> Iterator for Map<T> {
    type Item = Result<T, MapError>;

    /// Waits for the next result.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; no result is lost.
    fn next(&mut self) -> Option<Self::Item> {
        // It is taken out when it is done.
        let promise = self.promises.as_slice().first()?.clone();
        let Some(outcome) = promise.wait_until(self.deadline) else {
            self.cancel();
            return Some(Err(MapError::TimedOut));
        };
        self.promises.next();
        Some(match outcome {
            Ok(value) => {
                let value = value.lock().unwrap_or_else(PoisonError::into_inner).take();
                value.ok_or(MapError::Cancelled)
            }
            Err(PromiseError::Panicked(message)) => Err(MapError::Panicked(message.clone())),
            Err(_) => Err(MapError::Cancelled),
        })
    }
}

impl<T> FusedIterator for Map<T> {}

impl<T> Drop for Map<T> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<T> fmt::Debug for Map<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("left", &self.promises.len()).finish_non_exhaustive()
    }
}

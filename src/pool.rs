//! Workers that take jobs in turn. (Python's `Executor`.)

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::cancel;
use crate::engine::defer::Defer;
use crate::engine::mutex::Mutex;
use crate::engine::park;
use crate::engine::shared::start_thread;
use crate::sync::{Cancel, Promise, PromiseError, Queue, WaitGroup};
use crate::task;

/// A number of coroutines or threads that do jobs in the order in which they are submitted.
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
///     pool.shutdown();
/// });
/// ```
pub struct Pool {
    queue: Arc<Queue<Job>>,
    workers: WaitGroup,
    count: usize,
}

type Call = Box<dyn FnOnce() + Send>;

/// A job and its promise.
struct Job {
    call: Call,
    undone: Undone,
}

/// The promise of a job, which is cancelled when this is dropped and the job is undone.
struct Undone(Arc<dyn Cancel>);

impl Drop for Undone {
    fn drop(&mut self) {
        let promise = Arc::clone(&self.0);
        // A panic of a call that the promise makes must not meet the one that brought us here.
        cancel::catch_and_forget(|| _ = promise.cancel());
    }
}

/// The part of a worker that others wait for. It is not on the worker's stack, because a coroutine
/// may be abandoned in a job.
struct Worker {
    queue: Arc<Queue<Job>>,
    // The job that it does, and its share of the pool.
    state: Mutex<(Option<Undone>, Option<WaitGroup>)>,
}

impl Worker {
    fn work(&self) {
        while let Ok(Job { call, undone }) = self.queue.get() {
            self.state.lock().0 = Some(undone);
            let job = || {
                call();
                self.forget_job();
            };
            match panic::catch_unwind(AssertUnwindSafe(job)) {
                Ok(()) => {}
                // The worker is cancelled.
                Err(payload) if cancel::is_cancellation(&*payload) => panic::resume_unwind(payload),
                // The job's own panic is caught in there. This one is of a destructor, or of a
                // call that the promise makes; and the drop of the payload may panic as well.
                Err(payload) => {
                    mem::forget(payload);
                    cancel::catch_and_forget(|| self.forget_job());
                }
            }
            // The next job has not panicked.
            park::forget_panic();
            self.queue.task_done();
        }
    }

    /// Forgets the promise of the job, and with it perhaps the value, whose drop may panic.
    fn forget_job(&self) {
        let undone = self.state.lock().0.take();
        drop(undone);
    }

    /// Takes no more jobs: a coroutine is cancelled at the end of its run, and all jobs are then.
    fn end(&self) {
        let (undone, share) = mem::take(&mut *self.state.lock());
        self.queue.shutdown(false);
        // The promises come before the destructors of the jobs, which may wait, and the coroutine
        // be given up there.
        cancel::catch_and_forget(|| drop(undone));
        let calls = cancel_jobs(&self.queue);
        drop(share);
        drop_calls(calls);
    }
}

/// Cancels the promises of the jobs in the queue. Returns their calls, whose destructors are user
/// code.
fn cancel_jobs(queue: &Queue<Job>) -> Vec<Call> {
    let mut calls = Vec::new();
    while let Ok(Job { call, undone }) = queue.try_get() {
        cancel::catch_and_forget(|| drop(undone));
        queue.task_done();
        calls.push(call);
    }
    calls
}

/// Drops them one by one, as two panics at once would end the process.
fn drop_calls(calls: Vec<Call>) {
    calls.into_iter().for_each(|call| cancel::catch_and_forget(|| drop(call)));
}

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
            let worker = pool.worker();
            let abandoned = Arc::downgrade(&worker);
            let handle = task::Builder::new().name("pool").spawn(Self::body(worker))?;
            handle.on_abandon(move || _ = abandoned.upgrade().map(|worker| worker.end()));
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
            start_thread("plainsong-pool", Box::new(Self::body(pool.worker())))?;
        }
        Ok(pool)
    }

    fn new(count: usize) -> Self {
        assert!(count > 0, "a pool without workers: nobody would do the jobs");
        Self { queue: Arc::default(), workers: WaitGroup::new(), count }
    }

    fn worker(&self) -> Arc<Worker> {
        let state = Mutex::new((None, Some(self.workers.clone())));
        Arc::new(Worker { queue: Arc::clone(&self.queue), state })
    }

    fn body(worker: Arc<Worker>) -> impl FnOnce() + Send + use<> {
        let ended = Arc::clone(&worker);
        // Also if the body never begins.
        let end = Defer::new(move || ended.end());
        move || {
            let _end = end;
            worker.work();
        }
    }

    /// Has a worker call `f`. A panic of `f` is its promise's error.
    ///
    /// If the promise is cancelled before a worker has begun, `f` is not called. When the pool has
    /// been shut down, the promise is cancelled at once.
    ///
    /// # Cancellation
    ///
    /// May let others run first, and unwinds then when the coroutine is cancelled; `f` is not
    /// called.
    pub fn submit<T, F>(&self, f: F) -> Promise<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + Sync + 'static,
    {
        let promise = Promise::new();
        let (undone, theirs) = (Undone(promise.to_cancel()), promise.clone());
        let call = move || {
            if theirs.is_done() {
                return;
            }
            // If the promise has been cancelled meanwhile, the result is dropped.
            match panic::catch_unwind(AssertUnwindSafe(f)) {
                Ok(value) => drop(theirs.finish(Ok(value))),
                Err(payload) if cancel::is_cancellation(&*payload) => panic::resume_unwind(payload),
                // The payload is dropped last, as that may panic. It is not dropped in an unwind.
                Err(payload) => {
                    park::forget_panic();
                    let message = task::message(&*payload);
                    let message = message.unwrap_or_else(|| "not a string".to_owned());
                    let payload = ManuallyDrop::new(payload);
                    drop(theirs.finish(Err(PromiseError::Panicked(message))));
                    drop(ManuallyDrop::into_inner(payload));
                }
            }
        };
        // Dropped undone if the pool is shut down.
        drop(self.queue.put(Job { call: Box::new(call), undone }));
        promise
    }

    /// Has workers call `f` with each of `items`. Returns an iterator over the results, in the
    /// order of the items.
    ///
    /// All jobs are submitted at once. Those that have not begun when the iterator is dropped are
    /// cancelled.
    ///
    /// # Cancellation
    ///
    /// May let others run meanwhile, and unwinds then when the coroutine is cancelled. The jobs
    /// that have not begun are cancelled, too.
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
        // Should this unwind in the midst of them, the map cancels those that it has.
        let mut map = Map { promises: VecDeque::new(), deadline: None };
        for item in items {
            map.promises.push_back(submit(item));
        }
        map
    }

    /// Takes no more jobs, and cancels those that have not begun.
    pub fn cancel_pending(&self) {
        self.queue.shutdown(false);
        drop_calls(cancel_jobs(&self.queue));
    }

    /// Takes no more jobs, and waits until those that it has are done and every worker has ended.
    /// Drop the pool instead if you need not wait.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn shutdown(self) {
        let workers = self.workers.clone();
        drop(self);
        workers.wait();
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

/// The results of jobs, in order; made by [`Pool::map`].
#[must_use = "the jobs that have not begun are cancelled when this is dropped"]
pub struct Map<T> {
    promises: VecDeque<Promise<Mutex<Option<T>>>>,
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
    /// Limits the wait for all results together to `timeout` from now on.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = park::deadline(timeout);
        self
    }

    fn cancel(&mut self) {
        while let Some(promise) = self.promises.pop_front() {
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
        // Taken out only when it is done.
        let promise = self.promises.front()?.clone();
        let Some(outcome) = promise.wait_until(self.deadline) else {
            self.cancel();
            return Some(Err(MapError::TimedOut));
        };
        self.promises.pop_front();
        Some(match outcome {
            Ok(value) => value.lock().take().ok_or(MapError::Cancelled),
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

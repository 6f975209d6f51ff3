//! The threads of one run, and the coroutines that have not started on any of them.
//!
//! A coroutine that has started never leaves its thread. A [`Job`], which has not, may go to any.
//! Each worker has a queue of jobs. It starts its newest first, which keeps few stacks in use at
//! once in a program that branches like a tree, and now and then its oldest, so that none waits for
//! ever. A worker with nothing to do steals the oldest jobs of another.
//!
//! # The end of a run
//!
//! The run is over when no worker has a coroutine, a call or a job. `busy` counts the workers that
//! have any:
//!
//! 1. A worker without coroutines and calls takes the lock of its own queue. If that has no job
//!    either, the worker marks the queue `idle`, and takes itself out of `busy`.
//! 2. Whoever gives a job to a worker marks its queue as not idle under the same lock, and counts
//!    the worker again. So a job is never in the queue of a worker that is not counted.
//! 3. At zero the count stays: a push that finds it there is refused. Only a plain thread can meet
//!    that, as a coroutine that pushes is counted itself.

mod injector;
mod quiescence;
mod run_queue;

use std::collections::VecDeque;
use std::fmt;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use self::quiescence::Quiescence;
use self::run_queue::{Queue, RunQueue};
use super::job::Job;
use super::mailbox::{Mailbox, Message, ThreadId};
use super::mutex::Mutex;

pub(crate) use self::injector::Injector;

/// Jobs that are taken from another worker at once: half of what it has, but no more than this.
const STEAL_MAX: usize = 32;
/// Coroutines that a busy worker may have more than twice as many as another, and keep its own
/// jobs.
const SLACK: usize = 64;

/// Tells the runs of a process apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunId(u64);

/// What the workers of a run have in common.
#[derive(Debug)]
pub(crate) struct Workers {
    id: RunId,
    each: Box<[Worker]>,
    busy: AtomicUsize,
    closing: AtomicBool,
    deadlock: Mutex<Option<String>>,
    quiescence: Quiescence,
    injector: Arc<Injector>,
}

/// What is left for a worker that has no coroutine and no call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// It is no longer counted: sleep, and call [`leave_idle`](Workers::leave_idle) after that.
    Counted,
    /// There are jobs after all.
    HasJobs,
    /// No worker has anything: the run is over.
    Over,
}

/// Which worker of which run a thread is.
pub(crate) struct WorkerHandle {
    pub(crate) workers: Arc<Workers>,
    pub(crate) number: usize,
}

/// What others read with each job that they give away: it changes seldom, and shares no cache line
/// with what does.
#[derive(Default)]
struct Worker {
    // Set when the worker begins to run.
    mailbox: OnceLock<&'static Mailbox>,
    // About how many coroutines it has. Jobs do not count, since an idle worker steals them.
    load: AtomicUsize,
    run_queue: RunQueue,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Worker {
    fn is_asleep(&self) -> bool {
        self.mailbox.get().is_some_and(|mailbox| mailbox.is_asleep())
    }

    /// Has the worker look for jobs, and whether the run is closing.
    fn notify(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.send(Message::Check);
        }
    }
}

impl Workers {
    pub(crate) fn new(count: usize, injector: &Arc<Injector>) -> Arc<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: RunId(RUNS.fetch_add(1, Ordering::Relaxed)),
            each: (0..count).map(|_| Worker::default()).collect(),
            busy: AtomicUsize::new(count),
            closing: AtomicBool::new(false),
            deadlock: Mutex::new(None),
            quiescence: Quiescence::new(),
            injector: Arc::clone(injector),
        })
    }

    pub(crate) fn id(&self) -> RunId {
        self.id
    }

    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// Where plain threads give jobs to this run.
    pub(crate) fn injector(&self) -> &Arc<Injector> {
        &self.injector
    }

    /// Whether a thread is one of the workers.
    pub(crate) fn has_thread(&self, thread: ThreadId) -> bool {
        self.each.iter().any(|worker| worker.mailbox.get().is_some_and(|m| m.thread() == thread))
    }

    /// The worker with this number runs now, and has this mailbox. Returns whether the run is
    /// closing already.
    pub(crate) fn enter(&self, number: usize, mailbox: &'static Mailbox) -> bool {
        let _ = self.each[number].mailbox.set(mailbox);
        // Either the closing is seen here, or the mailbox is seen by the thread that closes the
        // run.
        fence(Ordering::SeqCst);
        self.closing.load(Ordering::Relaxed)
    }

    // ---- jobs ----

    /// Gives a job to the worker that has least to do, or to `from`, the calling one, if that has
    /// not much more.
    ///
    /// # Errors
    ///
    /// The job, when the run is over, or closing and the job is from outside.
    pub(crate) fn push(&self, from: Option<usize>, job: Job) -> Result<(), Job> {
        if from.is_none() && self.closing.load(Ordering::Relaxed) {
            return Err(job);
        }
        let number = self.choose(from);
        let worker = &self.each[number];
        let mut queue = worker.run_queue.lock();
        let Some(was_idle) = self.unpark_idle(&mut queue) else { return Err(job) };
        queue.jobs.push_back(job);
        worker.run_queue.note_len(&queue);
        // No worker goes to sleep while there is a job; and those that slept when there was none
        // have been woken when there were as many jobs as workers.
        let news = queue.jobs.len() <= self.len() && (self.len() > 1 || from.is_none());
        drop(queue);
        if was_idle {
            // It is counted again, so it must not go to sleep before it has seen that.
            worker.notify();
        } else if news {
            self.wake_one(number, from);
        }
        Ok(())
    }

    /// Gives a job to one worker, from which no other can take it.
    ///
    /// # Errors
    ///
    /// The job, when the run is over.
    pub(crate) fn push_to(&self, number: usize, job: Job) -> Result<(), Job> {
        let worker = &self.each[number];
        let mut queue = worker.run_queue.lock();
        if self.unpark_idle(&mut queue).is_none() {
            return Err(job);
        }
        queue.own.push_back(job);
        worker.run_queue.note_own();
        drop(queue);
        worker.notify();
        Ok(())
    }

    fn choose(&self, from: Option<usize>) -> usize {
        let loads = self.each.iter().map(|worker| worker.load.load(Ordering::Relaxed)).enumerate();
        let Some((least, load)) = loads.min_by_key(|&(_, load)| load) else { return 0 };
        let Some(from) = from else { return least };
        let own = self.each[from].load.load(Ordering::Relaxed);
        // A job that stays need not be sent. While all are busy it matters little which worker has
        // it, as long as none gets far more than another.
        if own > 2 * load + SLACK || own > load && self.each[least].is_asleep() {
            least
        } else {
            from
        }
    }

    /// Counts a worker as busy again if it is idle, and returns whether it was. `None` when the run
    /// is over.
    fn unpark_idle(&self, queue: &mut Queue) -> Option<bool> {
        if queue.idle {
            let up = |busy| if busy == 0 { None } else { Some(busy + 1) };
            self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, up).ok()?;
        }
        Some(std::mem::replace(&mut queue.idle, false))
    }

    /// Wakes `number`, which has a new job, if it sleeps; or else another that does.
    fn wake_one(&self, number: usize, from: Option<usize>) {
        // Either a worker that is about to sleep is seen here, or it sees the job.
        fence(Ordering::SeqCst);
        let others = (1..self.len()).map(|n| (number + n) % self.len());
        let mut all = iter::once(number).chain(others).filter(|n| Some(*n) != from);
        if let Some(sleeper) = all.find(|n| self.each[*n].is_asleep()) {
            self.each[sleeper].notify();
        }
    }

    /// A job for the worker `number` to start: its newest, or its `oldest`.
    #[inline]
    pub(crate) fn take(&self, number: usize, oldest: bool) -> Option<Job> {
        self.each[number].run_queue.take(oldest)
    }

    /// Takes jobs of other workers for `number`; returns the first to start.
    pub(crate) fn steal(&self, number: usize) -> Option<Job> {
        let others = (1..self.len()).map(|n| &self.each[(number + n) % self.len()].run_queue);
        for other in others.filter(|other| other.has_jobs(Ordering::Relaxed)) {
            let mut queue = other.lock();
            let half = queue.jobs.len().div_ceil(2).min(STEAL_MAX);
            let mut jobs: VecDeque<Job> = queue.jobs.drain(..half).collect();
            other.note_len(&queue);
            drop(queue);
            let Some(first) = jobs.pop_front() else { continue };
            if !jobs.is_empty() {
                let ours = &self.each[number].run_queue;
                let mut queue = ours.lock();
                queue.jobs.append(&mut jobs);
                ours.note_len(&queue);
                drop(queue);
                // Another may have looked while they were in neither queue.
                self.wake_one(number, Some(number));
            }
            return Some(first);
        }
        None
    }

    /// Whether there is a job that any worker may start: for a worker that is about to sleep, and
    /// has said so at its mailbox.
    pub(crate) fn has_jobs(&self) -> bool {
        self.each.iter().any(|worker| worker.run_queue.has_jobs(Ordering::SeqCst))
    }

    /// Notes how many coroutines a worker has.
    pub(crate) fn note_load(&self, number: usize, tasks: usize) {
        let load = &self.each[number].load;
        let noted = load.load(Ordering::Relaxed);
        // Others read this with each job that they give away, so it is written seldom.
        if tasks.abs_diff(noted) > noted / 8 {
            load.store(tasks, Ordering::Relaxed);
        }
    }

    // ---- the end of a run ----

    /// A worker without coroutines and calls is idle, if it has no jobs either.
    pub(crate) fn idle(&self, number: usize) -> Idle {
        let mut queue = self.each[number].run_queue.lock();
        if !queue.is_empty() {
            return Idle::HasJobs;
        }
        let was_idle = std::mem::replace(&mut queue.idle, true);
        drop(queue);
        if !was_idle && self.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.each.iter().for_each(Worker::notify);
        }
        if self.busy.load(Ordering::SeqCst) == 0 { Idle::Over } else { Idle::Counted }
    }

    /// An idle worker looks for something to do. Returns whether the run is over.
    pub(crate) fn leave_idle(&self, number: usize) -> bool {
        self.unpark_idle(&mut self.each[number].run_queue.lock()).is_none()
    }

    /// Has all workers but `from` cancel their coroutines, and all that start from now on.
    pub(crate) fn close(&self, from: usize) {
        self.closing.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let others = self.each.iter().enumerate().filter(|(number, _)| *number != from);
        for mailbox in others.filter_map(|(_, worker)| worker.mailbox.get()) {
            // From here on nothing is handed over to their coroutines any more.
            mailbox.set_cancelling_all(true);
            mailbox.send(Message::Check);
        }
    }

    /// Whether [`close`](Self::close) has been called: true for a worker that takes a message which
    /// was sent because of that.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Adds the waits of one worker's coroutines to the report of a deadlock. Returns whether it is
    /// the first worker to report one.
    pub(crate) fn report(&self, waits: &str) -> bool {
        let mut deadlock = self.deadlock.lock();
        let first = deadlock.is_none();
        *deadlock.get_or_insert_default() += waits;
        first
    }

    /// The report of the deadlock that has ended the run, if one has.
    pub(crate) fn deadlock(&self) -> Option<String> {
        self.deadlock.lock().clone()
    }
}

//! The workers of one run: which worker gets a job, when the run is over, and how it is closed.

use std::collections::VecDeque;
use std::fmt;
use std::iter;
use std::panic::Location;
use std::sync::{Arc, OnceLock, Weak};

use super::super::facts::{self, Facts};
use super::super::job::Job;
use super::super::mailbox::{Mailbox, Message, ThreadId};
use super::super::mutex::Mutex;
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::super::pin;
use super::super::shared::atomic::{
    AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering, fence,
};
use super::super::survey::Survey;
use super::question::{Asked, Question, Slot};
use super::quiescence::Quiescence;
use super::run_queue::{Queue, RunQueue};

/// A worker steals half of another's jobs at once, but no more than this.
const STEAL_MAX: usize = 32;
/// A busy worker keeps its own jobs while it has at most this many coroutines more than twice as
/// many as the least loaded worker.
const SLACK: usize = 64;

/// The runs that are under way, and some that are over.
static ALL: Mutex<Vec<Weak<Workers>>> = Mutex::new(Vec::new());

/// Tells the runs of a process apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunId(u64);

impl RunId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// The shared state of the workers of a run.
#[derive(Debug)]
pub(crate) struct Workers {
    id: RunId,
    each: Box<[Worker]>,
    busy: AtomicUsize,
    closing: AtomicBool,
    deadlock: Mutex<Option<Vec<Facts>>>,
    quiescence: Quiescence,
}

/// The next step of a worker without coroutines and calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// The worker is no longer counted as busy: it sleeps, and then calls
    /// [`leave_idle`](Workers::leave_idle).
    Counted,
    /// It has jobs after all.
    HasJobs,
    /// No worker has anything left: the run is over.
    Over,
}

/// One worker, as the others see it. They read the first two fields with each push. These change
/// rarely, and share no cache line with the queue, which changes often.
#[derive(Default)]
struct Worker {
    // Set when the worker begins to run.
    mailbox: OnceLock<&'static Mailbox>,
    // About how many coroutines it has. Jobs do not count, since an idle worker steals them.
    load: AtomicUsize,
    run_queue: RunQueue,
    // The thread's number in the kernel, while the worker runs.
    thread: AtomicI32,
    question: Slot,
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

    /// Wakes the worker to look for jobs, and whether the run is closing.
    fn notify(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.send(Message::Check);
        }
    }
}

impl Workers {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let this = Arc::new(Self {
            id: RunId(RUNS.fetch_add(1, Ordering::Relaxed)),
            each: (0..count).map(|_| Worker::default()).collect(),
            busy: AtomicUsize::new(count),
            closing: AtomicBool::new(false),
            deadlock: Mutex::new(None),
            quiescence: Quiescence::new(),
        });
        let mut all = ALL.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&this));
        this
    }

    /// The workers of each run that is under way.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        ALL.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn id(&self) -> RunId {
        self.id
    }

    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether a thread is one of the workers.
    pub(crate) fn has_thread(&self, thread: ThreadId) -> bool {
        self.each.iter().any(|worker| worker.mailbox.get().is_some_and(|m| m.thread() == thread))
    }

    /// Says that the worker with this number runs now, and has this mailbox. Returns whether the
    /// run is already closing.
    pub(crate) fn enter(&self, number: usize, mailbox: &'static Mailbox) -> bool {
        let _ = self.each[number].mailbox.set(mailbox);
        // Either this load sees the closing, or the thread that closes the run sees the mailbox.
        fence(Ordering::SeqCst);
        self.closing.load(Ordering::Relaxed)
    }

    // ---- questions ----

    /// The worker with this number runs on the calling thread, and can be asked.
    pub(crate) fn arrive(&self, number: usize) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let thread = pin::this_thread();
        // Only Linux interrupts a thread. Elsewhere any number says that the worker runs.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let thread = 1;
        self.each[number].thread.store(thread, Ordering::SeqCst);
    }

    /// The worker with this number runs no more.
    pub(crate) fn leave(&self, number: usize) {
        self.each[number].thread.store(0, Ordering::SeqCst);
    }

    /// The kernel's number of a worker's thread, while the worker runs.
    pub(crate) fn thread(&self, number: usize) -> Option<i32> {
        Some(self.each[number].thread.load(Ordering::SeqCst)).filter(|&thread| thread != 0)
    }

    /// A worker's mailbox, while the worker runs.
    pub(crate) fn mailbox(&self, number: usize) -> Option<&'static Mailbox> {
        self.thread(number).and_then(|_| self.each[number].mailbox.get().copied())
    }

    /// Asks a worker what its coroutines do. `None` if another thread asks already.
    pub(crate) fn ask<'a>(&'a self, number: usize, question: &'a Question) -> Option<Asked<'a>> {
        let worker = &self.each[number];
        let asked = worker.question.ask(question)?;
        if let Some(mailbox) = worker.mailbox.get() {
            mailbox.send(Message::Asked);
        }
        Some(asked)
    }

    /// Answers the question that a worker was asked, with `f`. Returns whether there was one.
    pub(crate) fn answer(&self, number: usize, f: impl FnOnce(&mut Survey)) -> bool {
        self.each[number].question.answer(f)
    }

    /// About how many coroutines a worker has, and how many jobs that have not started.
    pub(crate) fn load(&self, number: usize) -> (usize, usize) {
        let worker = &self.each[number];
        let queue = worker.run_queue.lock();
        (worker.load.load(Ordering::Relaxed), queue.jobs.len() + queue.own.len())
    }

    // ---- jobs ----

    /// Pushes a job to the least loaded worker, or to `from`, the calling one, if that has not much
    /// more to do.
    ///
    /// # Errors
    ///
    /// The job, if the run is over.
    pub(crate) fn push(&self, from: Option<usize>, job: Job) -> Result<(), Job> {
        let number = self.choose(from);
        let worker = &self.each[number];
        let mut queue = worker.run_queue.lock();
        let Some(was_idle) = self.unpark_idle(&mut queue) else { return Err(job) };
        queue.jobs.push_back(job);
        worker.run_queue.note_len(&queue);
        // Once there are more jobs than workers, there is no worker to wake: each of the first jobs
        // has woken one, and no worker goes to sleep while there is a job.
        let news = queue.jobs.len() <= self.len() && (self.len() > 1 || from.is_none());
        drop(queue);
        if was_idle {
            // It is counted as busy again, so it must look at its queue before it sleeps.
            worker.notify();
        } else if news {
            self.wake_one(number, from);
        }
        Ok(())
    }

    /// Pushes a job to one worker. No other can steal it.
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
        // A push to the own queue needs no wake. While all workers are busy, it matters little
        // where a job waits, as long as no worker gets far more than the others.
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

    /// Wakes worker `number`, which has a new job, if it sleeps, or else another sleeping worker.
    fn wake_one(&self, number: usize, from: Option<usize>) {
        // Either this sees that a worker is about to sleep, or that worker sees the job.
        fence(Ordering::SeqCst);
        let others = (1..self.len()).map(|n| (number + n) % self.len());
        let mut all = iter::once(number).chain(others).filter(|n| Some(*n) != from);
        if let Some(sleeper) = all.find(|n| self.each[*n].is_asleep()) {
            self.each[sleeper].notify();
        }
    }

    /// Takes a job for the worker `number` to start: its newest, or its `oldest`.
    #[inline]
    pub(crate) fn take(&self, number: usize, oldest: bool) -> Option<Job> {
        self.each[number].run_queue.take(oldest)
    }

    /// Steals jobs of another worker for `number`. Returns the first one, to be started.
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
                // Another worker may have found both queues empty, and gone to sleep, while the
                // jobs were in neither.
                self.wake_one(number, Some(number));
            }
            return Some(first);
        }
        None
    }

    /// Whether there is a job that any worker may start. A worker asks this after it has announced
    /// its sleep at its mailbox.
    pub(crate) fn has_jobs(&self) -> bool {
        self.each.iter().any(|worker| worker.run_queue.has_jobs(Ordering::SeqCst))
    }

    /// Where the jobs of the worker `number` were spawned, without those that were cancelled.
    pub(crate) fn pending(&self, number: usize) -> Vec<&'static Location<'static>> {
        let mut queue = self.each[number].run_queue.lock();
        let Queue { own, jobs, .. } = &mut *queue;
        own.iter_mut().chain(jobs).filter_map(Job::spawned).collect()
    }

    /// Notes how many coroutines a worker has.
    pub(crate) fn note_load(&self, number: usize, tasks: usize) {
        let load = &self.each[number].load;
        let noted = load.load(Ordering::Relaxed);
        // The other workers read this with each push, so it is written rarely.
        if tasks.abs_diff(noted) > noted / 8 {
            load.store(tasks, Ordering::Relaxed);
        }
    }

    // ---- the end of a run ----

    /// Step 1: the worker has no coroutines and calls. It is idle if it has no jobs either.
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

    /// Step 3: an idle worker has woken up. Returns whether the run is over.
    pub(crate) fn leave_idle(&self, number: usize) -> bool {
        self.unpark_idle(&mut self.each[number].run_queue.lock()).is_none()
    }

    /// Has all workers cancel their coroutines, and all that start from now on: `from`, the calling
    /// one, with `cancel_here`. Nothing is handed over to any of them from the moment at which the
    /// first may unwind.
    pub(crate) fn close(&self, from: usize, cancel_here: impl FnOnce()) {
        self.closing.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let others = || {
            let others = self.each.iter().enumerate().filter(|(number, _)| *number != from);
            others.filter_map(|(_, worker)| worker.mailbox.get())
        };
        others().for_each(|mailbox| mailbox.set_cancelling_all(true));
        cancel_here();
        others().for_each(|mailbox| mailbox.send(Message::Check));
    }

    /// Whether [`close`](Self::close) has been called. A worker that takes the message of that
    /// call, or a later one, sees `true`.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Adds the waits of one worker's coroutines to the report of a deadlock. Returns whether it is
    /// the first worker to report one.
    pub(crate) fn report(&self, waits: Vec<Facts>) -> bool {
        let mut deadlock = self.deadlock.lock();
        let first = deadlock.is_none();
        deadlock.get_or_insert_default().extend(waits);
        first
    }

    /// The report of the deadlock, if the run has ended in one.
    pub(crate) fn deadlock(&self) -> Option<String> {
        self.deadlock.lock().as_deref().map(facts::report)
    }

    /// Whether a worker has reported a deadlock.
    pub(crate) fn is_deadlocked(&self) -> bool {
        self.deadlock.lock().is_some()
    }

    // ---- deadlocks ----

    /// The worker `number` is quiescent. Returns whether this is a deadlock, which this worker must
    /// then report. Otherwise it must call [`wake_from_quiescence`](Self::wake_from_quiescence)
    /// when it wakes up.
    pub(crate) fn quiesce(&self, number: usize, has_tasks: bool) -> bool {
        self.each[number].run_queue.has_tasks.store(has_tasks, Ordering::SeqCst);
        let nothing_comes = || self.any_has_tasks() && !self.any_has_news();
        self.quiescence.enter(self.len(), nothing_comes)
    }

    /// The worker is awake.
    pub(crate) fn wake_from_quiescence(&self) {
        self.quiescence.leave();
    }

    /// If no worker has a coroutine this is no deadlock: a plain thread pushed a job, was preempted
    /// before it checked for sleepers, and a worker has already run the job.
    fn any_has_tasks(&self) -> bool {
        self.each.iter().any(|worker| worker.run_queue.has_tasks.load(Ordering::SeqCst))
    }

    fn any_has_news(&self) -> bool {
        self.each.iter().any(|worker| {
            // Under the lock, so that this sees a job that a plain thread has begun to push.
            let any_job = !worker.run_queue.lock().is_empty();
            any_job || worker.mailbox.get().is_some_and(|mailbox| mailbox.is_pending())
        })
    }
}

//! The threads of one run, and what has not started yet on any of them.
//!
//! A coroutine that has started never leaves its thread; what may move is a [`Job`], which
//! will be one. Each worker has a queue of them. It starts its newest first, which keeps few
//! stacks in use at once in a program that branches like a tree, and now and then its oldest, so
//! that none waits for ever. A worker with nothing to do takes the oldest of another.
//!
//! The run is over when no worker has a coroutine, a call or a job. A worker that has none of them
//! rests and is no longer counted in `busy`; only one that is counted can give it something
//! to do, except for a plain thread, which is refused when the count is 0.

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::job::Job;
use super::remote::{Door, Message};

/// Jobs that are taken from another worker at once: half of what it has, but no more than this.
const STEAL_MAX: usize = 32;
/// Coroutines that a busy worker may have more than twice as many as another, and keep its own.
const SLACK: usize = 64;
/// In `still`, one worker that has stopped being still.
const STIRRED: u64 = 1 << 32;

/// What the workers of a run have in common.
#[derive(Debug)]
pub(crate) struct Workers {
    each: Box<[Worker]>,
    busy: AtomicUsize,
    closing: AtomicBool,
    deadlock: Mutex<Option<String>>,
    // Workers that sleep and have nothing to wait for that could come from outside of the run; above that,
    // how often one has stopped to.
    still: AtomicU64,
    /// No thread's door: where those are at home that any worker of this run may start.
    pub(crate) home: &'static Door,
    pub(crate) injector: Arc<Injector>,
}

/// What is left for a worker that has no coroutine and no call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rest {
    /// Sleep, and [`rise`](Workers::rise) after it.
    Rests,
    /// There are jobs after all.
    HasJobs,
    /// Nobody has anything: the run is over.
    Over,
}

/// Which worker of which run this thread is.
pub(crate) struct Post {
    pub(crate) workers: Arc<Workers>,
    pub(crate) number: usize,
}

/// What others look at with each job that they give away: it changes seldom, and shares no cache line
/// with what does.
#[derive(Default)]
struct Worker {
    // From when it runs.
    door: OnceLock<&'static Door>,
    // About how many coroutines it has. Jobs do not count: whoever has nothing to do takes them.
    load: AtomicUsize,
    bench: Bench,
}

/// Where the jobs of one worker wait, on cache lines of its own. (The processor fetches two at once.)
#[derive(Default)]
#[repr(align(128))]
struct Bench {
    queue: Mutex<Queue>,
    // The length of `queue.jobs`, for those who only look.
    queued: AtomicUsize,
    // Whether `queue.own` may have something.
    owed: AtomicBool,
    // Whether it had coroutines when it last settled.
    waits: AtomicBool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    // For this worker and no other.
    own: VecDeque<Job>,
    // Not counted in `busy`.
    rests: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Worker {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No user code runs under this lock.
        self.bench.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the queue has changed, under its lock.
    fn changed(&self, queue: &Queue) {
        self.bench.queued.store(queue.jobs.len(), Ordering::Relaxed);
    }

    fn is_asleep(&self) -> bool {
        self.door.get().is_some_and(|door| door.is_asleep())
    }

    fn look(&self) {
        self.door.get().inspect(|door| door.send(Message::Look));
    }
}

impl Workers {
    pub(crate) fn new(count: usize, injector: &Arc<Injector>) -> Arc<Self> {
        Arc::new(Self {
            injector: Arc::clone(injector),
            each: (0..count).map(|_| Worker::default()).collect(),
            busy: AtomicUsize::new(count),
            closing: AtomicBool::new(false),
            deadlock: Mutex::new(None),
            still: AtomicU64::new(0),
            home: Door::acquire(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.each.len()
    }

    /// Whether this is the door of one of the workers, or of those that any of them may start.
    pub(crate) fn knows(&self, door: &'static Door) -> bool {
        ptr::eq(self.home, door) || self.has_thread(ptr::from_ref(door).addr())
    }

    /// Whether this is the number of one of the workers' threads.
    pub(crate) fn has_thread(&self, number: usize) -> bool {
        let mut doors = self.each.iter().filter_map(|worker| worker.door.get());
        doors.any(|door| ptr::from_ref(*door).addr() == number)
    }

    /// The worker with this number runs now, behind this door. Returns whether the run is closing already.
    pub(crate) fn enter(&self, number: usize, door: &'static Door) -> bool {
        let _ = self.each[number].door.set(door);
        // Either we see that it closes, or who closes it sees the door.
        fence(Ordering::SeqCst);
        self.closing.load(Ordering::Relaxed)
    }

    /// Gives a job to the worker that has least to do, or to `from`, the calling one, if that has not
    /// much more.
    ///
    /// # Errors
    ///
    /// The job, when the run is over, or ending and the job is from outside.
    pub(crate) fn push(&self, from: Option<usize>, job: Job) -> Result<(), Job> {
        if from.is_none() && self.closing.load(Ordering::Relaxed) {
            return Err(job);
        }
        let number = self.choose(from);
        let worker = &self.each[number];
        let mut queue = worker.queue();
        let Some(rested) = self.rouse(&mut queue) else { return Err(job) };
        queue.jobs.push_back(job);
        worker.changed(&queue);
        // Nobody goes to sleep while there is a job; and those who slept when there was none have been woken
        // when there were as many jobs as workers.
        let news = queue.jobs.len() <= self.len() && (self.len() > 1 || from.is_none());
        drop(queue);
        if rested {
            // It is counted again, so it must not go to sleep before it has seen that.
            worker.look();
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
        let mut queue = worker.queue();
        if self.rouse(&mut queue).is_none() {
            return Err(job);
        }
        queue.own.push_back(job);
        worker.bench.owed.store(true, Ordering::Relaxed);
        drop(queue);
        worker.look();
        Ok(())
    }

    fn choose(&self, from: Option<usize>) -> usize {
        let loads = self.each.iter().map(|worker| worker.load.load(Ordering::Relaxed)).enumerate();
        let Some((least, load)) = loads.min_by_key(|&(_, load)| load) else { return 0 };
        let Some(from) = from else { return least };
        let own = self.each[from].load.load(Ordering::Relaxed);
        // What stays need not be sent. While all are busy it matters little who has it, as long as no one
        // gets far more than another.
        if own > 2 * load + SLACK || own > load && self.each[least].is_asleep() {
            least
        } else {
            from
        }
    }

    /// Counts a worker as busy again if it rests, and returns whether it did. `None` when the run is over.
    fn rouse(&self, queue: &mut Queue) -> Option<bool> {
        if queue.rests {
            let up = |busy| if busy == 0 { None } else { Some(busy + 1) };
            self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, up).ok()?;
        }
        Some(std::mem::replace(&mut queue.rests, false))
    }

    /// Wakes `number`, which has a new job, if it sleeps; or else another that does.
    fn wake_one(&self, number: usize, from: Option<usize>) {
        // Either we see that a worker is about to sleep, or that sees the job.
        fence(Ordering::SeqCst);
        let others = (1..self.len()).map(|n| (number + n) % self.len());
        let mut all = std::iter::once(number).chain(others).filter(|n| Some(*n) != from);
        let sleeper = all.find(|n| self.each[*n].is_asleep());
        if let Some(sleeper) = sleeper {
            self.each[sleeper].look();
        }
    }

    /// A job for the worker `number` to start: its newest, or its `oldest`.
    #[inline]
    pub(crate) fn take(&self, number: usize, oldest: bool) -> Option<Job> {
        let worker = &self.each[number];
        let any = worker.bench.queued.load(Ordering::Relaxed) > 0
            || worker.bench.owed.load(Ordering::Relaxed);
        if any { Self::take_from(worker, oldest) } else { None }
    }

    fn take_from(worker: &Worker, oldest: bool) -> Option<Job> {
        let mut queue = worker.queue();
        if let Some(job) = queue.own.pop_front() {
            return Some(job);
        }
        worker.bench.owed.store(false, Ordering::Relaxed);
        let job = if oldest { queue.jobs.pop_front() } else { queue.jobs.pop_back() };
        worker.changed(&queue);
        job
    }

    /// Takes jobs of other workers for `number`; returns the first to start.
    pub(crate) fn steal(&self, number: usize) -> Option<Job> {
        let others = (1..self.len()).map(|n| &self.each[(number + n) % self.len()]);
        for other in others.filter(|other| other.bench.queued.load(Ordering::Relaxed) > 0) {
            let mut queue = other.queue();
            let half = queue.jobs.len().div_ceil(2).min(STEAL_MAX);
            let mut jobs: VecDeque<Job> = queue.jobs.drain(..half).collect();
            other.changed(&queue);
            drop(queue);
            let Some(first) = jobs.pop_front() else { continue };
            if !jobs.is_empty() {
                let worker = &self.each[number];
                let mut queue = worker.queue();
                queue.jobs.append(&mut jobs);
                worker.changed(&queue);
                drop(queue);
                // Somebody may have looked while they were in neither queue.
                self.wake_one(number, Some(number));
            }
            return Some(first);
        }
        None
    }

    /// Whether there is a job that any worker may start: to be asked by one that is about to sleep and
    /// has said so at its door.
    pub(crate) fn has_jobs(&self) -> bool {
        self.each.iter().any(|worker| worker.bench.queued.load(Ordering::SeqCst) > 0)
    }

    /// Notes how many coroutines a worker has.
    pub(crate) fn note(&self, number: usize, tasks: usize) {
        let load = &self.each[number].load;
        let noted = load.load(Ordering::Relaxed);
        // Others look at this with each job that they give away, so it changes seldom.
        if tasks.abs_diff(noted) > noted / 8 {
            load.store(tasks, Ordering::Relaxed);
        }
    }

    /// A worker without coroutines and calls rests, if it has no jobs either.
    pub(crate) fn rest(&self, number: usize) -> Rest {
        let mut queue = self.each[number].queue();
        if !queue.jobs.is_empty() || !queue.own.is_empty() {
            return Rest::HasJobs;
        }
        let rested = std::mem::replace(&mut queue.rests, true);
        drop(queue);
        if !rested && self.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.each.iter().for_each(Worker::look);
        }
        if self.busy.load(Ordering::SeqCst) == 0 { Rest::Over } else { Rest::Rests }
    }

    /// A worker that rested looks for something to do. Returns whether the run is over.
    pub(crate) fn rise(&self, number: usize) -> bool {
        self.rouse(&mut self.each[number].queue()).is_none()
    }

    /// A worker is about to sleep, and nothing outside of the run could wake it. Returns whether that is so
    /// for all of them now: then nobody ever will, and this one is to say so. If not,
    /// [`stir`](Self::stir) must be called when it wakes up.
    pub(crate) fn settle(&self, number: usize, has_tasks: bool) -> bool {
        self.each[number].bench.waits.store(has_tasks, Ordering::SeqCst);
        let still = self.still.fetch_add(1, Ordering::SeqCst) + 1;
        // All others that are counted sleep: what they have sent is in an inbox by now. One that is being
        // woken takes its message only after it has changed the word.
        // Where nobody has a coroutine there is nothing to be stuck: a plain thread has given the run a job, has
        // been stopped before it looked whether somebody sleeps, and a worker has done that job meanwhile.
        let stuck = still % STIRRED == self.len() as u64
            && self.each.iter().any(|worker| worker.bench.waits.load(Ordering::SeqCst))
            && !self.each.iter().any(|worker| {
                // Under the lock, so that a job which a plain thread has begun to give is seen.
                let queue = worker.queue();
                let jobs = !queue.jobs.is_empty() || !queue.own.is_empty();
                jobs || worker.door.get().is_some_and(|door| door.is_pending())
            })
            && self.still.load(Ordering::SeqCst) == still;
        if stuck {
            self.stir();
        }
        stuck
    }

    /// The worker is awake.
    pub(crate) fn stir(&self) {
        self.still.fetch_add(STIRRED - 1, Ordering::SeqCst);
    }

    /// Has all workers but `from` cancel their coroutines, and whatever starts from now on.
    pub(crate) fn close(&self, from: usize) {
        self.closing.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for (_, worker) in self.each.iter().enumerate().filter(|(number, _)| *number != from) {
            worker.look();
        }
    }

    /// Whether [`close`](Self::close) has been called: known to whoever takes a message that was sent because
    /// of that.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Notes what the coroutines of one worker wait for, who have nobody left to wake them. Returns whether
    /// it is the first worker to say so.
    pub(crate) fn report(&self, waits: &str) -> bool {
        let mut deadlock = self.deadlock.lock().unwrap_or_else(PoisonError::into_inner);
        let first = deadlock.is_none();
        *deadlock.get_or_insert_default() += waits;
        first
    }

    /// The report of the deadlock that has ended the run, if one has.
    pub(crate) fn deadlock(&self) -> Option<String> {
        self.deadlock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.home.release();
    }
}

/// The way in for those who are in no coroutine: it outlasts the runs of its runtime.
#[derive(Default)]
pub(crate) struct Injector(Mutex<Inlet>);

#[derive(Default)]
struct Inlet {
    runs: Vec<Arc<Workers>>,
    // For the next run.
    jobs: Vec<Job>,
    closed: bool,
}

impl Injector {
    fn lock(&self) -> MutexGuard<'_, Inlet> {
        // No user code runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a job to the run, or keeps it for the next one, or drops it if there will be none.
    pub(crate) fn push(&self, mut job: Job) {
        let mut inlet = self.lock();
        for run in &inlet.runs {
            match run.push(None, job) {
                Ok(()) => return,
                Err(back) => job = back,
            }
        }
        if !inlet.closed {
            inlet.jobs.push(job);
            return;
        }
        // What it holds may be anything.
        drop(inlet);
        drop(job);
    }

    /// A run begins: it gets what has been kept.
    pub(crate) fn open(&self, run: &Arc<Workers>) {
        let mut inlet = self.lock();
        for job in std::mem::take(&mut inlet.jobs) {
            inlet.jobs.extend(run.push(None, job).err());
        }
        inlet.runs.push(Arc::clone(run));
    }

    /// A run has ended.
    pub(crate) fn leave(&self, run: &Arc<Workers>) {
        self.lock().runs.retain(|other| !Arc::ptr_eq(other, run));
    }

    /// There will be no run any more.
    pub(crate) fn close(&self) {
        let mut inlet = self.lock();
        inlet.closed = true;
        let jobs = std::mem::take(&mut inlet.jobs);
        drop(inlet);
        drop(jobs);
    }
}

impl std::fmt::Debug for Injector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injector").finish_non_exhaustive()
    }
}

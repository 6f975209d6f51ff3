//! The jobs of one worker.

use std::collections::VecDeque;

use super::super::job::Job;
use super::super::mutex::{Mutex, MutexGuard};
use super::super::shared::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The jobs of one worker, on cache lines of their own. (The processor fetches two lines at once.)
#[derive(Default)]
#[repr(align(128))]
pub(super) struct RunQueue {
    queue: Mutex<Queue>,
    // The length of `queue.jobs`, to be read without the lock.
    len: AtomicUsize,
    // Whether `queue.own` may have something.
    has_own: AtomicBool,
    /// Whether the worker had coroutines when it was last quiescent.
    pub(super) has_tasks: AtomicBool,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    /// Jobs for this worker alone.
    pub(super) own: VecDeque<Job>,
    /// The worker is not counted as busy.
    pub(super) idle: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.own.is_empty()
    }
}

impl RunQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Notes under the lock that `jobs` has changed.
    pub(super) fn note_len(&self, queue: &Queue) {
        self.len.store(queue.jobs.len(), Ordering::Relaxed);
    }

    /// Notes under the lock that `own` has something.
    pub(super) fn note_own(&self) {
        self.has_own.store(true, Ordering::Relaxed);
    }

    /// Whether there are jobs that any worker may start.
    pub(super) fn has_jobs(&self, order: Ordering) -> bool {
        self.len.load(order) > 0
    }

    /// Takes the newest job, or the `oldest`. Jobs for this worker alone come first.
    #[inline]
    pub(super) fn take(&self, oldest: bool) -> Option<Job> {
        let any = self.has_jobs(Ordering::Relaxed) || self.has_own.load(Ordering::Relaxed);
        if any { self.take_locked(oldest) } else { None }
    }

    fn take_locked(&self, oldest: bool) -> Option<Job> {
        let mut queue = self.lock();
        if let Some(job) = queue.own.pop_front() {
            return Some(job);
        }
        self.has_own.store(false, Ordering::Relaxed);
        let job = if oldest { queue.jobs.pop_front() } else { queue.jobs.pop_back() };
        self.note_len(&queue);
        job
    }
}

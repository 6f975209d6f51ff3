//! When no worker of a run can go on: how a deadlock is found.
//!
//! A worker is quiescent when it is about to sleep, no timer of its own is armed, and no wait of
//! its coroutines could be ended from outside of the run. If all workers are quiescent and no
//! message is on its way between them, nothing will ever happen again.
//!
//! One word says how many are quiescent (low half), and counts how often one has stopped being so
//! (high half). A worker that becomes quiescent has already said at its mailbox that it sleeps.
//! Then:
//!
//! 1. It adds one to the low half. If that makes all workers, it goes on as the one that checks.
//! 2. It looks through the queues, under their locks, and through the mailboxes, for a job or
//!    message.
//! 3. It reads the word again. If that is what it was after step 1, nothing has happened in
//!    between.
//!
//! What may interleave: a quiescent worker that is woken takes itself out of the word *before* it
//! takes the message. So a message that step 2 does not find was either taken by then, and step 3
//! sees another word, or was sent later, by somebody who is not quiescent: that is no worker, since
//! all are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Workers;

/// In the word, one worker that has stopped being quiescent.
const WOKEN: u64 = 1 << 32;

#[derive(Debug)]
pub(super) struct Quiescence(AtomicU64);

impl Quiescence {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Workers {
    /// The worker `number` is quiescent. Returns whether all are, for good: then this one is to
    /// report it. If not, [`wake_from_quiescence`](Self::wake_from_quiescence) must be called when
    /// it wakes up.
    pub(crate) fn quiesce(&self, number: usize, has_tasks: bool) -> bool {
        let Quiescence(word) = &self.quiescence;
        self.each[number].run_queue.has_tasks.store(has_tasks, Ordering::SeqCst);
        let before = word.fetch_add(1, Ordering::SeqCst) + 1;
        let stuck = before % WOKEN == self.len() as u64
            && self.any_has_tasks()
            && !self.any_has_news()
            && word.load(Ordering::SeqCst) == before;
        if stuck {
            self.wake_from_quiescence();
        }
        stuck
    }

    /// The worker is awake.
    pub(crate) fn wake_from_quiescence(&self) {
        self.quiescence.0.fetch_add(WOKEN - 1, Ordering::SeqCst);
    }

    /// If no worker has a coroutine this is no deadlock: a plain thread pushed a job, was preempted
    /// before it checked for sleepers, and a worker has already run the job.
    fn any_has_tasks(&self) -> bool {
        self.each.iter().any(|worker| worker.run_queue.has_tasks.load(Ordering::SeqCst))
    }

    fn any_has_news(&self) -> bool {
        self.each.iter().any(|worker| {
            // Under the lock, so that a job which a plain thread has begun to push is seen.
            let any_job = !worker.run_queue.lock().is_empty();
            any_job || worker.mailbox.get().is_some_and(|mailbox| mailbox.is_pending())
        })
    }
}

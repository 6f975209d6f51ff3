//! How a deadlock is found: no worker of a run can go on.
//!
//! A worker is quiescent when it is about to sleep, none of its timers is armed, and nothing
//! outside of the run could end a wait of its coroutines. If all workers are quiescent at the same
//! moment, and no job or message is on its way to any of them, nothing will ever happen again.
//!
//! One word holds two numbers: how many workers are quiescent (low half), and how often a worker
//! has stopped being quiescent (high half). A worker first announces its sleep at its mailbox.
//! Then:
//!
//! 1. It adds one to the low half. If all workers are quiescent now, it does the check.
//! 2. The check looks for a job in each queue, under the queue's lock, and for a message in each
//!    mailbox.
//! 3. The check reads the word again. If the word has not changed since step 1, all workers were
//!    quiescent throughout step 2.
//!
//! Interleavings: a worker that wakes up leaves the word *before* it takes its messages. So there
//! are three cases for a job or message that step 2 does not find:
//!
//! - It was taken before step 2 looked. Then its owner had left the word, which step 3 sees.
//! - A worker sent it after step 2 looked. A quiescent worker sends nothing, so the sender had left
//!   the word, which step 3 sees.
//! - A plain thread sent it after step 2 looked. Then it is too late to matter: by definition,
//!   nothing outside of the run can end a wait of a quiescent worker.

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
    /// The worker `number` is quiescent. Returns whether this is a deadlock, which this worker must
    /// then report. Otherwise it must call [`wake_from_quiescence`](Self::wake_from_quiescence)
    /// when it wakes up.
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
            // Under the lock, so that this sees a job that a plain thread has begun to push.
            let any_job = !worker.run_queue.lock().is_empty();
            any_job || worker.mailbox.get().is_some_and(|mailbox| mailbox.is_pending())
        })
    }
}

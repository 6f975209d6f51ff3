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

use super::super::shared::atomic::{AtomicU64, Ordering};

/// In the word, one worker that has stopped being quiescent.
const WOKEN: u64 = 1 << 32;

#[derive(Debug)]
pub(super) struct Quiescence(AtomicU64);

impl Quiescence {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The three steps, with `nothing_comes` as step 2. Returns whether all of `count` workers are
    /// quiescent and nothing can wake them: a deadlock. Then the worker has left the word again.
    pub(super) fn enter(&self, count: usize, nothing_comes: impl FnOnce() -> bool) -> bool {
        let Self(word) = self;
        let before = word.fetch_add(1, Ordering::SeqCst) + 1;
        let stuck = before % WOKEN == count as u64
            && nothing_comes()
            && word.load(Ordering::SeqCst) == before;
        if stuck {
            self.leave();
        }
        stuck
    }

    /// A worker is awake.
    pub(super) fn leave(&self) {
        self.0.fetch_add(WOKEN - 1, Ordering::SeqCst);
    }
}

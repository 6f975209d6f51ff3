//! The memory of the loop between its ticks and sleeps.

use std::cell::{Cell, RefCell};

use super::super::waiter::Waiter;

/// When the loop does its periodic work next, and whether it spins.
#[derive(Debug)]
pub(super) struct Pace {
    // The waiters of one poll. The vector is reused for its capacity.
    pub(super) woken: RefCell<Vec<Waiter>>,
    // A job has been started since the last tick.
    pub(super) job_started: Cell<bool>,
    // Above zero while messages come soon one after the other.
    pub(super) spin_score: Cell<i8>,
    pub(super) next_oldest: Cell<u64>,
    pub(super) next_poll: Cell<u64>,
    pub(super) next_trim: Cell<u64>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            woken: RefCell::new(Vec::new()),
            job_started: Cell::new(false),
            spin_score: Cell::new(0),
            next_oldest: Cell::new(0),
            next_poll: Cell::new(0),
            next_trim: Cell::new(0),
        }
    }

    /// Makes all periodic work due.
    pub(super) fn forget_times(&self) {
        [&self.next_oldest, &self.next_poll, &self.next_trim].iter().for_each(|next| next.set(0));
    }
}

//! Jobs for which this worker found no stack. Their ends run user code, which must not run in the
//! loop. So each becomes a coroutine that only ends: on a stack that the worker keeps in reserve,
//! one after the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;

use super::super::job::Job;
use super::super::stack::Stack;

/// The refused jobs of one worker, and its reserve.
pub(super) struct Refused {
    // While there is one, a coroutine has the stack of the reserve. So the worker is not idle, and
    // no deadlock is reported.
    jobs: RefCell<VecDeque<(Job, io::Error)>>,
    reserve: Cell<Option<Stack>>,
    // The size of the stack that the reserve lacks, or zero.
    missing: Cell<usize>,
}

impl Refused {
    pub(super) const fn new() -> Self {
        Self {
            jobs: RefCell::new(VecDeque::new()),
            reserve: Cell::new(None),
            missing: Cell::new(0),
        }
    }

    pub(super) fn push(&self, job: Job, error: io::Error) {
        self.jobs.borrow_mut().push_back((job, error));
    }

    /// Whether the reserve lacks a stack of this size.
    pub(super) fn lacks(&self, stack: &Stack) -> bool {
        stack.size() == self.missing.get()
    }

    /// Whether the reserve has its stack.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.missing.get() == 0
    }

    pub(super) fn fill(&self, stack: Stack) {
        self.missing.set(0);
        self.reserve.set(Some(stack));
    }

    /// Takes the stack of the reserve, which is not to be filled again.
    pub(super) fn clear(&self) -> Option<Stack> {
        self.missing.set(0);
        self.reserve.take()
    }

    /// The next job, and the stack on which it ends.
    pub(super) fn next(&self) -> Option<(Stack, Job, io::Error)> {
        let stack = self.reserve.take()?;
        let Some((job, error)) = self.jobs.borrow_mut().pop_front() else {
            self.reserve.set(Some(stack));
            return None;
        };
        self.missing.set(stack.size());
        Some((stack, job, error))
    }
}

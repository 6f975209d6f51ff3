//! The ready queue: first in, first out, linked through the tasks themselves.
//!
//! The scheduler's own instructions cost as much of a turn as the switch does. So this is a list
//! that allocates nothing, checks no bounds and counts no references.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::task::Task;

/// Tasks that are ready, in the order in which they are resumed.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    first: Cell<*const Task>,
    // Meaningless when `first` is null.
    last: Cell<*const Task>,
}

impl ReadyQueue {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()) }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// The task at the end. Null if there is none.
    pub(crate) fn last(&self) -> *const Task {
        if self.first.get().is_null() { ptr::null() } else { self.last.get() }
    }

    /// Appends a task.
    ///
    /// # Safety
    ///
    /// The task must not be in the queue, and must live, where it is, until it has been popped.
    #[inline]
    pub(crate) unsafe fn push(&self, task: NonNull<Task>) {
        let task = task.as_ptr();
        // SAFETY: the task is alive by the caller's promise. If the queue is not empty, `last` is
        // in it, and so is alive by the promise of its own push.
        unsafe {
            (*task).link.set(ptr::null());
            if self.first.get().is_null() {
                self.first.set(task);
            } else {
                (*self.last.get()).link.set(task);
            }
        }
        self.last.set(task);
    }

    /// Takes the first task, which is alive.
    ///
    /// With many coroutines, the memory of the next one is no longer in a near cache. So while the
    /// first task has its turn, the processor prefetches the top of the second's stack, and the
    /// third task itself, whose stack is then prefetched at the next turn.
    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<Task>> {
        let first = NonNull::new(self.first.get().cast_mut())?;
        // SAFETY: both are in the queue, so they are alive by the promise that they were pushed
        // with.
        unsafe {
            let second = first.as_ref().link.get();
            self.first.set(second);
            if let Some(second) = second.as_ref() {
                second.fetch_ahead();
                let third = second.link.get();
                if !third.is_null() {
                    Task::fetch(third);
                }
            }
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::coroutine::Coroutine;
    use crate::engine::id::Id;
    use crate::engine::stack::{MIN_SIZE, Purpose, StackPool};
    use std::collections::VecDeque;
    use std::panic::Location;

    #[test]
    fn does_what_a_deque_does() {
        let (stacks, ids) = (StackPool::new(Purpose::Own), Cell::new(0));
        let task = |_| {
            let coroutine = Coroutine::new(stacks.take(MIN_SIZE).unwrap(), || ());
            Box::new(Task::new(coroutine, Id::allocate(&ids), None, Location::caller(), None))
        };
        let tasks: Vec<Box<Task>> = (0..50).map(task).collect();
        let (queue, mut model) = (ReadyQueue::new(), VecDeque::<Id>::new());
        let mut random = 1u64;
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (random >> 33) as usize;
            let task = &tasks[pick / 4 % tasks.len()];
            // More pushes than pops for a while, then the other way round.
            if pick % 4 < 1 + (random >> 62) as usize && !model.contains(&task.id) {
                // SAFETY: the model says that it is not in the queue; `tasks` outlives that.
                unsafe { queue.push(NonNull::from(&**task)) };
                model.push_back(task.id);
            } else {
                // SAFETY: the popped task is one of `tasks`.
                let popped = queue.pop().map(|task| unsafe { task.as_ref() }.id);
                assert_eq!(popped, model.pop_front());
            }
            assert_eq!(queue.is_empty(), model.is_empty());
        }
        while model.pop_front().is_some() {
            assert!(queue.pop().is_some());
        }
        assert!(queue.pop().is_none());
        for task in tasks {
            assert!(task.coroutine.into_stack().is_some());
        }
    }
}

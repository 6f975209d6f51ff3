//! The ready queue: first in, first out, linked through the tasks themselves.
//!
//! The scheduler's own instructions cost as much of a turn as the switch does. So this is a list
//! that allocates nothing, checks no bounds and counts no references.

use std::cell::Cell;
use std::ptr;

use super::task::Task;

/// Tasks that are ready, in the order in which they are resumed.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    first: Cell<Option<&'static Task>>,
    last: Cell<Option<&'static Task>>,
}

impl ReadyQueue {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(None), last: Cell::new(None) }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    /// The task at the end. Null if there is none.
    pub(crate) fn last(&self) -> *const Task {
        self.last.get().map_or(ptr::null(), ptr::from_ref)
    }

    /// Appends a task, which must not be in the queue.
    #[inline]
    pub(crate) fn push(&self, task: &'static Task) {
        match self.last.replace(Some(task)) {
            Some(last) => last.link.set(Some(task)),
            None => self.first.set(Some(task)),
        }
    }

    /// Takes the first task.
    ///
    /// With many coroutines, the memory of the next one is no longer in a near cache. So while the
    /// first task has its turn, the processor prefetches the top of the second's stack, and the
    /// third task itself, whose stack is then prefetched at the next turn.
    #[inline]
    pub(crate) fn pop(&self) -> Option<&'static Task> {
        let first = self.first.get()?;
        let second = first.link.take();
        self.first.set(second);
        match second {
            Some(second) => {
                second.fetch_ahead();
                if let Some(third) = second.link.get() {
                    Task::fetch(third);
                }
            }
            None => self.last.set(None),
        }
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::coroutine::{Coroutine, Lent};
    use crate::engine::id::Id;
    use crate::engine::stack::{MIN_SIZE, Purpose, StackPool};
    use std::collections::VecDeque;
    use std::panic::Location;

    #[test]
    fn does_what_a_deque_does() {
        let (stacks, ids) = (StackPool::new(Purpose::Own), Cell::new(0));
        let task = |_| {
            let coroutine = Coroutine::new(stacks.take(MIN_SIZE).unwrap(), Lent::nothing(|| ()));
            Task::new(coroutine, Id::allocate(&ids), None, Location::caller(), None)
        };
        let tasks: &'static [Task] = (0..50).map(task).collect::<Vec<_>>().leak();
        let (queue, mut model) = (ReadyQueue::new(), VecDeque::<Id>::new());
        let mut random = 1u64;
        for _ in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = (random >> 33) as usize;
            let task = &tasks[pick / 4 % tasks.len()];
            // More pushes than pops for a while, then the other way round.
            if pick % 4 < 1 + (random >> 62) as usize && !model.contains(&task.id) {
                queue.push(task);
                model.push_back(task.id);
            } else {
                assert_eq!(queue.pop().map(|task| task.id), model.pop_front());
            }
            assert_eq!(queue.is_empty(), model.is_empty());
        }
        while model.pop_front().is_some() {
            assert!(queue.pop().is_some());
        }
        assert!(queue.pop().is_none());
    }
}

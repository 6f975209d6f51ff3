//! The tasks of one scheduler, by slot.
//!
//! The table owns each task from the moment it is added until its coroutine has ended. A task does
//! not move during that time, so the ready queue and the frames of its own coroutine may point to
//! it. A coroutine that has ended has no frames left. An abandoned coroutine keeps its frames, so
//! its task is leaked along with its stack.

use std::cell::RefCell;
use std::mem;
use std::ptr;
use std::sync::atomic::{Ordering, compiler_fence};

use slab::Slab;

use super::super::id::Id;
use super::super::task::Task;

/// Places of ended tasks that are kept for new ones.
const FREE_MAX: usize = 256;

/// Where a task lives. The next task may reuse it.
type Place = Box<Option<Task>>;

const _: () = assert!(size_of::<Option<Task>>() == size_of::<Task>());

#[derive(Default)]
pub(super) struct TaskTable {
    places: RefCell<Slab<Place>>,
    free: RefCell<Vec<Place>>,
}

impl TaskTable {
    pub(super) const fn new() -> Self {
        Self { places: RefCell::new(Slab::new()), free: RefCell::new(Vec::new()) }
    }

    /// The address of the slab, for a debugger.
    pub(super) fn address(&self) -> *mut () {
        self.places.as_ptr().cast()
    }

    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.borrow().is_empty()
    }

    /// Adds a task, and calls `f` with it where it now is.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn insert(&self, task: Task, f: impl FnOnce(&Task)) -> u32 {
        let mut places = self.places.borrow_mut();
        let entry = places.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 coroutines");
        let mut place = self.free.borrow_mut().pop().unwrap_or_default();
        // Nothing has taken a reference to the task before, so the compiler builds it in place.
        let task = place.insert(task);
        task.slot.set(slot);
        f(task);
        // A signal handler that comes from here on sees the borrow. (The fence comes after the task
        // is in its place: before that, it would keep the compiler from building it there.)
        compiler_fence(Ordering::SeqCst);
        entry.insert(place);
        compiler_fence(Ordering::SeqCst);
        slot
    }

    /// Removes the task in a slot, whose coroutine has ended, and calls `f`, which must run no user
    /// code, with it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn remove<R>(&self, slot: u32, f: impl FnOnce(Task) -> R) -> Option<R> {
        let mut place = self.take(slot);
        let result = place.take().map(f);
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_MAX {
            free.push(place);
        }
        result
    }

    /// Removes the task in a slot and leaks it. Its coroutine will never end.
    pub(super) fn leak(&self, slot: u32) {
        mem::forget(self.take(slot));
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take(&self, slot: u32) -> Place {
        let mut places = self.places.borrow_mut();
        compiler_fence(Ordering::SeqCst);
        let place = places.remove(slot as usize);
        compiler_fence(Ordering::SeqCst);
        place
    }

    /// Calls `f`, which must run no user code, with the task in a slot.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn with<R>(&self, slot: u32, f: impl FnOnce(&Task) -> R) -> Option<R> {
        self.places.borrow().get(slot as usize)?.as_ref().as_ref().map(f)
    }

    /// Prefetches the task in a slot.
    #[inline]
    pub(super) fn fetch(&self, slot: u32) {
        if let Some(place) = self.places.borrow().get(slot as usize) {
            Task::fetch(ptr::from_ref::<Option<Task>>(place).cast());
        }
    }

    /// [`with`](Self::with), if the slot still has the task with this id.
    pub(super) fn find<R>(&self, slot: u32, id: Id, f: impl FnOnce(&Task) -> R) -> Option<R> {
        self.with(slot, |task| (task.id == id).then(|| f(task))).flatten()
    }

    /// [`for_each`](Self::for_each), unless the table is being changed at this moment. Returns
    /// whether it is not. Async-signal-safe, if `f` is.
    pub(super) fn try_for_each(&self, f: impl FnMut(&Task)) -> bool {
        let Ok(places) = self.places.try_borrow() else { return false };
        places.iter().filter_map(|(_, place)| place.as_ref().as_ref()).for_each(f);
        true
    }

    /// Calls `f`, which must run no user code, with each task.
    pub(super) fn for_each(&self, f: impl FnMut(&Task)) {
        self.places.borrow().iter().filter_map(|(_, place)| place.as_ref().as_ref()).for_each(f);
    }
}

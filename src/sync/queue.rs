//! `Queue`.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::event::Event;
use super::mutex::{Mutex, MutexGuard};
use super::semaphore::{Semaphore, TryAcquireError};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::task::Wait;

/// Work for others: who puts may wait until it is all done. (Python's `queue`.)
///
/// What comes out first is for the constructor to say. Those who wait are served in the order in
/// which they came, and what is put is never lost to one who is cancelled.
///
/// ```
/// use plainsong::sync::Queue;
///
/// let queue = Queue::fifo(Some(2));
/// plainsong::run(|| {
///     plainsong::scope(|s| {
///         s.spawn(|| {
///             while let Ok(n) = queue.get() {
///                 let _: i32 = n; // some work
///                 queue.task_done();
///             }
///         });
///         (0..10).for_each(|n| queue.put(n).unwrap()); // waits while there is no room
///         queue.join();
///         queue.shutdown(false);
///     });
/// });
/// ```
pub struct Queue<T> {
    state: Mutex<State<T>>,
    // A permit for each item, and one for each item more that there is room for: so that who waits is
    // served in order.
    items: Semaphore,
    room: Option<Semaphore>,
    capacity: Option<usize>,
    // Set while nothing that was put is unfinished.
    finished: Event,
}

struct State<T> {
    store: Store<T>,
    push: fn(&mut Store<T>, T),
    pop: fn(&mut Store<T>) -> Option<T>,
    unfinished: usize,
    shut_down: bool,
}

enum Store<T> {
    Line(VecDeque<T>),
    Heap(BinaryHeap<Ranked<T>>, u64),
}

/// The least comes first, and among equals the one that was put first.
struct Ranked<T>(T, u64);

impl<T: Ord> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

impl<T: Ord> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Ranked<T> {}

/// The queue is shut down; with what was to be put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PutError<T>(pub T);

/// Why nothing was put; with what was to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room, or was none in time.
    Full(T),
    /// The queue is shut down.
    ShutDown(T),
}

/// The queue is shut down, and empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetError;

/// Why nothing was got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryGetError {
    /// Nothing is there for this caller, or came in time.
    Empty,
    /// The queue is shut down, and empty.
    ShutDown,
}

impl<T> Store<T> {
    fn len(&self) -> usize {
        match self {
            Self::Line(items) => items.len(),
            Self::Heap(items, _) => items.len(),
        }
    }

    fn push_back(&mut self, item: T) {
        if let Self::Line(items) = self {
            items.push_back(item);
        }
    }

    fn pop_front(&mut self) -> Option<T> {
        if let Self::Line(items) = self { items.pop_front() } else { None }
    }

    fn pop_back(&mut self) -> Option<T> {
        if let Self::Line(items) = self { items.pop_back() } else { None }
    }
}

impl<T: Ord> Store<T> {
    fn push_ranked(&mut self, item: T) {
        if let Self::Heap(items, next) = self {
            *next += 1;
            items.push(Ranked(item, *next));
        }
    }

    fn pop_ranked(&mut self) -> Option<T> {
        if let Self::Heap(items, _) = self { items.pop().map(|Ranked(item, _)| item) } else { None }
    }
}

impl<T> Queue<T> {
    /// First in, first out; with room for `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    pub fn fifo(capacity: Option<usize>) -> Self {
        let store = Store::Line(VecDeque::new());
        Self::with(store, Store::push_back, Store::pop_front, capacity)
    }

    /// Last in, first out; with room for `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    pub fn lifo(capacity: Option<usize>) -> Self {
        let store = Store::Line(VecDeque::new());
        Self::with(store, Store::push_back, Store::pop_back, capacity)
    }

    /// The least item first, and equal ones in the order in which they were put; with room for
    /// `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    pub fn priority(capacity: Option<usize>) -> Self
    where
        T: Ord,
    {
        let store = Store::Heap(BinaryHeap::new(), 0);
        Self::with(store, Store::push_ranked, Store::pop_ranked, capacity)
    }

    fn with(
        store: Store<T>,
        push: fn(&mut Store<T>, T),
        pop: fn(&mut Store<T>) -> Option<T>,
        capacity: Option<usize>,
    ) -> Self {
        assert!(capacity != Some(0), "a queue without room: nothing could ever be put");
        let finished = Event::new();
        finished.set();
        Self {
            state: Mutex::new(State { store, push, pop, unfinished: 0, shut_down: false }),
            items: Semaphore::new(0),
            room: capacity.map(Semaphore::new),
            capacity,
            finished,
        }
    }

    /// Waits for room and puts `item`.
    ///
    /// # Errors
    ///
    /// When the queue is shut down, with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been put.
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_until(item, None).map_err(|error| PutError(error.into_inner()))
    }

    /// Waits for room and puts `item`, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `Full` when the time is over, `ShutDown` when the queue is; with the item.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; the item has not been put.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), TryPutError<T>> {
        self.put_until(item, park::deadline(timeout))
    }

    /// Puts `item`, if there is room and nobody waits for it.
    ///
    /// # Errors
    ///
    /// `Full` when there is none, `ShutDown` when the queue is; with the item.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        let room = self.room.as_ref().map_or(Ok(None), |room| room.try_acquire().map(Some));
        self.put_with(item, room.map(|room| room.into_iter().for_each(|room| room.forget())))
    }

    /// Waits for an item and takes it.
    ///
    /// # Errors
    ///
    /// When the queue is shut down, and empty.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; it has then taken nothing.
    pub fn get(&self) -> Result<T, GetError> {
        self.get_until(None).map_err(|_| GetError)
    }

    /// Waits for an item and takes it, for `timeout` at most.
    ///
    /// # Errors
    ///
    /// `Empty` when the time is over; `ShutDown` when the queue is, and empty.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits; it has then taken nothing.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, TryGetError> {
        self.get_until(park::deadline(timeout))
    }

    /// Takes an item, if there is one that nobody waits for.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none; `ShutDown` when the queue is, and empty.
    pub fn try_get(&self) -> Result<T, TryGetError> {
        self.get_with(self.items.try_acquire().map(|permit| permit.forget()))
    }

    /// Says that one item that was got has been dealt with.
    ///
    /// # Panics
    ///
    /// When that has been said more often than items were put.
    pub fn task_done(&self) {
        let mut state = self.lock();
        let Some(left) = state.unfinished.checked_sub(1) else {
            drop(state);
            panic!("task_done() was called more often than items were put");
        };
        self.set_unfinished(&mut state, left);
    }

    /// Waits until everything that was put has been dealt with, as [`task_done`](Self::task_done) tells.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn join(&self) {
        self.finished.wait_for(Wait::for_any_thread("the items of a queue to be done"), None);
    }

    /// Takes no more items. Those that are in the queue can still be got; if `immediate`, they
    /// are dropped, and count as dealt with. Whoever waits is told when nothing is left for it.
    pub fn shutdown(&self, immediate: bool) {
        let mut state = self.lock();
        state.shut_down = true;
        let mut dropped = Vec::new();
        if immediate {
            let State { store, pop, .. } = &mut *state;
            dropped.extend(std::iter::from_fn(|| pop(store)));
            let left = state.unfinished.saturating_sub(dropped.len());
            self.set_unfinished(&mut state, left);
        }
        drop(state);
        self.items.close();
        self.room.as_ref().inspect(|room| room.close());
        drop(dropped);
    }

    /// How many items are in the queue.
    pub fn len(&self) -> usize {
        self.lock().store.len()
    }

    /// Whether no item is in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room for one more item.
    pub fn is_full(&self) -> bool {
        self.capacity.is_some_and(|capacity| self.len() >= capacity)
    }

    /// For how many items there is room, if that is limited.
    pub fn capacity(&self) -> Option<usize> {
        self.capacity
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // It is soon free, and what is told to a queue must reach it though who tells it is cancelled.
        //
        // Code of the user's runs under it, an item's order, and a panic there leaves a heap in order
        // enough.
        park::shield(|| self.state.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unfinished(&self, state: &mut State<T>, count: usize) {
        state.unfinished = count;
        if count == 0 {
            self.finished.set();
        } else if self.finished.is_set() {
            self.finished.clear();
        }
    }

    fn put_until(&self, item: T, deadline: Option<Instant>) -> Result<(), TryPutError<T>> {
        let room = match &self.room {
            Some(room) => room.take_for(1, Wait::for_any_thread("room in a queue"), deadline),
            None => {
                park::spend();
                Ok(())
            }
        };
        self.put_with(item, room)
    }

    /// Puts `item`, if room was got for it.
    fn put_with(&self, item: T, room: Result<(), TryAcquireError>) -> Result<(), TryPutError<T>> {
        match room {
            Ok(()) => {}
            Err(TryAcquireError::Closed) => return Err(TryPutError::ShutDown(item)),
            Err(TryAcquireError::NoPermits) => return Err(TryPutError::Full(item)),
        }
        // The lock may have to be waited for: where that is forbidden, the room is another's.
        let give_back = Defer::new(|| self.give_room());
        let mut state = self.lock();
        give_back.disarm();
        if state.shut_down {
            drop(state);
            return Err(TryPutError::ShutDown(item));
        }
        let unfinished = state.unfinished + 1;
        self.set_unfinished(&mut state, unfinished);
        // The item's order may panic, and the item is there all the same.
        let _count = Defer::new(|| self.items.add_permits(1));
        let State { store, push, .. } = &mut *state;
        push(store, item);
        drop(state);
        Ok(())
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<T, TryGetError> {
        self.get_with(self.items.take_for(1, Wait::for_any_thread("an item of a queue"), deadline))
    }

    /// Takes an item, if one was got.
    fn get_with(&self, item: Result<(), TryAcquireError>) -> Result<T, TryGetError> {
        if item == Err(TryAcquireError::NoPermits) {
            return Err(TryGetError::Empty);
        }
        let give_back = Defer::new(|| self.items.add_permits(1));
        let mut state = self.lock();
        give_back.disarm();
        // The order of the others may panic, and this one is gone all the same.
        let _room = Defer::new(|| self.give_room());
        let State { store, pop, .. } = &mut *state;
        // After a shutdown it is first come, first served, so there may be none.
        let item = pop(store).ok_or(TryGetError::ShutDown)?;
        drop(state);
        Ok(item)
    }

    fn give_room(&self) {
        self.room.as_ref().inspect(|room| room.add_permits(1));
    }
}

impl<T> Default for Queue<T> {
    /// First in, first out, with room for any number.
    fn default() -> Self {
        Self::fifo(None)
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Queue");
        if let Ok(state) = self.state.try_lock() {
            out.field("len", &state.store.len()).field("unfinished", &state.unfinished);
            out.field("shut_down", &state.shut_down);
        }
        out.field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl<T> TryPutError<T> {
    /// What was to be put.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::ShutDown(item) => item,
        }
    }
}

const SHUT_DOWN: &str = "the queue is shut down";

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PutError(..)")
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHUT_DOWN)
    }
}

impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::ShutDown(_) => "ShutDown(..)",
        })
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full",
            Self::ShutDown(_) => SHUT_DOWN,
        })
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHUT_DOWN)
    }
}

impl fmt::Display for TryGetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the queue is empty",
            Self::ShutDown => SHUT_DOWN,
        })
    }
}

impl<T> Error for PutError<T> {}
impl<T> Error for TryPutError<T> {}
impl Error for GetError {}
impl Error for TryGetError {}

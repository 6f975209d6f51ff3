//! `Queue`.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::error::Error;
use std::fmt;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::event::Event;
use super::reentrant::ReentrantMutex;
use super::semaphore::{Semaphore, TryAcquireError};
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::task::Wait;

const WAIT_FOR_ITEM: Wait =
    Wait::new(&Wait::for_any_thread("an item of a queue").of("get", "Queue"));
const WAIT_FOR_ROOM: Wait = Wait::new(&Wait::for_any_thread("room in a queue").of("put", "Queue"));
const WAIT_FOR_END: Wait =
    Wait::new(&Wait::for_any_thread("the items of a queue to be done").of("join", "Queue"));

/// Work for others: a producer may wait until all of it is done. (Python's `queue`.)
///
/// The constructor decides which item comes out first. Waiters are served in the order in which
/// they came, and an item is never lost to a waiter that is cancelled.
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
    // The lock notices when an item's order, which runs under it, uses the queue.
    state: ReentrantMutex<RefCell<State<T>>>,
    // A permit for each item, and one for each item more that there is room for, so that waiters
    // are served in order. Without `room` there is room for any number.
    items: Semaphore,
    room: Option<Semaphore>,
    capacity: Option<usize>,
    // Set while every item that was put is done.
    finished: Event,
}

struct State<T> {
    store: Store<T>,
    unfinished: usize,
    shut_down: bool,
}

enum Store<T> {
    Fifo(VecDeque<T>),
    Lifo(Vec<T>),
    Priority(Priority<T>),
}

struct Priority<T> {
    heap: BinaryHeap<Ranked<T>>,
    compare: fn(&T, &T) -> Ordering,
    next: u64,
}

/// An item of a heap whose maximum is the least item, and among equals the one that was put first.
struct Ranked<T> {
    // `None` when it has been taken out, and is about to leave the heap.
    item: Option<T>,
    number: u64,
    // With each item, as only the constructor knows that items have an order.
    compare: fn(&T, &T) -> Ordering,
}

// A panic of an item's order may leave a heap misordered, but usable.
impl<T> UnwindSafe for Queue<T> {}
impl<T> RefUnwindSafe for Queue<T> {}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let items = other.item.as_ref().zip(self.item.as_ref());
        let order = items.map_or(Ordering::Equal, |(other, item)| (self.compare)(other, item));
        order.then(other.number.cmp(&self.number))
    }
}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> Store<T> {
    fn len(&self) -> usize {
        match self {
            Self::Fifo(items) => items.len(),
            Self::Lifo(items) => items.len(),
            Self::Priority(items) => items.heap.len(),
        }
    }

    fn push(&mut self, item: T) {
        match self {
            Self::Fifo(items) => items.push_back(item),
            Self::Lifo(items) => items.push(item),
            Self::Priority(Priority { heap, compare, next }) => {
                *next += 1;
                heap.push(Ranked { item: Some(item), number: *next, compare: *compare });
            }
        }
    }

    /// Moves the next item to `to`. It is there also if the order of the others panics then.
    fn pop(&mut self, to: &mut Option<T>) {
        match self {
            Self::Fifo(items) => *to = items.pop_front(),
            Self::Lifo(items) => *to = items.pop(),
            Self::Priority(items) => {
                if let Some(mut first) = items.heap.peek_mut() {
                    *to = first.item.take();
                    PeekMut::pop(first);
                }
            }
        }
    }

    /// Takes all items out, in no particular order: no code of users runs.
    fn take_all(&mut self) -> Vec<T> {
        match self {
            Self::Fifo(items) => mem::take(items).into(),
            Self::Lifo(items) => mem::take(items),
            Self::Priority(items) => items.heap.drain().filter_map(|ranked| ranked.item).collect(),
        }
    }
}

/// The queue is shut down. Holds the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PutError<T>(pub T);

/// Why nothing was put. Holds the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room, or there was none in time.
    Full(T),
    /// The queue is shut down.
    ShutDown(T),
}

/// The queue is shut down, and empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetError;

/// Why no item was got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryGetError {
    /// There is no item for this caller, or none came in time.
    Empty,
    /// The queue is shut down, and empty.
    ShutDown,
}

impl<T> Queue<T> {
    /// First in, first out; with room for `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[track_caller]
    pub fn fifo(capacity: Option<usize>) -> Self {
        Self::with_store(Store::Fifo(VecDeque::new()), capacity)
    }

    /// Last in, first out; with room for `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[track_caller]
    pub fn lifo(capacity: Option<usize>) -> Self {
        Self::with_store(Store::Lifo(Vec::new()), capacity)
    }

    /// The least item first, and equal ones in the order in which they were put; with room for
    /// `capacity` items, or any number.
    ///
    /// The order of the items must not use this queue: a call on it from `T::cmp` panics.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[track_caller]
    pub fn priority(capacity: Option<usize>) -> Self
    where
        T: Ord,
    {
        let items = Priority { heap: BinaryHeap::new(), compare: T::cmp, next: 0 };
        Self::with_store(Store::Priority(items), capacity)
    }

    #[track_caller]
    fn with_store(store: Store<T>, capacity: Option<usize>) -> Self {
        assert!(capacity != Some(0), "a queue without room: nothing could ever be put");
        let finished = Event::new();
        finished.set();
        // No memory holds more items than a semaphore has permits.
        let room = capacity.filter(|&capacity| capacity <= Semaphore::MAX_PERMITS);
        Self {
            state: ReentrantMutex::new(RefCell::new(State {
                store,
                unfinished: 0,
                shut_down: false,
            })),
            items: Semaphore::new(0),
            // `map` would hide the place of the call.
            #[expect(clippy::manual_map)]
            room: match room {
                Some(room) => Some(Semaphore::new(room)),
                None => None,
            },
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
    #[track_caller]
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
    #[track_caller]
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), TryPutError<T>> {
        self.put_until(item, park::deadline(timeout))
    }

    /// Puts `item`, if there is room and no waiter for it.
    ///
    /// # Errors
    ///
    /// `Full` when there is none, `ShutDown` when the queue is; with the item.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        let room = match &self.room {
            Some(room) => room.try_acquire().map(|permit| permit.forget()),
            None => Ok(()),
        };
        self.put_with(item, room)
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
    #[track_caller]
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
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, TryGetError> {
        self.get_until(park::deadline(timeout))
    }

    /// Takes an item, if there is one and no waiter for it.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none; `ShutDown` when the queue is, and empty.
    pub fn try_get(&self) -> Result<T, TryGetError> {
        self.get_with(self.items.try_acquire().map(|permit| permit.forget()))
    }

    /// Says that one item that was got is done.
    ///
    /// # Panics
    ///
    /// When it is called more often than items were put.
    pub fn task_done(&self) {
        let counted = self.with(|state| {
            let left = state.unfinished.checked_sub(1)?;
            self.set_unfinished(state, left);
            Some(())
        });
        assert!(counted.is_some(), "task_done() was called more often than items were put");
    }

    /// Waits until [`task_done`](Self::task_done) has been called for every item that was put.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn join(&self) {
        self.finished.wait_for(WAIT_FOR_END, None);
    }

    /// Takes no more items. Those that are in the queue can still be got; if `immediate`, they
    /// are dropped, and count as done. A waiter for which nothing is left gets an error.
    pub fn shutdown(&self, immediate: bool) {
        let dropped = self.with(|state| {
            state.shut_down = true;
            let dropped = if immediate { state.store.take_all() } else { Vec::new() };
            let left = state.unfinished.saturating_sub(dropped.len());
            self.set_unfinished(state, left);
            dropped
        });
        self.items.close();
        if let Some(room) = &self.room {
            room.close();
        }
        drop(dropped);
    }

    /// How many items are in the queue.
    pub fn len(&self) -> usize {
        self.with(|state| state.store.len())
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

    /// Calls `f` with the state.
    ///
    /// A cancellation is held back meanwhile: `task_done` must take effect even if its caller is
    /// being cancelled, and an item that is being taken out must not be lost. The lock is held
    /// briefly, but for `Ord::cmp`, which runs under it and may wait. If that panics, the heap may
    /// be misordered but stays usable.
    fn with<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        park::shield(|| {
            let state = self.state.lock();
            let Ok(mut state) = state.try_borrow_mut() else {
                panic!(
                    "the order of an item (`Ord::cmp`) must not use the queue that the item is put \
                     in"
                )
            };
            f(&mut state)
        })
    }

    fn set_unfinished(&self, state: &mut State<T>, count: usize) {
        state.unfinished = count;
        if count == 0 {
            self.finished.set();
        } else if self.finished.is_set() {
            self.finished.clear();
        }
    }

    #[track_caller]
    fn put_until(&self, item: T, deadline: Option<Instant>) -> Result<(), TryPutError<T>> {
        let room = match &self.room {
            Some(room) => room.take_for(1, WAIT_FOR_ROOM, deadline),
            None => {
                park::spend();
                Ok(())
            }
        };
        self.put_with(item, room)
    }

    /// Puts `item`, if `room` was acquired for it.
    fn put_with(&self, item: T, room: Result<(), TryAcquireError>) -> Result<(), TryPutError<T>> {
        match room {
            Ok(()) => {}
            Err(TryAcquireError::Closed) => return Err(TryPutError::ShutDown(item)),
            Err(TryAcquireError::NoPermits) => return Err(TryPutError::Full(item)),
        }
        // The lock may have to be waited for, and where waits are forbidden that panics.
        let give_back = Defer::new(|| self.give_room());
        self.with(|state| {
            give_back.disarm();
            if state.shut_down {
                return Err(TryPutError::ShutDown(item));
            }
            let unfinished = state.unfinished + 1;
            self.set_unfinished(state, unfinished);
            // The item's order may panic, and the item is in the queue all the same.
            let _count = Defer::new(|| self.items.add_permits(1));
            state.store.push(item);
            Ok(())
        })
    }

    #[track_caller]
    fn get_until(&self, deadline: Option<Instant>) -> Result<T, TryGetError> {
        self.get_with(self.items.take_for(1, WAIT_FOR_ITEM, deadline))
    }

    /// Takes an item, if a `permit` was acquired for it.
    fn get_with(&self, permit: Result<(), TryAcquireError>) -> Result<T, TryGetError> {
        if permit == Err(TryAcquireError::NoPermits) {
            return Err(TryGetError::Empty);
        }
        // The lock may have to be waited for, and where waits are forbidden that panics.
        let give_back = Defer::new(|| self.items.add_permits(1));
        // Not in the closure: if it is dropped by an unwind, its destructor may use the queue.
        let mut item = None;
        self.with(|state| {
            give_back.disarm();
            // The order of the other items may panic, and this one is out of the queue all the
            // same.
            let _room = Defer::new(|| self.give_room());
            state.store.pop(&mut item);
        });
        // After a shutdown the items go to any caller, so there may be none left.
        item.ok_or(TryGetError::ShutDown)
    }

    fn give_room(&self) {
        if let Some(room) = &self.room {
            room.add_permits(1);
        }
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
        let guard = self.state.try_lock();
        if let Some(state) = guard.as_ref().and_then(|state| state.try_borrow().ok()) {
            out.field("len", &state.store.len()).field("unfinished", &state.unfinished);
            out.field("shut_down", &state.shut_down);
        }
        out.field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl<T> TryPutError<T> {
    /// The item that was not put.
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

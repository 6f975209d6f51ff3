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

use super::lock::Lock;
use super::reentrant::ReentrantMutex;
use super::semaphore::{Semaphore, TryAcquireError};
use super::wait::{About, WaitQueue, wait};
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
    store: Locked<T>,
    progress: Lock<Progress>,
    // A permit for each item, and one for each item more that there is room for, so that waiters
    // are served in order. Without `room` there is room for any number.
    items: Semaphore,
    room: Option<Semaphore>,
    capacity: Option<usize>,
}

/// The items, under the lock that their kind needs.
enum Locked<T> {
    // No code of users runs under this lock, so no operation waits for it.
    Plain(Lock<Store<T>>),
    // The items' order runs under this one, and may wait. The lock notices when it uses the queue.
    Ordered(ReentrantMutex<RefCell<Store<T>>>),
}

/// How far the work is. A put looks and counts here while it holds the store: so it puts nothing
/// after an immediate shutdown has taken the items out, or after a getter has been told of a
/// shutdown. (The locks are taken in this order only.)
struct Progress {
    // How many items were put and are not done.
    unfinished: usize,
    shut_down: bool,
    // Those that wait until all is done.
    joining: WaitQueue<()>,
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

impl<T> Locked<T> {
    /// Calls `f` with the store. If its lock is that of users' code, that may wait, and so may
    /// this: a cancellation is held back meanwhile, so that no item is lost that is being taken
    /// out. If the order panics, the heap may be misordered but stays usable.
    fn with<R>(&self, f: impl FnOnce(&mut Store<T>) -> R) -> R {
        match self {
            Self::Plain(store) => f(&mut store.lock()),
            Self::Ordered(store) => park::shield(|| {
                let store = store.lock();
                let Ok(mut store) = store.try_borrow_mut() else {
                    panic!(
                        "the order of an item (`Ord::cmp`) must not use the queue that the item is \
                         put in"
                    )
                };
                f(&mut store)
            }),
        }
    }

    /// How many items there are, unless an order runs at this moment.
    fn try_len(&self) -> Option<usize> {
        match self {
            Self::Plain(store) => Some(store.lock().len()),
            Self::Ordered(store) => Some(store.try_lock()?.try_borrow().ok()?.len()),
        }
    }
}

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
        Self::with_store(Locked::Plain(Lock::new(Store::Fifo(VecDeque::new()))), capacity)
    }

    /// Last in, first out; with room for `capacity` items, or any number.
    ///
    /// # Panics
    ///
    /// When the capacity is zero.
    #[track_caller]
    pub fn lifo(capacity: Option<usize>) -> Self {
        Self::with_store(Locked::Plain(Lock::new(Store::Lifo(Vec::new()))), capacity)
    }

    /// The least item first, and equal ones in the order in which they were put; with room for
    /// `capacity` items, or any number.
    ///
    /// `T::cmp` is your code, and may wait. Until it returns, other calls that put, get or count
    /// items wait, `try_put` and `try_get` too, and so does an immediate shutdown. Where waits are
    /// refused, as in a [`no_wait`](crate::no_wait), these calls panic instead. (An immediate
    /// shutdown has taken effect by then, but has dropped no items.) `T::cmp` itself must not make
    /// any of these calls: that panics, too.
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
        let store = ReentrantMutex::new(RefCell::new(Store::Priority(items)));
        Self::with_store(Locked::Ordered(store), capacity)
    }

    #[track_caller]
    fn with_store(store: Locked<T>, capacity: Option<usize>) -> Self {
        assert!(capacity != Some(0), "a queue without room: nothing could ever be put");
        // No memory holds more items than a semaphore has permits.
        let room = capacity.filter(|&capacity| capacity <= Semaphore::MAX_PERMITS);
        Self {
            store,
            progress: Lock::new(Progress {
                unfinished: 0,
                shut_down: false,
                joining: WaitQueue::new(),
            }),
            items: Semaphore::new(0),
            // `map` would hide the place of the call.
            #[expect(clippy::manual_map)]
            room: match room {
                Some(room) => Some(Semaphore::new(room)),
                None => None,
            },
            capacity,
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
        assert!(self.finish(1), "task_done() was called more often than items were put");
    }

    /// Waits until [`task_done`](Self::task_done) has been called for every item that was put.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn join(&self) {
        park::spend();
        let (lock, why) = (&self.progress, WAIT_FOR_END);
        let progress = lock.lock();
        if progress.unfinished > 0 {
            let _ = wait(lock, progress, |p| &mut p.joining, (), why, None, |_| About::NOTHING);
        }
    }

    /// Takes no more items. Those that are in the queue can still be got; if `immediate`, they
    /// are dropped, and count as done. A waiter for which nothing is left gets an error.
    pub fn shutdown(&self, immediate: bool) {
        self.progress.lock().shut_down = true;
        self.items.close();
        if let Some(room) = &self.room {
            room.close();
        }
        if immediate {
            let dropped = self.store.with(Store::take_all);
            self.finish(dropped.len());
        }
    }

    /// How many items are in the queue.
    pub fn len(&self) -> usize {
        self.store.with(|store| store.len())
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

    /// Counts `count` items as done. Returns whether there were as many.
    fn finish(&self, count: usize) -> bool {
        let mut progress = self.progress.lock();
        let enough = progress.unfinished >= count;
        progress.unfinished = progress.unfinished.saturating_sub(count);
        let all_done = progress.unfinished == 0;
        let joined = all_done.then(|| progress.joining.serve_all(|()| ()));
        drop(progress);
        park::wake_all(joined.into_iter().flatten());
        enough
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
        // Not in the closure: it may wake a getter, which is done when the lock has been released.
        let mut _count = None;
        self.store.with(|store| {
            give_back.disarm();
            let mut progress = self.progress.lock();
            if progress.shut_down {
                drop(progress);
                return Err(TryPutError::ShutDown(item));
            }
            progress.unfinished += 1;
            drop(progress);
            // The item's order may panic, and the item is in the queue all the same.
            _count = Some(Defer::new(|| self.items.add_permits(1)));
            store.push(item);
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
        // Nor is this, which may wake one that puts.
        let mut _room = None;
        self.store.with(|store| {
            give_back.disarm();
            // The order of the other items may panic, and this one is out of the queue all the
            // same.
            _room = Some(Defer::new(|| self.give_room()));
            store.pop(&mut item);
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
        let Progress { unfinished, shut_down, .. } = *self.progress.lock();
        let mut out = f.debug_struct("Queue");
        if let Some(len) = self.store.try_len() {
            out.field("len", &len);
        }
        out.field("unfinished", &unfinished).field("shut_down", &shut_down);
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

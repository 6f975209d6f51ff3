//! Locks, channels and other ways for coroutines and threads to synchronise, in the shape of
//! [`std::sync`].
//!
//! A wait parks only the coroutine that waits; on a plain thread it blocks that thread, and both
//! may meet at the same lock. Waiters are served in the order in which they came.
//!
//! # Waits and cancellation
//!
//! A coroutine that is cancelled while it waits leaves its queue at the request: it acquires, sends
//! and receives nothing after that, and its share goes to the next waiter. A lock, permit or item
//! that it was given before the request is never lost: the call returns it.
//!
//! Every operation that may wait uses up a part of its coroutine's turn, also when it need not
//! wait. So a loop of such operations lets the other coroutines run, and can be cancelled. The
//! `try_` methods of locks, channels and queues neither wait nor let others run, so that they can
//! be used where a switch would be wrong, as in a destructor. (Those of a [priority
//! queue](Queue::priority) may wait.) A loop of nothing but `try_` methods keeps its thread: call
//! [`yield_now`](crate::yield_now) in it. (A `select!` that has a `default` does let
//! others run.)

mod barrier;
mod call_once;
pub mod channel;
mod condvar;
mod event;
mod guard;
mod holder;
pub(crate) mod lock;
pub mod mpsc;
mod mutex;
mod once;
pub(crate) mod operation;
mod poison;
mod promise;
mod queue;
mod raw_mutex;
mod raw_rwlock;
mod reentrant;
mod rwlock;
pub mod select;
mod semaphore;
pub(crate) mod wait;
mod wait_group;

pub use std::sync::{
    Arc, LockResult, OnceState, PoisonError, TryLockError, TryLockResult, Weak, atomic,
};

pub use barrier::{Barrier, BarrierWaitResult};
pub use call_once::Once;
pub use channel::{broadcast, oneshot, watch};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use mutex::{Mutex, MutexGuard, OwnedMutexGuard};
pub use once::{LazyLock, OnceLock};
pub(crate) use promise::Cancel;
pub use promise::{Promise, PromiseError};
pub use queue::{GetError, PutError, Queue, TryGetError, TryPutError};
pub use reentrant::{ReentrantMutex, ReentrantMutexGuard};
pub use rwlock::{
    OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub use semaphore::{
    AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};
pub use wait_group::WaitGroup;

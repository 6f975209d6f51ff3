//! Locks and what else coroutines and threads talk with, in the shape of [`std::sync`].
//!
//! Everything here parks only the coroutine that waits; on a plain thread it blocks that thread,
//! and both may meet at the same lock. Who waits first is served first.

mod barrier;
pub mod channel;
mod condvar;
mod event;
mod guard;
mod lock;
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
mod wait;
mod wait_group;

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

pub use barrier::{Barrier, BarrierWaitResult};
pub use channel::{broadcast, oneshot, watch};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use mutex::{Mutex, MutexGuard, OwnedMutexGuard};
pub use once::{LazyLock, OnceLock};
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

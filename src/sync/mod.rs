//! Locks and what else coroutines and threads talk with, in the shape of [`std::sync`].
//!
//! Everything here parks only the coroutine that waits; on a plain thread it blocks that thread,
//! and both may meet at the same lock. Who waits first is served first.

pub mod channel;
mod lock;
pub mod mpsc;
mod mutex;
pub(crate) mod operation;
pub mod select;
mod wait;

pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

pub use channel::{broadcast, oneshot, watch};
pub use mutex::{Mutex, MutexGuard, OwnedMutexGuard};

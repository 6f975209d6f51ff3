//! [`std::sync`](mod@::std::sync): locks park the coroutine that waits.

mod locks;

pub use self::locks::{Mutex, RwLock};
pub use ::plainsong::sync::{
    Barrier, BarrierWaitResult, Condvar, LazyLock, MutexGuard, Once, OnceLock, RwLockReadGuard,
    RwLockWriteGuard, WaitTimeoutResult,
};
pub use ::std::sync::*;

/// A [`Once`] that has called no closure yet.
#[deprecated = "use `Once::new()`"]
#[allow(clippy::declare_interior_mutable_const)]
pub const ONCE_INIT: Once = Once::new();

/// [`std::sync::mpsc`](mod@::std::sync::mpsc): channels park the coroutine that waits.
pub mod mpsc {
    pub use ::plainsong::sync::mpsc::{
        IntoIter, Iter, Receiver, Sender, SyncSender, TryIter, channel, sync_channel,
    };
    pub use ::std::sync::mpsc::*;
}

//! Spawning, joining and cancelling coroutines, and waiting for many of them at once.

mod body;
mod builder;
mod cancel;
mod group;
mod join;
mod local;
mod scope;
mod spawn;
pub(crate) mod thread;
mod wait;

pub use body::Body;
pub use builder::Builder;
pub use cancel::{
    CancellationToken, Elapsed, fail_after, fail_at, no_unwind, no_wait, shield, timeout,
    timeout_at,
};
pub(crate) use group::Group;
pub(crate) use join::message;
pub use join::{JoinError, JoinHandle};
pub use local::{AccessError, LocalKey};
pub use scope::{Scope, ScopedJoinHandle, gather, race, scope};
pub use spawn::{spawn, spawn_anywhere, yield_now};
pub(crate) use wait::WAIT_ANY;
pub use wait::{AsCompleted, as_completed, join_all, wait};

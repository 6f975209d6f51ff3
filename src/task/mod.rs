//! Coroutines as their users see them, and ways to wait for many of them at once.

mod anywhere;
mod cancel;
mod group;
mod join;
mod local;
mod scope;
mod spawn;
mod wait;

pub(crate) use anywhere::inject;
pub use anywhere::spawn_anywhere;
pub use cancel::{CancellationToken, Elapsed, no_wait, shield, timeout, timeout_at};
pub(crate) use group::Group;
pub(crate) use join::message;
pub use join::{JoinError, JoinHandle};
pub use local::{AccessError, LocalKey};
pub use scope::{Scope, ScopedJoinHandle, gather, race, scope};
pub(crate) use spawn::spawn_on;
pub use spawn::{Builder, spawn, yield_now};
pub use wait::{AsCompleted, as_completed, join_all, wait};

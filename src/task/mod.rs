//! Coroutines as their users see them.

mod cancel;
mod join;
mod local;
mod spawn;

pub(crate) use cancel::Target;
pub use cancel::{CancellationToken, Elapsed, no_wait, shield, timeout, timeout_at};
pub use join::{JoinError, JoinHandle};
pub use local::{AccessError, LocalKey};
pub use spawn::{Builder, spawn, yield_now};
pub(crate) use spawn::{drop_locals, spawn_at, spawn_on};

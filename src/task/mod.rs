//! Coroutines as their users see them.

mod join;
mod local;
mod spawn;

pub use join::{JoinError, JoinHandle};
pub use local::{AccessError, LocalKey};
pub use spawn::{Builder, spawn, yield_now};
pub(crate) use spawn::{drop_locals, spawn_at, spawn_on};

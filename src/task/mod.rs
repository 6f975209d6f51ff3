//! Coroutines as their users see them.

mod join;
mod local;
mod packet;
mod spawn;

pub use join::{JoinError, JoinHandle};
pub use local::{AccessError, LocalKey};
pub use spawn::{Builder, spawn, yield_now};
pub(crate) use spawn::{spawn_at, spawn_on};

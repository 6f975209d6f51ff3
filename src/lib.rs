//! plainsong

mod engine;
pub mod generator;
pub mod io;
pub mod net;
mod runtime;
mod task;
pub mod thread;
pub mod time;

pub use engine::task::Id;
pub use runtime::{Builder as RuntimeBuilder, Runtime, run, run_all};
pub use task::{
    AccessError, Builder, CancellationToken, JoinError, JoinHandle, LocalKey, no_wait, shield,
    spawn, yield_now,
};
pub use thread::current;

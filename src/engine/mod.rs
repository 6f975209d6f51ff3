//! The engine: the only place that switches stacks, asks the kernel what is ready, and keeps
//! time. The list goes from the bottom to the top: a file uses only files above it in this list, and
//! `tests/tidy.rs` holds them to that.
//!
//! Everything outside of the engine that waits or wakes does so through [`park`].

// Memory, numbers and data structures.
pub(crate) mod shared;

pub(crate) mod mutex;

pub(crate) mod abort;

pub(crate) mod defer;

pub(crate) mod pin;

pub(crate) mod id;

pub(crate) mod stack;

pub(crate) mod timer;

pub(crate) mod scopes;

// One coroutine, and what waits.
pub(crate) mod coroutine;

pub(crate) mod mailbox;

pub(crate) mod waiter;

pub(crate) mod reactor;

pub(crate) mod task;

pub(crate) mod ready;

pub(crate) mod current;

pub(crate) mod cancel;

pub(crate) mod blocking_pool;

pub(crate) mod overflow;

pub(crate) mod job;

// The threads of a run, and the loop of each.
pub(crate) mod workers;

pub(crate) mod scheduler;

pub(crate) mod context;

pub(crate) mod panic_hook;

// What the rest of the crate uses.
pub(crate) mod park;

pub(crate) mod descriptor;

pub(crate) mod blocking;

pub(crate) mod packet;

pub(crate) mod address;

pub(crate) mod spawn;

pub(crate) mod root;

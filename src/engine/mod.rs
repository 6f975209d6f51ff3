//! The engine: the only place that switches stacks, asks the kernel which descriptors are ready,
//! and keeps time.
//!
//! To read it, begin with the loop and one wait, in this order:
//!
//! 1. `scheduler/mod.rs`, and from there `Scheduler::run`: the loop, its turns, and the life of a
//!    coroutine from `add` to `retire`.
//! 2. [`park`]: the four steps of a wait, and how a wake ends it.
//! 3. `io/source.rs`, outside of the engine: a read that tries, and waits for the descriptor if it
//!    must. From there, [`descriptor`] and [`reactor`] lead to the kernel.
//!
//! Next come [`scopes`] and [`cancel`] for cancellation, [`mailbox`] for other threads, and
//! [`workers`] for runs on many threads.
//!
//! The list below goes from the bottom to the top: a file uses only files above it in the list,
//! which `tests/tidy.rs` checks. Code outside of the engine waits and wakes through [`park`], and
//! waits for descriptors through [`descriptor`].

// Memory, numbers and data structures.
pub(crate) mod shared;

pub(crate) mod processor;

#[cfg(feature = "sanitizer")]
pub(crate) mod sanitizer;

pub(crate) mod mutex;

pub(crate) mod abort;

pub(crate) mod defer;

pub(crate) mod order;

pub(crate) mod error;

pub(crate) mod pin;

pub(crate) mod id;

pub(crate) mod fd;

pub(crate) mod subject;

pub(crate) mod endpoint;

pub(crate) mod bounds;

pub(crate) mod mapping;

pub(crate) mod ticks;

pub(crate) mod core_files;

pub(crate) mod stack;

pub(crate) mod timer;

pub(crate) mod scopes;

pub(crate) mod settings;

// One coroutine, and its waits.
pub(crate) mod coroutine;

pub(crate) mod mailbox;

pub(crate) mod waiter;

pub(crate) mod reactor;

pub(crate) mod task;

pub(crate) mod debugger;

pub(crate) mod ready;

pub(crate) mod numbers;

pub(crate) mod recorder;

pub(crate) mod facts;

pub(crate) mod rows;

pub(crate) mod survey;

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

pub(crate) mod signals;

// The engine as the rest of the crate sees it.
pub(crate) mod park;

pub(crate) mod descriptor;

pub(crate) mod blocking;

pub(crate) mod packet;

pub(crate) mod address;

pub(crate) mod spawn;

pub(crate) mod root;

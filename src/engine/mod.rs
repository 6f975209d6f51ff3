//! The engine: the only place that switches stacks, asks the kernel what is ready, and keeps
//! time. The list is in the order in which to read it. What most files share, the thread's own
//! state, is in `context`, which stands near the end and is known to those before it.

pub(crate) mod stack;

pub(crate) mod coroutine;

pub(crate) mod timer;

pub(crate) mod task;

pub(crate) mod ready;

pub(crate) mod shared;

pub(crate) mod remote;

pub(crate) mod workers;

pub(crate) mod reactor;

pub(crate) mod cancel;

pub(crate) mod scheduler;

pub(crate) mod calls;

mod idle;

mod interrupt;

mod deadlock;

pub(crate) mod context;

pub(crate) mod overflow;

pub(crate) mod job;

pub(crate) mod address;

pub(crate) mod packet;

pub(crate) mod blocking;

pub(crate) mod root;

pub(crate) mod pin;

//! The engine: the only place that switches stacks, asks the kernel what is ready, and keeps
//! time. Each file uses only those above it in this list, except that the scheduler and the
//! context know each other.

pub(crate) mod stack;

pub(crate) mod coroutine;

pub(crate) mod timer;

pub(crate) mod task;

pub(crate) mod ready;

pub(crate) mod remote;

pub(crate) mod reactor;

pub(crate) mod cancel;

pub(crate) mod scheduler;

mod interrupt;

mod deadlock;

pub(crate) mod context;

pub(crate) mod overflow;

pub(crate) mod packet;

pub(crate) mod blocking;

pub(crate) mod root;

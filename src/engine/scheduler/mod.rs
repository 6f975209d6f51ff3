//! One thread's scheduler: the ready queue, the loop, and how a coroutine is parked and woken.
//!
//! Read `Scheduler::run` in `run.rs` first. There is one place for each step in the life of a
//! coroutine: `add`, `park` and `wake_task` in `core.rs`, and `resume` and `retire` in `run.rs`.
//!
//! No borrow of scheduler state is held while a coroutine runs, and the only user code in
//! the loop are the wakers of futures, called by `wake`.
//!
//! The list goes from the bottom to the top, like that of the engine.

// The parts, which do not use the scheduler.
mod alarms;
mod calls;
mod clock;
mod host;
mod observer;
mod outside;
mod pace;
mod refused;
mod sleeps;
mod table;
mod unwinding;

// The scheduler.
mod core;

mod cancelling;

mod survey;

mod closing;

mod tick;

mod run;

mod guest;

pub(crate) use self::calls::{Call, CallKey};
pub(crate) use self::core::Scheduler;
pub(crate) use self::guest::{Guest, Slice};
pub(crate) use self::observer::set_measures;
pub(crate) use self::sleeps::SleepKey;

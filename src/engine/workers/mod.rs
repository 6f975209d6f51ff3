//! The threads of one run, and the coroutines that have not started on any of them.
//!
//! A coroutine that has started never leaves its thread. A [`Job`] is a coroutine that has not
//! started, so any worker may start it. Each worker has a queue of jobs. It starts its newest job
//! first, which keeps few stacks in use in a program that branches like a tree. From time to time
//! it starts its oldest job, so that no job waits forever. A worker with nothing to do steals the
//! oldest jobs of another worker.
//!
//! # The end of a run
//!
//! The run is over when no worker has a coroutine, a call or a job. `busy` counts the workers that
//! have any of these:
//!
//! 1. A worker without coroutines and calls locks its own queue. If the queue has no job either,
//!    the worker marks it `idle`, unlocks it, and subtracts itself from `busy`. If that makes zero,
//!    it wakes all workers, so that they see the end.
//! 2. A thread that pushes a job locks the worker's queue. If the queue is `idle`, the thread adds
//!    one to `busy` and clears the mark before it pushes.
//! 3. An idle worker that wakes up does the same for itself.
//! 4. Zero is final: steps 2 and 3 do not add to it. At zero, step 2 refuses the job, and step 3
//!    ends the worker.
//!
//! Possible interleaving: a push may come between the unlock and the subtraction in step 1. Then
//! `busy` counts that worker once too often for a moment, but never too rarely. So `busy` is above
//! zero while any queue has a job. Only a plain thread can have its push refused: a coroutine that
//! pushes runs on a worker that is counted itself.

mod injector;
mod question;
mod quiescence;
mod run;
mod run_queue;

pub(crate) use self::injector::{Injector, WorkerHandle};
pub(crate) use self::question::Question;
pub(crate) use self::run::{Idle, RunId, Workers};

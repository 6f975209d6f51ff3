//! Tests from outside, with real sockets, threads and processes.
//!
//! A file per type, in the folder of its module, and `traps` for behaviour that cuts across types.
//! A test waits for an event wherever it can, and never fails because the machine is slow:
//! `util::watch` only turns a hang into a failure.

// The tests need the compiler that the project is built with, the library an older one.
#![allow(clippy::incompatible_msrv)]

mod fs;
mod inspect;
mod io;
mod metrics;
mod net;
mod process;
mod recorder;
mod runtime;
mod signals;
mod sync;
mod sys;
mod task;
mod time;
mod traps;
mod util;

//! The promises of plainsong, tried from outside: real sockets, real threads, real processes.
//!
//! A file per type in the folder of its module, and `traps` for what cuts across types. No test waits
//! for a time to pass where it can wait for an event, and none fails because a machine is slow:
//! `util::watch` only turns a hang into a failure.

mod fs;
mod io;
mod net;
mod process;
mod runtime;
mod signals;
mod sync;
mod sys;
mod task;
mod time;
mod traps;
mod util;

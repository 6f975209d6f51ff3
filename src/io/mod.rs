//! Waiting for descriptors, any descriptor as a stream, and the standard streams.

pub(crate) mod copy;
mod lock;
mod pollable;
pub(crate) mod source;
mod stdio;

pub use copy::{ReadLent, copy};
pub use pollable::{Pollable, wait_readable, wait_writable};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};

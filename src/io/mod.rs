//! Waiting for descriptors, any descriptor as a stream, the standard streams, and streams in memory.

pub(crate) mod copy;
mod duplex;
mod pollable;
pub(crate) mod source;
mod stdio;

pub use copy::{ReadLent, copy};
pub use duplex::{DuplexStream, duplex};
pub use pollable::{Pollable, wait_readable, wait_writable};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};

//! Waiting for descriptors, any descriptor as a stream, the standard streams, and streams in
//! memory.

pub(crate) mod copy;
mod duplex;
pub(crate) mod error;
pub(crate) mod pipe;
mod pollable;
pub(crate) mod source;
mod stdio;

pub use copy::{ReadPooled, copy};
pub use duplex::{DuplexStream, duplex};
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pollable::{Pollable, wait_readable, wait_writable};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};

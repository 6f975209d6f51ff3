//! Waiting for descriptors, any descriptor as a stream, the standard streams, pipes, and streams in
//! memory. The parts of [`std::io`] that do not wait themselves are re-exported.

pub(crate) mod copy;
mod deadline;
mod direction;
mod duplex;
mod lines;
pub(crate) mod pipe;
mod pollable;
pub(crate) mod ready;
pub(crate) mod source;
mod stdio;
pub(crate) mod waits;

pub use copy::{ReadPooled, copy};
pub use duplex::{DuplexStream, duplex};
pub use lines::LineReader;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use pollable::{Pollable, wait_readable, wait_ready, wait_writable};
pub use ready::Interest;
pub use std::io::{
    BufRead, BufReader, BufWriter, Bytes, Chain, Cursor, Empty, Error, ErrorKind, IntoInnerError,
    IoSlice, IoSliceMut, IsTerminal, LineWriter, Lines, Read, Repeat, Result, Seek, SeekFrom, Sink,
    Split, Take, Write, WriterPanicked, empty, prelude, read_to_string, repeat, sink,
};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};

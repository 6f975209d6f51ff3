//! `copy`, in which idle connections hold no buffer.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::Deref;

thread_local! {
    // Buffers that are not in use.
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// How many unused buffers a thread keeps.
const BUFFERS_MAX: usize = 16;

/// A stream of this crate that can wait without a buffer: a [`TcpStream`](crate::net::TcpStream), a
/// [`UnixStream`](crate::net::UnixStream), or a reference to one.
#[diagnostic::on_unimplemented(
    message = "`copy` cannot wait on `{Self}` without a buffer",
    label = "not a `TcpStream` or `UnixStream` of plainsong",
    note = "`std::io::copy` takes any reader; a stream of std becomes one of ours: \
            `plainsong::net::TcpStream::from(stream)`"
)]
pub trait ReadPooled: Read + sealed::Sealed {
    // Only this crate calls it.

    /// Waits for data, takes a buffer and reads into it.
    #[doc(hidden)]
    fn read_pooled(&self) -> io::Result<PooledBuf>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

impl<R: ReadPooled> sealed::Sealed for &R where for<'a> &'a R: Read {}

impl<R: ReadPooled> ReadPooled for &R
where
    for<'a> &'a R: Read,
{
    fn read_pooled(&self) -> io::Result<PooledBuf> {
        (**self).read_pooled()
    }
}

/// Copies from `reader` to `writer` until the reader's end, and returns how many bytes that were.
///
/// This is [`std::io::copy`], except that it holds no buffer while it waits for more to read. The
/// buffers belong to the worker, which needs about as many as there are copies that wait to write.
/// So an idle connection uses one page of its stack, and three in std's copy.
///
/// # Errors
///
/// The first error of reading or writing. Data that was read and not yet written is lost.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while it waits. If it waits to read, it has written all
/// that it has read.
///
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
///         plainsong::io::copy(&mut &conn, &mut &conn)
///     }))
/// }
/// ```
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: ReadPooled + ?Sized,
    W: Write + ?Sized,
{
    let mut copied = 0;
    loop {
        let data = reader.read_pooled()?;
        if data.is_empty() {
            return Ok(copied);
        }
        writer.write_all(&data)?;
        copied += data.len() as u64;
    }
}

/// Data in a buffer that goes back to the worker's pool when this is dropped.
#[derive(Debug)]
pub struct PooledBuf {
    // `None` only during the drop.
    buffer: Option<Box<[u8]>>,
    len: usize,
}

impl PooledBuf {
    /// Small enough to stay in a processor's first-level cache beside the other data of a copy.
    pub(crate) const CAPACITY: usize = 16 * 1024;

    /// Takes a buffer of the pool and reads into it. A failed read puts it back.
    pub(crate) fn fill(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Self> {
        let buffer = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
        let buffer = buffer.unwrap_or_else(|| vec![0; Self::CAPACITY].into());
        // From here on the drop puts it back, however this ends.
        let mut filled = Self { buffer: Some(buffer), len: 0 };
        if let Some(buffer) = &mut filled.buffer {
            filled.len = read(buffer)?;
        }
        Ok(filled)
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.len])
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // A thread that is ending has no pool.
            let _ = BUFFERS.try_with(|buffers| {
                let mut buffers = buffers.borrow_mut();
                if buffers.len() < BUFFERS_MAX {
                    buffers.push(buffer);
                }
            });
        }
    }
}

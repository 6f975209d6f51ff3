//! Copying without a buffer for each that waits.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::Deref;

thread_local! {
    // Buffers that nothing on this thread uses.
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps when nothing uses them.
const BUFFERS_MAX: usize = 16;

/// A stream of this crate that can wait without a buffer: a [`TcpStream`](crate::net::TcpStream), a
/// [`UnixStream`](crate::net::UnixStream), or a reference to one.
pub trait ReadLent: Read + sealed::Sealed {
    // What this crate does with it is nobody else's business.

    /// Waits until something has come, takes a buffer and reads into it.
    #[doc(hidden)]
    fn read_lent(&self) -> io::Result<Lent>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

impl<R: ReadLent> sealed::Sealed for &R where for<'a> &'a R: Read {}

impl<R: ReadLent> ReadLent for &R
where
    for<'a> &'a R: Read,
{
    fn read_lent(&self) -> io::Result<Lent> {
        (**self).read_lent()
    }
}

/// Copies from `reader` to `writer` until the reader's end, and returns how many bytes that were.
///
/// This is [`std::io::copy`], but for one thing: while it waits for more to read, it holds no buffer. Buffers
/// are lent by the worker, which needs about as many as there are copies that wait to write. So an
/// idle connection takes one page of its stack, where one in std's takes three.
///
/// # Errors
///
/// The first of reading or writing; what was read and not written is lost with it.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled while it waits. Where that is for more to read, all that was read has been
/// written.
///
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     plainsong::run(|| plainsong::net::serve("127.0.0.1:4915", |conn| {
///         plainsong::io::copy(&mut &conn, &mut &conn).map(drop)
///     }))
/// }
/// ```
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: ReadLent + ?Sized,
    W: Write + ?Sized,
{
    let mut copied = 0;
    loop {
        let lent = reader.read_lent()?;
        if lent.is_empty() {
            return Ok(copied);
        }
        writer.write_all(&lent)?;
        copied += lent.len() as u64;
    }
}

/// What was read, in a buffer that goes back to the worker.
#[derive(Debug)]
pub struct Lent {
    // `None` only while it is dropped.
    buffer: Option<Box<[u8]>>,
    len: usize,
}

/// As much as stays in a processor's first cache beside what else a copy touches.
const BUFFER_BYTES: usize = 16 * 1024;

impl Lent {
    /// Reads into a buffer of the worker, and takes it along unless that fails.
    pub(crate) fn fill(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Self> {
        let buffer = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
        let buffer = buffer.unwrap_or_else(|| vec![0; BUFFER_BYTES].into());
        // From here on it goes back, whatever happens.
        let mut lent = Self { buffer: Some(buffer), len: 0 };
        if let Some(buffer) = &mut lent.buffer {
            lent.len = read(buffer)?;
        }
        Ok(lent)
    }

    /// Whether some has been read, and less than there was room for.
    pub(crate) fn is_short(&self) -> bool {
        self.len > 0 && self.len < BUFFER_BYTES
    }
}

impl Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.len])
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // A thread that is ending keeps none.
            let _ = BUFFERS.try_with(|buffers| {
                let mut buffers = buffers.borrow_mut();
                if buffers.len() < BUFFERS_MAX {
                    buffers.push(buffer);
                }
            });
        }
    }
}

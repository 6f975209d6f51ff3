//! tokio's traits, without its runtime.

#![allow(unsafe_code)]

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Async, Readable};

impl<T: Readable + Unpin> AsyncRead for Async<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Async::poll_read(&self, cx, buf.remaining(), |stream| {
            // SAFETY: the slice is only given to `try_read_uninit`, which takes no initialisation
            // away.
            let unfilled = unsafe { buf.unfilled_mut() };
            stream.try_read_uninit(unfilled).map(|read| read.len())
        });
        let len = ready!(read)?;
        // SAFETY: `try_read_uninit` has initialised this many bytes at the start of the slice.
        unsafe { buf.assume_init(len) };
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

crate::writer!(AsyncWrite);

/// A stream with tokio's traits, for coroutines: [`Read`] and [`Write`], which park only the
/// coroutine.
///
/// # Cancellation
///
/// A call unwinds while it waits.
#[derive(Debug)]
pub struct SyncIo<T>(T);

impl<T> SyncIo<T> {
    /// Wraps a stream.
    pub fn new(stream: T) -> Self {
        Self(stream)
    }

    /// The stream.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// Unwraps the stream.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsyncWrite + Unpin> SyncIo<T> {
    /// Ends the direction that writes, after what was written.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub fn shutdown(&mut self) -> io::Result<()> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_shutdown(cx)))
    }
}

impl<T: AsyncRead + Unpin> Read for SyncIo<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (start, len) = (buf.as_ptr(), buf.len());
        let mut buf = ReadBuf::new(buf);
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_read(cx, &mut buf)))?;
        // The stream may have put another buffer in its place.
        if buf.filled().as_ptr() != start || buf.capacity() != len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the stream has exchanged the buffer it was to read into: report it to its author",
            ));
        }
        Ok(buf.filled().len())
    }
}

impl<T: AsyncWrite + Unpin> Write for SyncIo<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_write(cx, buf)))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_write_vectored(cx, bufs)))
    }

    fn flush(&mut self) -> io::Result<()> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_flush(cx)))
    }
}

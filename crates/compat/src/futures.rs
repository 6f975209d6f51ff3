//! The traits of `futures-io`.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::futures_io::{AsyncRead, AsyncWrite};

use crate::{Async, Readable, Writable};

impl<T: Readable + Unpin> AsyncRead for Async<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Async::poll_read(&self, cx, buf.len(), |stream| stream.try_read(buf))
    }
}

impl<T: Writable + Unpin> AsyncWrite for Async<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Async::poll_write(&self, cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Async::poll_write(&self, cx, |stream| stream.try_write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.end())
    }
}

/// A stream with the traits of `futures-io`, for coroutines: [`Read`] and [`Write`], which park
/// only the coroutine.
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
    pub fn close(&mut self) -> io::Result<()> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_close(cx)))
    }
}

impl<T: AsyncRead + Unpin> Read for SyncIo<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_read(cx, buf)))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        plainsong::block_on(poll_fn(|cx| Pin::new(&mut self.0).poll_read_vectored(cx, bufs)))
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

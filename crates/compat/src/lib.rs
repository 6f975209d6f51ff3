//! plainsong's streams and timers for async crates, and the streams of async crates for coroutines.
//!
//! [`Async`] wraps a stream of plainsong. It implements the traits of the features that are
//! enabled:
//!
//! | feature | `Async<T>` implements | also |
//! | --- | --- | --- |
//! | `futures-io` | `futures_io::{AsyncRead, AsyncWrite}` | `futures::SyncIo` |
//! | `tokio` | `tokio::io::{AsyncRead, AsyncWrite}` | `tokio::SyncIo` |
//! | `hyper` | `hyper::rt::{Read, Write}` | `hyper::Timer`, `hyper::Executor` |
//!
//! The futures are driven by [`plainsong::block_on`] in a coroutine. So each connection of a server
//! is a coroutine, and no other runtime is needed.
//!
//! Both directions of a stream may be used at once: [`split`] makes two owned halves. As with
//! tokio's streams, each direction has one waker, that of its last poll.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Implements the trait for writers of tokio or of hyper, which has the same methods as tokio's.
#[cfg(any(feature = "hyper", feature = "tokio"))]
macro_rules! writer {
    ($write:ident) => {
        impl<T: $crate::Writable + Unpin> $write for $crate::Async<T> {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $crate::Async::poll_write(&self, cx, |stream| stream.try_write(buf))
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $crate::Async::poll_write(&self, cx, |stream| stream.try_write_vectored(bufs))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.0.end())
            }
        }
    };
}
#[cfg(any(feature = "hyper", feature = "tokio"))]
use writer;

#[cfg(feature = "futures-io")]
pub mod futures;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tokio")]
pub mod tokio;

/// The adapters rely on what [`Readable::try_read_uninit`] does, so only this crate implements the
/// traits.
///
/// ```compile_fail
/// use std::{io, mem::MaybeUninit, task::{Context, Poll}};
///
/// struct Stream;
///
/// impl plainsong_compat::Readable for Stream {
///     fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
///         Poll::Ready(Ok(()))
///     }
///     fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
///         Ok(0)
///     }
///     fn try_read_uninit<'a>(&self, _: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]> {
///         Ok(vec![0; 100].leak())
///     }
/// }
/// ```
mod sealed {
    use super::*;

    pub trait Sealed {}

    macro_rules! sealed {
        ($($type:ty),*) => { $(impl Sealed for $type {})* };
    }

    sealed!(TcpStream, UnixStream, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr);
    impl<T: Readable> Sealed for ReadHalf<T> {}
    impl<T: Writable> Sealed for WriteHalf<T> {}
}

/// A stream of plainsong that can be read in a future. Other crates cannot implement it.
pub trait Readable: sealed::Sealed {
    /// As [`TcpStream::poll_read_ready`](plainsong::net::TcpStream::poll_read_ready).
    ///
    /// # Errors
    ///
    /// On a thread on which no runtime of plainsong runs.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`TcpStream::try_read`](plainsong::net::TcpStream::try_read).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; those of the system.
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// As [`TcpStream::try_read_uninit`](plainsong::net::TcpStream::try_read_uninit).
    ///
    /// # Errors
    ///
    /// Those of [`try_read`](Self::try_read).
    fn try_read_uninit<'a>(&self, buf: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]>;
}

/// A stream of plainsong that can be written in a future. Other crates cannot implement it.
pub trait Writable: sealed::Sealed {
    /// As [`TcpStream::poll_write_ready`](plainsong::net::TcpStream::poll_write_ready).
    ///
    /// # Errors
    ///
    /// On a thread on which no runtime of plainsong runs.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`TcpStream::try_write`](plainsong::net::TcpStream::try_write).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room; those of the system.
    fn try_write(&self, buf: &[u8]) -> io::Result<usize>;

    /// As [`TcpStream::try_write_vectored`](plainsong::net::TcpStream::try_write_vectored).
    ///
    /// # Errors
    ///
    /// Those of [`try_write`](Self::try_write).
    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the direction, where the stream has another one.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn end(&self) -> io::Result<()>;
}

macro_rules! readable {
    ($($type:ty),*) => {$(
        impl Readable for $type {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(cx)
            }

            fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.try_read(buf)
            }

            fn try_read_uninit<'a>(
                &self,
                buf: &'a mut [MaybeUninit<u8>],
            ) -> io::Result<&'a mut [u8]> {
                self.try_read_uninit(buf)
            }
        }
    )*};
}

macro_rules! writable {
    ($($type:ty: |$stream:ident| $end:expr),*) => {$(
        impl Writable for $type {
            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(cx)
            }

            fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
                self.try_write(buf)
            }

            fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.try_write_vectored(bufs)
            }

            fn end(&self) -> io::Result<()> {
                let $stream = self;
                $end
            }
        }
    )*};
}

use plainsong::io::{PipeReader, PipeWriter};
use plainsong::net::{TcpStream, UnixStream};
use plainsong::process::{ChildStderr, ChildStdin, ChildStdout};

readable!(TcpStream, UnixStream, PipeReader, ChildStdout, ChildStderr);
writable!(
    TcpStream: |stream| unless_closed(stream.shutdown(std::net::Shutdown::Write)),
    UnixStream: |stream| unless_closed(stream.shutdown(std::net::Shutdown::Write)),
    PipeWriter: |_stream| Ok(()),
    ChildStdin: |_stream| Ok(())
);

/// The other side may have closed first, which is no error of this one.
fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// A stream of plainsong, with the traits of async crates.
///
/// ```
/// # #[cfg(feature = "futures-io")] {
/// use futures_util::{AsyncReadExt, AsyncWriteExt};
/// use plainsong_compat::Async;
///
/// plainsong::run(|| {
///     let (one, two) = plainsong::net::UnixStream::pair().unwrap();
///     let (mut one, mut two) = (Async::new(one), Async::new(two));
///     plainsong::block_on(async {
///         one.write_all(b"hello").await.unwrap();
///         one.close().await.unwrap();
///         let mut text = String::new();
///         two.read_to_string(&mut text).await.unwrap();
///         assert_eq!(text, "hello");
///     });
/// });
/// # }
/// ```
#[derive(Debug)]
pub struct Async<T>(T);

impl<T> Async<T> {
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

impl<T> From<T> for Async<T> {
    fn from(stream: T) -> Self {
        Self::new(stream)
    }
}

/// Splits a stream into two halves, each with the traits for its direction. Dropping the half that
/// writes ends its direction.
pub fn split<T: Readable + Writable>(stream: T) -> (Async<ReadHalf<T>>, Async<WriteHalf<T>>) {
    let stream = Arc::new(stream);
    (Async(ReadHalf(Arc::clone(&stream))), Async(WriteHalf(stream)))
}

/// The half of a stream that reads. Made by [`split`].
#[derive(Debug)]
pub struct ReadHalf<T>(Arc<T>);

/// The half of a stream that writes. Made by [`split`].
#[derive(Debug)]
pub struct WriteHalf<T: Writable>(Arc<T>);

impl<T: Writable> Drop for WriteHalf<T> {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = self.0.end();
    }
}

impl<T: Readable> Readable for ReadHalf<T> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }

    fn try_read_uninit<'a>(&self, buf: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a mut [u8]> {
        self.0.try_read_uninit(buf)
    }
}

impl<T: Writable> Writable for WriteHalf<T> {
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn try_write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn end(&self) -> io::Result<()> {
        self.0.end()
    }
}

impl<T: Readable> Async<T> {
    /// Reads up to `room` bytes with `read`, when there are some.
    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&T) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if room == 0 {
            // It does not wait for bytes that it cannot take.
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match read(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl<T: Writable> Async<T> {
    fn poll_write<R>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

//! Descriptors of any kind: as streams, and to wait for.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::ioctl_fionbio;

use super::ready::{
    Interest as Direction, read_deadline, read_readiness, selectable, try_io, write_deadline,
    write_readiness,
};
use super::source::Source;
use super::waits::{is_ready, poll_one, spend};
use crate::engine::reactor::Interest;
use crate::engine::{blocking_pool as pool, park};

/// Any pollable descriptor (a pipe, an eventfd, a terminal, a socket of another library) as a
/// stream whose `read` and `write` park only their own coroutine.
///
/// `Pollable<T>` and `&Pollable<T>` implement [`Read`] and [`Write`] where `&T` does, so one
/// coroutine can read while another writes.
///
/// The descriptor is put in non-blocking mode. It shares that mode with its duplicates in this and
/// other processes: do not wrap a standard stream that was inherited from a shell.
///
/// ```
/// use plainsong::io::Pollable;
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// plainsong::run(|| {
///     let (one, two) = UnixStream::pair()?;
///     let (mut one, mut two) = (Pollable::new(one)?, Pollable::new(two)?);
///     let child = plainsong::spawn(move || {
///         let mut line = [0; 5];
///         one.read_exact(&mut line).map(|()| line)
///     });
///     two.write_all(b"hello")?;
///     assert_eq!(&child.join().unwrap()?, b"hello");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
pub struct Pollable<T: AsFd> {
    io: T,
    // `T` may be any type, and its descriptor may change. So the reactor knows a duplicate, which
    // only this source can close.
    source: Source<OwnedFd>,
}

impl<T: AsFd> Pollable<T> {
    /// Wraps a descriptor.
    ///
    /// # Errors
    ///
    /// When it cannot be duplicated or put in non-blocking mode.
    pub fn new(io: T) -> io::Result<Self> {
        let fd = io.as_fd().try_clone_to_owned()?;
        ioctl_fionbio(&fd, true)?;
        Ok(Self { io, source: Source::new(fd) })
    }

    /// The wrapped value.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Unwraps it; it stays in non-blocking mode.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Calls `op`, which reads, until it does not fail with `WouldBlock`, and waits in between.
    ///
    /// Return `WouldBlock` only if the descriptor itself would block: data left unread raises no
    /// further event.
    ///
    /// # Errors
    ///
    /// Those of `op`.
    ///
    /// # Cancellation
    ///
    /// Unwinds in the waits between the calls of `op`.
    pub fn read_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.source.retry_user(Interest::Read, || op(&self.io))
    }

    /// Calls `op`, which writes, until it does not fail with `WouldBlock`, and waits in between.
    ///
    /// Return `WouldBlock` only if the descriptor itself would block: room left unused raises no
    /// further event.
    ///
    /// # Errors
    ///
    /// Those of `op`.
    ///
    /// # Cancellation
    ///
    /// Unwinds in the waits between the calls of `op`.
    pub fn write_with<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.source.retry_user(Interest::Write, || op(&self.io))
    }

    read_deadline!(self, self.source);
    write_deadline!(self, self.source);
    read_readiness!(self, self.source);
    write_readiness!(self, self.source);
    try_io!(self, self.source);
}

impl<T: AsFd> Pollable<T>
where
    for<'a> &'a T: Read,
{
    /// Reads what is there, and waits for nothing.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; those of the system.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.try_once(Interest::Read, |_| (&self.io).read(buf))
    }
}

impl<T: AsFd> Pollable<T>
where
    for<'a> &'a T: Write,
{
    /// Writes as much as there is room for, and waits for nothing.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room; those of the system.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.source.try_once(Interest::Write, |_| (&self.io).write(buf))
    }
}

impl<T: AsFd> Read for &Pollable<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(|mut io| io.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_with(|mut io| io.read_vectored(bufs))
    }
}

impl<T: AsFd> Read for Pollable<T>
where
    for<'a> &'a T: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl<T: AsFd> Write for &Pollable<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(|mut io| io.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|mut io| io.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_with(|mut io| io.flush())
    }
}

impl<T: AsFd> Write for Pollable<T>
where
    for<'a> &'a T: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

selectable!(Readable, read_side, [T: AsFd] Pollable<T>, self, self.source);
selectable!(Writable, write_side, [T: AsFd] Pollable<T>, self, self.source);

impl<T: AsFd> AsFd for Pollable<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Pollable<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_fd().as_raw_fd()
    }
}

/// Waits until `fd` can be read without blocking: there is data, the end of the stream, or an
/// error.
///
/// Costs a few system calls; [`Pollable`] is cheaper for repeated waits for one descriptor. A
/// regular file is always ready. The descriptor's mode is left alone.
///
/// # Errors
///
/// When it is not ready, and cannot be duplicated or watched.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled; nothing has been read.
pub fn wait_readable(fd: impl AsFd) -> io::Result<()> {
    wait(fd.as_fd(), Interest::Read)
}

/// Waits until `fd` can be read or written without blocking, as `interest` says. Otherwise like
/// [`wait_readable`].
///
/// # Errors
///
/// When it is not ready, and cannot be duplicated or watched.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled; nothing has been read or written.
///
/// ```
/// use plainsong::io::{Interest, wait_ready};
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// let (one, _two) = UnixStream::pair()?;
/// plainsong::run(|| wait_ready(&one, Interest::WRITABLE))
/// # }
/// ```
pub fn wait_ready(fd: impl AsFd, interest: Direction) -> io::Result<()> {
    wait(fd.as_fd(), interest.0)
}

/// Waits until `fd` can be written without blocking. Otherwise like [`wait_readable`].
///
/// # Errors
///
/// When it is not ready, and cannot be duplicated or watched.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled; nothing has been written.
pub fn wait_writable(fd: impl AsFd) -> io::Result<()> {
    wait(fd.as_fd(), Interest::Write)
}

pub(super) fn wait(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    spend()?;
    // Before anything else, as a wait needs a descriptor, and there may be none left.
    if is_ready(fd, interest)? {
        return Ok(());
    }
    if !park::in_coroutine() {
        return pool::while_blocked(|| poll_one(fd, interest, None)).map(drop);
    }
    // A duplicate, as the descriptor itself may be registered already.
    let source = Source::new(fd.try_clone_to_owned()?);
    source.retry(interest, |fd| match is_ready(fd.as_fd(), interest)? {
        true => Ok(()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    })
}

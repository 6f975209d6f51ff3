//! Methods of every stream and socket: its deadlines, and its readiness for futures, which wakes a
//! waker instead of parking a coroutine.

use crate::engine::reactor;

/// The direction of a [`try_io`](crate::net::TcpStream::try_io): tokio's type of this name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest(pub(crate) reactor::Interest);

impl Interest {
    /// It reads, or accepts.
    pub const READABLE: Self = Self(reactor::Interest::Read);
    /// It writes.
    pub const WRITABLE: Self = Self(reactor::Interest::Write);
}

/// The methods for reading, in an `impl` block. `$source` is the `Source` of `$self`.
macro_rules! read_readiness {
    ($self:ident, $source:expr) => {
        /// Polls for readiness to read: whether there is data, a connection, the end, or an error.
        /// When there is none, the task of `cx` is woken when that changes. Readiness lasts until
        /// a `try_…` fails with `WouldBlock`, and may be reported once too often.
        ///
        /// As with tokio, only the waker of the last call is kept:
        /// [`readable`](Self::readable) has one for each future.
        ///
        /// # Errors
        ///
        /// On a thread on which no runtime runs, also when one did before: nothing would wake the
        /// task. When the kernel refuses.
        pub fn poll_read_ready(
            &$self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            $source.poll_ready(crate::engine::reactor::Interest::Read, cx)
        }

        /// A future that is ready when [`poll_read_ready`](Self::poll_read_ready) is. Dropping it
        /// leaves nothing behind.
        ///
        /// # Errors
        ///
        /// Those of [`poll_read_ready`](Self::poll_read_ready).
        pub async fn readable(&$self) -> std::io::Result<()> {
            $source.ready(crate::engine::reactor::Interest::Read).await
        }
    };
}

/// The methods for writing, likewise.
macro_rules! write_readiness {
    ($self:ident, $source:expr) => {
        /// Polls for readiness to write: whether there is room, or an error. When there is no room,
        /// the task of `cx` is woken when there is. Readiness lasts until a `try_…` fails with
        /// `WouldBlock`, and may be reported once too often.
        ///
        /// As with tokio, only the waker of the last call is kept:
        /// [`writable`](Self::writable) has one for each future.
        ///
        /// # Errors
        ///
        /// On a thread on which no runtime runs, also when one did before: nothing would wake the
        /// task. When the kernel refuses.
        pub fn poll_write_ready(
            &$self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            $source.poll_ready(crate::engine::reactor::Interest::Write, cx)
        }

        /// A future that is ready when [`poll_write_ready`](Self::poll_write_ready) is. Dropping it
        /// leaves nothing behind.
        ///
        /// # Errors
        ///
        /// Those of [`poll_write_ready`](Self::poll_write_ready).
        pub async fn writable(&$self) -> std::io::Result<()> {
            $source.ready(crate::engine::reactor::Interest::Write).await
        }
    };
}

/// The deadline of reads, in an `impl` block. `$source` has a method `set_deadline`.
macro_rules! read_deadline {
    ($self:ident, $source:expr) => {
        /// Sets a time from which reads, and accepts of a listener, fail with `TimedOut`: those
        /// that begin later, also where they need not wait, and those that wait at that time.
        /// `None` is for no deadline, which is how it begins.
        ///
        /// Another coroutine or thread may set it. A coroutine that waits already takes the new
        /// deadline into account, so a deadline in the past ends its wait. (A plain thread that
        /// waits already keeps the old one.) After an error the stream is as it was: with a later
        /// deadline, reads go on.
        ///
        /// A deadline stays until it is set anew, unlike a time-out, which begins with each
        /// operation. The earlier of the two ends a wait: a time-out with `WouldBlock`, as in std,
        /// a deadline with `TimedOut`. The deadline of a [`fail_after`](crate::time::fail_after)
        /// counts too. Futures and `try_…` calls have no deadline.
        ///
        /// ```
        /// use std::io::{ErrorKind, Read};
        /// use plainsong::net::UnixStream;
        /// use plainsong::time::now;
        ///
        /// # fn main() -> std::io::Result<()> {
        /// plainsong::run(|| {
        ///     let (one, _two) = UnixStream::pair()?;
        ///     one.set_read_deadline(Some(now()));
        ///     assert_eq!((&one).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        ///     Ok(())
        /// })
        /// # }
        /// ```
        pub fn set_read_deadline(&$self, deadline: Option<std::time::Instant>) {
            $source.set_deadline(crate::engine::reactor::Interest::Read, deadline);
        }
    };
}

/// The deadline of writes, likewise.
macro_rules! write_deadline {
    ($self:ident, $source:expr) => {
        /// Sets a time from which writes fail with `TimedOut`. Otherwise like a deadline for reads:
        /// see [`TcpStream::set_read_deadline`](crate::net::TcpStream::set_read_deadline).
        ///
        /// A write that fails has written nothing. Of a `write_all` that fails, some bytes may have
        /// been written.
        pub fn set_write_deadline(&$self, deadline: Option<std::time::Instant>) {
            $source.set_deadline(crate::engine::reactor::Interest::Write, deadline);
        }
    };
}

/// The trait `Readable` or `Writable` of `select!`, for a type. `$source` is the `Source` of
/// `$self`.
macro_rules! selectable {
    ($trait:ident, $side:ident, [$($generics:tt)*] $type:ty, $self:ident, $source:expr) => {
        impl<$($generics)*> crate::sync::select::$trait for $type {
            fn $side(&$self) -> crate::sync::select::Descriptor<'_> {
                crate::sync::select::Descriptor(&$source)
            }
        }
    };
}

/// `try_io`, likewise.
macro_rules! try_io {
    ($self:ident, $source:expr) => {
        /// Calls `op` once, unless it is known that it would block. If `op` fails with
        /// `WouldBlock`, the readiness is over. So `op` must fail so only if the descriptor itself
        /// would block.
        ///
        /// # Errors
        ///
        /// Those of `op`; `WouldBlock` when it was not called.
        pub fn try_io<R>(
            &$self,
            interest: crate::io::Interest,
            op: impl FnOnce() -> std::io::Result<R>,
        ) -> std::io::Result<R> {
            $source.try_once(interest.0, |_| op())
        }
    };
}

/// `try_read` and its vectored sibling, likewise.
macro_rules! try_read {
    ($self:ident, $source:expr) => {
        /// Reads what is there, and waits for nothing.
        ///
        /// # Errors
        ///
        /// `WouldBlock` when nothing is there; those of the system.
        pub fn try_read(&$self, buf: &mut [u8]) -> std::io::Result<usize> {
            let room = buf.len();
            $source.try_transfer(crate::engine::reactor::Interest::Read, room, |mut io| std::io::Read::read(&mut io, buf), |&len| len)
        }

        /// Reads what is there into memory that need not be initialised, and returns the part that
        /// is now. Waits for nothing.
        ///
        /// # Errors
        ///
        /// Those of [`try_read`](Self::try_read).
        pub fn try_read_uninit<'a>(
            &$self,
            buf: &'a mut [std::mem::MaybeUninit<u8>],
        ) -> std::io::Result<&'a mut [u8]> {
            $source.try_transfer(
                crate::engine::reactor::Interest::Read,
                buf.len(),
                |io| Ok(rustix::io::read(io, buf)?.0),
                |bytes| bytes.len(),
            )
        }

        /// Reads what is there into several buffers, and waits for nothing.
        ///
        /// # Errors
        ///
        /// Those of [`try_read`](Self::try_read).
        pub fn try_read_vectored(
            &$self,
            bufs: &mut [std::io::IoSliceMut<'_>],
        ) -> std::io::Result<usize> {
            let room = bufs.iter().map(|buf| buf.len()).sum();
            $source.try_transfer(
                crate::engine::reactor::Interest::Read,
                room,
                |mut io| std::io::Read::read_vectored(&mut io, bufs),
                |&len| len,
            )
        }
    };
}

/// `try_write` and its vectored sibling, likewise.
macro_rules! try_write {
    ($self:ident, $source:expr) => {
        /// Writes as much as there is room for, and waits for nothing.
        ///
        /// # Errors
        ///
        /// `WouldBlock` when there is no room; those of the system.
        pub fn try_write(&$self, buf: &[u8]) -> std::io::Result<usize> {
            let interest = crate::engine::reactor::Interest::Write;
            $source.try_once(interest, |mut io| std::io::Write::write(&mut io, buf))
        }

        /// Writes as much of several buffers as there is room for, and waits for nothing.
        ///
        /// # Errors
        ///
        /// Those of [`try_write`](Self::try_write).
        pub fn try_write_vectored(
            &$self,
            bufs: &[std::io::IoSlice<'_>],
        ) -> std::io::Result<usize> {
            let interest = crate::engine::reactor::Interest::Write;
            $source.try_once(interest, |mut io| std::io::Write::write_vectored(&mut io, bufs))
        }
    };
}

pub(crate) use {
    read_deadline, read_readiness, selectable, try_io, try_read, try_write, write_deadline,
    write_readiness,
};

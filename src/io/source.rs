//! The one way that I/O is done: try, and park when the kernel says that it would block.
//!
//! [`Source`] adds the descriptor to [`Waits`], which does the work.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Instant;

use super::waits::{Waits, forgetting};
use crate::engine::reactor::{CLOSING_FORGETS, Interest};
use crate::engine::waiter::FutureWaiter;

/// A descriptor that a [`Source`] can be made of.
pub(crate) trait Descriptor: AsFd {
    /// Whether a read that gets less than it asked for has drained the descriptor, so that the next
    /// read may park without a try. Anything else that can be behind such a read must raise an
    /// event of its own, which [`Readiness::set_short`] takes into account.
    const SHORT_READ_DRAINS: bool = false;
    /// Whether the open file is closed with the descriptor, unless a program duplicates it by other
    /// means than ours.
    const CLOSES_FILE: bool = false;
}

impl Descriptor for OwnedFd {}
impl Descriptor for File {}

/// A descriptor in non-blocking mode, with what is needed to wait for it.
///
/// It owns what it wraps and never lends it mutably, so the descriptor stays the same and open
/// until the drop, which deregisters it first.
///
/// The fields that each operation reads are in the first cache line: with many descriptors, the
/// next line is cold.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Source<T: Descriptor> {
    waits: Waits,
    // `None` only after `into_inner`.
    io: Option<T>,
    // `T::SHORT_READ_DRAINS`, unless `io` is not of the kind that `T` is made for.
    short_read_drains: bool,
    // Of the last polls for readiness, one for each direction.
    futures: OnceLock<[FutureWaiter; 2]>,
}

impl<T: Descriptor> Deref for Source<T> {
    type Target = Waits;

    fn deref(&self) -> &Waits {
        &self.waits
    }
}

impl<T: Descriptor> Source<T> {
    /// Takes a descriptor, which must be in non-blocking mode.
    pub(crate) fn new(io: T) -> Self {
        Self {
            waits: Waits::new(io.as_fd().as_raw_fd()),
            io: Some(io),
            short_read_drains: T::SHORT_READ_DRAINS,
            futures: OnceLock::new(),
        }
    }

    /// Has each read that might wait ask the kernel first, for a descriptor of another kind than
    /// `T` is made for.
    pub(crate) fn distrust_short_reads(&mut self) {
        self.short_read_drains = false;
    }

    /// Whether an operation that has moved `amount` bytes, of up to `room`, has drained the
    /// descriptor.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn is_short(&self, interest: Interest, amount: usize, room: usize) -> bool {
        let drains = T::SHORT_READ_DRAINS && interest == Interest::Read;
        drains && (1..room).contains(&amount) && self.short_read_drains
    }

    /// The wrapped descriptor. Using it directly bypasses the waits.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        match &self.io {
            Some(io) => io,
            None => unreachable!("`into_inner` takes the source along"),
        }
    }

    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }

    /// Gives up what was taken, which no reactor knows any more.
    pub(crate) fn into_inner(mut self) -> T {
        self.waits.registrations.deregister(self.io.as_ref().map(T::as_fd));
        match self.io.take() {
            Some(io) => io,
            None => unreachable!("only this takes it"),
        }
    }

    /// Calls `op`, which must run no code of users, until it does not block, and waits in between.
    ///
    /// # Errors
    ///
    /// Those of `op`; `WouldBlock` when the wait takes longer than the source's time-out for
    /// `interest`, or when the source is in non-blocking mode; `TimedOut` after its deadline for
    /// `interest`, or after that of a `fail_after` around the caller.
    pub(crate) fn retry<R>(
        &self,
        interest: Interest,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        forgetting(|| op(self.get()), |op| self.waits.retry(self.fd(), interest, op))
    }

    /// [`retry`](Self::retry), for an operation that moves up to `room` bytes of a stream. `amount`
    /// is how many bytes it has moved. It is compiled into each of its callers, as servers spend
    /// their time in it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn transfer<R>(
        &self,
        interest: Interest,
        room: usize,
        mut op: impl FnMut(&T) -> io::Result<R>,
        amount: impl Fn(&R) -> usize,
    ) -> io::Result<R> {
        self.waits.transfer(
            self.fd(),
            interest,
            #[cfg_attr(not(debug_assertions), inline(always))]
            || op(self.get()),
            #[cfg_attr(not(debug_assertions), inline(always))]
            |result| self.is_short(interest, amount(result), room),
        )
    }

    /// [`retry`](Self::retry), for an `op` that is code of a user: it may wait for anything.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_user<R>(
        &self,
        interest: Interest,
        op: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        forgetting(op, |op| self.waits.retry_user(self.fd(), interest, op))
    }

    /// [`retry`](Self::retry) for writes for which the kernel sends no usable event.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_unannounced<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        forgetting(|| op(self.get()), |op| self.waits.retry_unannounced(op))
    }

    /// Calls `op`, which reads into a buffer without room, and does not wait.
    #[cold]
    pub(crate) fn read_nothing(
        &self,
        mut op: impl FnMut(&T) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.waits.read_nothing(&mut || op(self.get()))
    }

    /// Calls `op` once, and does not wait.
    ///
    /// # Errors
    ///
    /// Those of `op`, `WouldBlock` included.
    pub(crate) fn attempt<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        forgetting(|| op(self.get()), |op| self.waits.attempt(op))
    }

    /// Calls `op` once. Neither waits nor yields, so a future may call it in its poll.
    ///
    /// # Errors
    ///
    /// Those of `op`; `WouldBlock`, also where the descriptor is known to be not ready.
    pub(crate) fn try_once<R>(
        &self,
        interest: Interest,
        op: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.try_transfer(interest, 0, op, |_| 0)
    }

    /// [`try_once`](Self::try_once) for a stream, of up to `room` bytes. `amount` is how many it
    /// has moved.
    pub(crate) fn try_transfer<R>(
        &self,
        interest: Interest,
        room: usize,
        op: impl FnOnce(&T) -> io::Result<R>,
        amount: impl Fn(&R) -> usize,
    ) -> io::Result<R> {
        let mut op = Some(op);
        let mut value = None;
        self.waits.registrations.attempt(self.fd(), interest, &mut || {
            let Some(op) = op.take() else { unreachable!("it is called once at most") };
            let moved = op(self.get())?;
            let short = self.is_short(interest, amount(&moved), room);
            value = Some(moved);
            Ok(short)
        })?;
        value.ok_or_else(|| unreachable!("it succeeds only with a value"))
    }

    /// Whether an operation is worth a try. If not, the waker is called when it is. Only the waker
    /// of the last call for a direction is kept.
    ///
    /// # Errors
    ///
    /// When no run is under way on this thread, and when the kernel refuses.
    pub(crate) fn poll_ready(
        &self,
        interest: Interest,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let futures = self.futures.get_or_init(Default::default);
        self.waits.registrations.poll_ready(self.fd(), interest, &futures[interest as usize], cx)
    }

    /// [`retry`](Self::retry) for futures.
    pub(crate) fn poll_retry<R>(
        &self,
        interest: Interest,
        cx: &mut Context<'_>,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match self.poll_ready(interest, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            match self.try_once(interest, &mut op) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Waits, in a future, until an operation is worth a try.
    ///
    /// # Errors
    ///
    /// Those of [`poll_ready`](Self::poll_ready).
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<()> {
        let future = FutureWaiter::new();
        poll_fn(|cx| self.waits.registrations.poll_ready(self.fd(), interest, &future, cx)).await
    }

    /// Waits until an operation that would have blocked is worth trying again. Returns `false` when
    /// `deadline` has passed first.
    ///
    /// # Errors
    ///
    /// `TimedOut` when a deadline of the source or of a `fail_after` has passed first.
    pub(crate) fn wait_until(
        &self,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        self.waits.wait_until(self.fd(), interest, deadline)
    }
}

impl<T: Descriptor> Drop for Source<T> {
    fn drop(&mut self) {
        let forgotten = T::CLOSES_FILE && CLOSING_FORGETS;
        let fd = self.io.as_ref().filter(|_| !forgotten).map(T::as_fd);
        self.waits.registrations.deregister(fd);
    }
}

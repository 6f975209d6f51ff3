//! The one way that I/O is done: try, and park when the kernel says that it would block.
//!
//! [`try_then_wait`] is the only loop. The methods of [`Source`] differ in how they try and in how
//! they wait.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::deadline::Deadline;
use crate::engine::blocking_pool as pool;
use crate::engine::descriptor::{self, Registrations};
use crate::engine::error::{explained, past_deadline};
use crate::engine::park::{self, Running};
use crate::engine::reactor::{CLOSING_FORGETS, Interest, Readiness};
use crate::engine::task::{Wait, Wake};
use crate::engine::waiter::{FutureWaiter, Waiter};

/// The first and the longest pause of [`Source::retry_unannounced`]; each is twice the one before.
const PAUSE: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(50);

const READABLE: Wait =
    Wait::new(&Wait::outside("descriptor {} to be readable").of("read", "descriptor"));
const WRITABLE: Wait =
    Wait::new(&Wait::outside("descriptor {} to be writable").of("write", "descriptor"));

/// Calls `attempt` until it does not fail with `WouldBlock`. In between, `wait` waits until another
/// attempt is worthwhile; it gets the error, and may return it.
///
/// Each attempt counts against the coroutine's budget.
///
/// # Errors
///
/// Those of `attempt` and `wait`; `TimedOut`, when the budget is spent, after the deadline of a
/// `fail_after` around the caller.
#[inline(always)]
pub(super) fn try_then_wait<R>(
    mut attempt: impl FnMut() -> io::Result<R>,
    mut wait: impl FnMut(io::Error) -> io::Result<()>,
) -> io::Result<R> {
    loop {
        // A loop of operations that need not wait would never see its deadline otherwise.
        if park::spend() && park::is_past_deadline() {
            return Err(past_deadline());
        }
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(error)?,
            result => return result,
        }
    }
}

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

/// A descriptor in non-blocking mode, and the reactors that know it.
///
/// It owns what it wraps and never lends it mutably, so the descriptor stays the same and open
/// until the drop, which deregisters it first.
///
/// The fields that each operation reads are in the first cache line: with many descriptors, the
/// next line is cold.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Source<T: Descriptor> {
    registrations: Registrations,
    // Nanoseconds; 0 for none.
    timeouts: [AtomicU64; 2],
    // When operations begin to fail.
    deadlines: [Deadline; 2],
    nonblocking: AtomicBool,
    // The descriptor's number, for reports.
    number: RawFd,
    // `None` only after `into_inner`.
    io: Option<T>,
    // Of the last polls for readiness, one for each direction.
    futures: OnceLock<[FutureWaiter; 2]>,
}

impl<T: Descriptor> Source<T> {
    /// Takes a descriptor, which must be in non-blocking mode.
    pub(crate) fn new(io: T) -> Self {
        Self {
            registrations: Registrations::default(),
            timeouts: [AtomicU64::new(0), AtomicU64::new(0)],
            deadlines: [Deadline::new(), Deadline::new()],
            nonblocking: AtomicBool::new(false),
            number: io.as_fd().as_raw_fd(),
            io: Some(io),
            futures: OnceLock::new(),
        }
    }

    /// The wrapped descriptor. Using it directly bypasses the waits.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        match &self.io {
            Some(io) => io,
            None => unreachable!("`into_inner` takes the source along"),
        }
    }

    /// Gives up what was taken, which no reactor knows any more.
    pub(crate) fn into_inner(mut self) -> T {
        self.registrations.deregister(self.io.as_ref());
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
    #[inline]
    pub(crate) fn retry<R>(
        &self,
        interest: Interest,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        // An amount of nothing is never short.
        self.transfer(interest, 1, op, |_| 0)
    }

    /// [`retry`](Self::retry), for an operation that moves up to `room` bytes of a stream. `amount`
    /// is how many bytes it has moved.
    #[inline(always)]
    pub(crate) fn transfer<R>(
        &self,
        interest: Interest,
        room: usize,
        mut op: impl FnMut(&T) -> io::Result<R>,
        amount: impl Fn(&R) -> usize,
    ) -> io::Result<R> {
        self.check_deadline(interest)?;
        park::running(
            #[inline(always)]
            |running| {
                let readiness = Cell::new(self.registrations.readiness(running));
                let mut deadline = None;
                try_then_wait(
                    #[inline(always)]
                    || {
                        let drained = || readiness.get().is_some_and(|known| known.is_drained());
                        if interest == Interest::Read && drained() && !self.is_nonblocking() {
                            return Err(Errno::AGAIN.into());
                        }
                        let result = op(self.get())?;
                        let short = T::SHORT_READ_DRAINS && (1..room).contains(&amount(&result));
                        if let Some(readiness) = readiness.get().filter(|_| short) {
                            readiness.set_short();
                        }
                        Ok(result)
                    },
                    #[inline(always)]
                    |error| {
                        if self.is_nonblocking() {
                            return Err(error);
                        }
                        let until = *deadline.get_or_insert_with(|| self.deadline(interest));
                        let ready = self.wait(running, &readiness, interest, until)?;
                        // As with std, a time-out looks like a call that would block.
                        if ready { Ok(()) } else { Err(error) }
                    },
                )
            },
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
        mut op: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        // Looked up anew each time: the body of a generator may go on in another coroutine.
        let edges = || {
            park::running(|running| {
                self.registrations.readiness(running).and_then(|readiness| readiness.edges())
            })
        };
        let before = Cell::new(None);
        let mut deadline = None;
        self.check_deadline(interest)?;
        try_then_wait(
            || {
                before.set(edges());
                op()
            },
            |error| {
                if self.is_nonblocking() {
                    return Err(error);
                }
                // An event that came while `op` ran is not reported again.
                if edges() != before.get() {
                    return Ok(());
                }
                let until = *deadline.get_or_insert_with(|| self.deadline(interest));
                if self.wait_until(interest, until)? { Ok(()) } else { Err(error) }
            },
        )
    }

    /// Calls `op`, which reads into a buffer without room, and does not wait, as there is nothing
    /// to wait for. The kernel does the same for blocking calls, but not for others.
    #[cold]
    pub(crate) fn read_nothing(
        &self,
        op: impl FnMut(&T) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self.attempt(op) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {
                Ok(0)
            }
            result => result,
        }
    }

    /// Calls `op` once, and does not wait.
    ///
    /// # Errors
    ///
    /// Those of `op`, `WouldBlock` included.
    pub(crate) fn attempt<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        try_then_wait(|| op(self.get()), Err)
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
        self.registrations.attempt(interest, || op(self.get()), |_| false)
    }

    /// [`try_once`](Self::try_once) for a read of a stream of up to `room` bytes. `amount` is how
    /// many it has got.
    pub(crate) fn try_transfer<R>(
        &self,
        room: usize,
        op: impl FnOnce(&T) -> io::Result<R>,
        amount: impl FnOnce(&R) -> usize,
    ) -> io::Result<R> {
        let is_short = |moved: &R| T::SHORT_READ_DRAINS && (1..room).contains(&amount(moved));
        self.registrations.attempt(Interest::Read, || op(self.get()), is_short)
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
        self.registrations.poll_ready(self.get(), interest, &futures[interest as usize], cx)
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
        let poll =
            |cx: &mut Context<'_>| self.registrations.poll_ready(self.get(), interest, &future, cx);
        poll_fn(poll).await
    }

    /// [`retry`](Self::retry) for writes for which the kernel sends no usable event: polls with
    /// exponential back-off.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_unannounced<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut deadline = None;
        let mut pause = PAUSE;
        try_then_wait(
            || {
                self.check_deadline(Interest::Write)?;
                op(self.get())
            },
            |error| {
                if self.is_nonblocking() {
                    return Err(error);
                }
                check_unwinding()?;
                let end = *deadline.get_or_insert_with(|| self.deadline(Interest::Write));
                if end.is_some_and(|end| park::now() >= end) {
                    return Err(error);
                }
                if park::is_past_deadline() {
                    return Err(past_deadline());
                }
                // The deadlines are looked at between two pauses, which are short.
                let until = park::earlier(park::deadline(pause), end);
                park::block(park::waiter(), WRITABLE.with(self.number as u32), until);
                pause = (pause * 2).min(PAUSE_MAX);
                Ok(())
            },
        )
    }

    /// Waits until the descriptor is writable for the first time.
    ///
    /// # Errors
    ///
    /// `TimedOut` when `deadline` passes first.
    pub(crate) fn wait_connected(&self, deadline: Option<Instant>) -> io::Result<()> {
        match self.wait_until(Interest::Write, deadline)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// [`wait`](Self::wait), for a caller that has not looked anything up.
    pub(crate) fn wait_until(
        &self,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        park::running(|running| {
            let readiness = Cell::new(self.registrations.readiness(running));
            self.wait(running, &readiness, interest, deadline)
        })
    }

    /// Waits until an operation that would have blocked is worth trying again. Returns `false` when
    /// `deadline` has passed first.
    ///
    /// # Errors
    ///
    /// `TimedOut` when a deadline of the source or of a `fail_after` has passed first.
    // A debug build would compile it anew for every operation, a sixth of the whole library.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn wait<'a>(
        &self,
        running: Option<Running<'a>>,
        readiness: &Cell<Option<Readiness<'a>>>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let Some(running) = running else {
            let limit = self.deadlines[interest as usize].get();
            let until = park::earlier(deadline, limit);
            let ready = pool::while_blocked(|| poll_one(self.get().as_fd(), interest, until))?;
            return if !ready && until == limit { Err(past_deadline()) } else { Ok(ready) };
        };
        check_unwinding()?;
        if readiness.get().is_none() {
            readiness.set(self.registrations.register(running.scheduler, self.get())?);
        }
        let Some(readiness) = readiness.get() else {
            // A regular file: always ready.
            return Ok(true);
        };
        // Looked up when it is registered: a deadline that is set later ends the wait.
        let may_fail = self.may_fail(running, interest);
        let limit = if may_fail { self.fails_at(running, interest) } else { None };
        let until = if may_fail { park::earlier(deadline, limit) } else { deadline };
        let why = match interest {
            Interest::Read => READABLE,
            Interest::Write => WRITABLE,
        };
        park::prefetch_on_resume(self);
        let why = why.with(self.number as u32);
        let wake = descriptor::wait(running, readiness, self.get(), interest, why, until)?;
        match wake {
            Wake::Ready => Ok(true),
            _ if until == limit => Err(past_deadline()),
            _ => Ok(false),
        }
    }

    /// Whether there is a deadline for this direction, or may be one of a `fail_after`.
    #[inline(always)]
    fn may_fail(&self, running: Running<'_>, interest: Interest) -> bool {
        self.deadlines[interest as usize].is_set() || running.task.scopes.any()
    }

    /// The deadline for this direction, or that of a `fail_after` around the caller if it is
    /// earlier.
    #[cold]
    fn fails_at(&self, running: Running<'_>, interest: Interest) -> Option<Instant> {
        let deadline = self.deadlines[interest as usize].get();
        park::earlier(deadline, running.task.scopes.fails_at())
    }

    /// Has the reactor of this thread know the descriptor, if a coroutine runs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn listen_on(&self, running: Option<Running<'_>>) -> io::Result<()> {
        if let Some(Running { scheduler, .. }) = running {
            self.registrations.register(scheduler, self.get())?;
        }
        Ok(())
    }

    /// Notes that the kernel has just called the descriptor ready.
    pub(super) fn note_ready(&self, interest: Interest) {
        park::running(|running| {
            if let Some(readiness) = self.registrations.readiness(running) {
                readiness.set_ready(interest);
            }
        });
    }

    /// Lists a waiter of the running coroutine for the next event of a descriptor that the reactor
    /// knows.
    pub(super) fn subscribe(&self, interest: Interest, waiter: &Waiter) {
        park::running(|running| {
            if let Some(readiness) = self.registrations.readiness(running) {
                // Only systems that report a descriptor once can refuse. Then the next look is the
                // waiter's own.
                if readiness.subscribe_idle(self.get(), interest, waiter.clone()).is_err() {
                    park::wake(waiter.clone());
                }
            }
        });
    }

    /// Undoes a [`subscribe`](Self::subscribe).
    pub(super) fn unsubscribe(&self, interest: Interest, waiter: &Waiter) {
        park::running(|running| {
            if let Some(readiness) = self.registrations.readiness(running) {
                readiness.unsubscribe(interest, waiter);
            }
        });
    }

    /// Fails if the deadline for a direction has passed.
    #[inline(always)]
    fn check_deadline(&self, interest: Interest) -> io::Result<()> {
        if self.deadlines[interest as usize].has_passed() { Err(past_deadline()) } else { Ok(()) }
    }

    /// Sets the deadline for a direction. Coroutines that wait already take it into account.
    pub(crate) fn set_deadline(&self, interest: Interest, deadline: Option<Instant>) {
        self.deadlines[interest as usize].set(deadline);
        self.registrations.recheck();
    }

    /// When an operation that begins to wait now times out.
    fn deadline(&self, interest: Interest) -> Option<Instant> {
        self.timeout(interest).and_then(park::deadline)
    }

    /// The time-out of [`retry`](Self::retry) for a direction.
    pub(crate) fn timeout(&self, interest: Interest) -> Option<Duration> {
        match self.timeouts[interest as usize].load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Sets the time-out of a direction, as std's sockets do.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub(crate) fn set_timeout(
        &self,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let nanos = match timeout {
            None => 0,
            Some(Duration::ZERO) => return Err(zero_timeout()),
            // The longest time that fits is half a millennium.
            Some(timeout) => u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
        };
        self.timeouts[interest as usize].store(nanos, Ordering::Relaxed);
        Ok(())
    }

    /// Makes [`retry`](Self::retry) fail where it would wait.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    /// Whether [`set_nonblocking`](Self::set_nonblocking) is on.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }
}

impl<T: Descriptor> Drop for Source<T> {
    fn drop(&mut self) {
        let io = self.io.as_ref();
        let forgotten = T::CLOSES_FILE && CLOSING_FORGETS;
        self.registrations.deregister(io.filter(|_| !forgotten));
    }
}

/// The events that make a direction ready.
pub(super) fn flags(interest: Interest) -> PollFlags {
    match interest {
        Interest::Read => PollFlags::IN,
        Interest::Write => PollFlags::OUT,
    }
}

/// Blocks a plain thread until its descriptor is ready. Returns `false` when `deadline` has passed
/// first.
pub(super) fn poll_one(
    fd: BorrowedFd<'_>,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    let flags = flags(interest);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a descriptor is ready now.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<bool> {
    poll_one(fd, interest, Some(Instant::now()))
}

/// Fails in a coroutine that unwinds: its I/O must not wait.
pub(super) fn check_unwinding() -> io::Result<()> {
    if park::is_unwinding() {
        return Err(explained(
            io::ErrorKind::Other,
            "the operation would have to wait, and the coroutine is unwinding: \
             destructors get what can be done at once",
        ));
    }
    Ok(())
}

/// std's error for a time-out of zero, with advice.
#[cold]
pub(crate) fn zero_timeout() -> io::Error {
    explained(
        io::ErrorKind::InvalidInput,
        "a time-out of zero is not possible: use `None` for no time-out, \
         or `set_nonblocking` to wait for nothing",
    )
}

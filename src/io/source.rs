//! The one way that I/O is done: try, and park when the kernel says that it would block.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::engine::blocking_pool as pool;
use crate::engine::descriptor::{self, Registrations};
use crate::engine::park::{self, Running};
use crate::engine::reactor::{Interest, Readiness};
use crate::engine::task::{Wait, Wake};

/// The first and the longest pause of [`Source::retry_unannounced`]; each is twice the one before.
const PAUSE: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(50);

const READABLE: Wait = Wait::outside("descriptor {} to be readable");
const WRITABLE: Wait = Wait::outside("descriptor {} to be writable");

/// A descriptor in non-blocking mode, and the reactors that know it.
///
/// It owns what it wraps and never lends it mutably, so the descriptor stays the same and open
/// until the drop, which deregisters it first.
///
/// What each operation looks at is in its first cache line: with many descriptors, the next is cold.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Source<T: AsFd> {
    registrations: Registrations,
    // Nanoseconds; 0 for none.
    timeouts: [AtomicU64; 2],
    nonblocking: AtomicBool,
    // The descriptor's number, for reports.
    number: RawFd,
    // `None` only after `into_inner`.
    io: Option<T>,
}

/// Until when an operation waits: its time-out is looked up when it first has to.
struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
    is_known: bool,
}

impl Deadline {
    const UNKNOWN: Self = Self { timeout: None, at: None, is_known: false };

    #[inline]
    fn get(&mut self, timeout: impl FnOnce() -> Option<Duration>) -> Option<Instant> {
        if !self.is_known {
            self.is_known = true;
            self.timeout = timeout();
            self.at = self.timeout.and_then(park::deadline);
        }
        self.at
    }
}

impl<T: AsFd> Source<T> {
    /// Takes a descriptor, which must be in non-blocking mode.
    pub(crate) fn new(io: T) -> Self {
        Self {
            registrations: Registrations::default(),
            timeouts: [AtomicU64::new(0), AtomicU64::new(0)],
            nonblocking: AtomicBool::new(false),
            number: io.as_fd().as_raw_fd(),
            io: Some(io),
        }
    }

    /// What was taken. Using it directly bypasses the waits.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        match &self.io {
            Some(io) => io,
            None => unreachable!("`into_inner` takes the source along"),
        }
    }

    /// Gives up what was taken, which no reactor knows any more.
    pub(crate) fn into_inner(mut self) -> T {
        self.deregister();
        match self.io.take() {
            Some(io) => io,
            None => unreachable!("only this takes it"),
        }
    }

    fn deregister(&mut self) {
        if let Some(io) = &self.io {
            self.registrations.deregister(io);
        }
    }

    /// Does `op`, which must run no code of users, until it does not block, waiting in between.
    ///
    /// # Errors
    ///
    /// Those of `op`; `WouldBlock` when the wait takes longer than the source's time-out for
    /// `interest`, or when the source is in non-blocking mode.
    #[inline]
    pub(crate) fn retry<R>(
        &self,
        interest: Interest,
        op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry_short(interest, op, |_| false)
    }

    /// [`retry`](Self::retry), where `is_short` says of a result that the descriptor is drained,
    /// unless it is at its end.
    #[inline(always)]
    pub(crate) fn retry_short<R>(
        &self,
        interest: Interest,
        mut op: impl FnMut(&T) -> io::Result<R>,
        is_short: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        park::running(
            #[inline(always)]
            |running| {
                let mut readiness = self.registrations.readiness(running);
                let mut deadline = Deadline::UNKNOWN;
                loop {
                    park::spend();
                    let nonblocking = self.is_nonblocking();
                    let drained = || readiness.is_some_and(|readiness| readiness.is_drained());
                    if nonblocking || interest == Interest::Write || !drained() {
                        match op(self.get()) {
                            Ok(result) => {
                                if is_short(&result)
                                    && let Some(readiness) = readiness
                                {
                                    readiness.set_short();
                                }
                                return Ok(result);
                            }
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            Err(error) => return Err(error),
                        }
                    }
                    if nonblocking {
                        return Err(Errno::AGAIN.into());
                    }
                    let until = deadline.get(|| self.timeout(interest));
                    if !self.wait(running, &mut readiness, interest, until)? {
                        return Err(timed_out(interest, deadline.timeout));
                    }
                }
            },
        )
    }

    /// [`retry`](Self::retry), for an `op` that is code of a user: it may wait, for whatever it likes.
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
        let mut deadline = Deadline::UNKNOWN;
        loop {
            park::spend();
            let before = edges();
            match op() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if self.is_nonblocking() {
                return Err(Errno::AGAIN.into());
            }
            // What has come meanwhile is not reported again.
            if edges() != before {
                continue;
            }
            let until = deadline.get(|| self.timeout(interest));
            if !self.wait_again(interest, until)? {
                return Err(timed_out(interest, deadline.timeout));
            }
        }
    }

    /// Does `op` once, and does not wait.
    ///
    /// # Errors
    ///
    /// Those of `op`, `WouldBlock` included.
    pub(crate) fn attempt<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            park::spend();
            match op(self.get()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// [`retry`](Self::retry) for writes for which the kernel sends no usable event: polls with exponential
    /// back-off.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_unannounced<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let timeout = self.timeout(Interest::Write);
        let deadline = timeout.and_then(park::deadline);
        let mut pause = PAUSE;
        loop {
            match self.attempt(&mut op) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {}
                result => return result,
            }
            check_unwinding()?;
            if deadline.is_some_and(|deadline| park::now() >= deadline) {
                return Err(timed_out(Interest::Write, timeout));
            }
            let until = park::deadline(pause).into_iter().chain(deadline).min();
            park::block(park::waiter(), WRITABLE.with(self.number as u32), until);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits until the descriptor is writable for the first time.
    ///
    /// # Errors
    ///
    /// `TimedOut` when `deadline` passes first.
    pub(crate) fn wait_connected(&self, deadline: Option<Instant>) -> io::Result<()> {
        match self.wait_again(Interest::Write, deadline)? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn wait_again(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<bool> {
        park::running(|running| {
            let mut readiness = self.registrations.readiness(running);
            self.wait(running, &mut readiness, interest, deadline)
        })
    }

    /// Waits until an operation that would have blocked is worth trying again. Returns `false` when
    /// `deadline` has passed first.
    #[inline(always)]
    fn wait<'a>(
        &self,
        running: Option<Running<'a>>,
        readiness: &mut Option<Readiness<'a>>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let Some(running) = running else {
            return pool::while_blocked(|| poll_one(self.get().as_fd(), interest, deadline));
        };
        check_unwinding()?;
        if readiness.is_none() {
            *readiness = self.registrations.register(running, self.get())?;
        }
        let Some(readiness) = *readiness else {
            // A regular file: always ready.
            return Ok(true);
        };
        let why = match interest {
            Interest::Read => READABLE,
            Interest::Write => WRITABLE,
        };
        park::prefetch_on_resume(self);
        let why = why.with(self.number as u32);
        let wake = descriptor::wait(running, readiness, self.get(), interest, why, deadline)?;
        Ok(wake == Wake::Ready)
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
            // Half a millennium is as good as any longer time.
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

impl<T: AsFd> Drop for Source<T> {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Blocks a plain thread until its descriptor is ready. Returns `false` when `deadline` has passed first.
pub(super) fn poll_one(
    fd: BorrowedFd<'_>,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    let flags = match interest {
        Interest::Read => PollFlags::IN,
        Interest::Write => PollFlags::OUT,
    };
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
        return Err(io::Error::other(
            "the operation would have to wait, and the coroutine is unwinding: \
             destructors get what can be done at once",
        ));
    }
    Ok(())
}

#[cold]
fn timed_out(interest: Interest, timeout: Option<Duration>) -> io::Error {
    let what = match interest {
        Interest::Read => "read",
        Interest::Write => "write",
    };
    // The kind is the one that a std socket's time-out has.
    io::Error::new(
        io::ErrorKind::WouldBlock,
        format!("the {what} took longer than its time-out of {:?}", timeout.unwrap_or_default()),
    )
}

/// What std says of a time-out of zero.
#[cold]
pub(crate) fn zero_timeout() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a time-out of zero is not possible: use `None` for no time-out, \
         or `set_nonblocking` to wait for nothing",
    )
}

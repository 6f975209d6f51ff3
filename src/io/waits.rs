//! Trying and waiting, without regard to the type of the descriptor.
//!
//! [`try_then_wait`] is the only loop. The methods of [`Waits`] differ in how they try and in how
//! they wait. Few of them are generic: each operation of each type would be compiled anew.

use std::cell::Cell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::deadline::Deadline;
use crate::engine::blocking_pool as pool;
use crate::engine::descriptor::{self, Registrations};
use crate::engine::error::{explained, past_deadline};
use crate::engine::park::{self, Running};
use crate::engine::reactor::{Interest, Readiness};
use crate::engine::task::{Wait, Wake};
use crate::engine::waiter::Waiter;

/// The first and the longest pause of [`Waits::retry_unannounced`]; each is twice the one before.
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
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn try_then_wait<R>(
    mut attempt: impl FnMut() -> io::Result<R>,
    mut wait: impl FnMut(io::Error) -> io::Result<()>,
) -> io::Result<R> {
    loop {
        spend()?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(error)?,
            result => return result,
        }
    }
}

/// Counts an operation against the coroutine's budget.
///
/// # Errors
///
/// `TimedOut`, when the budget is spent, after the deadline of a `fail_after` around the caller. A
/// loop of operations that need not wait would never see it otherwise.
#[inline]
pub(super) fn spend() -> io::Result<()> {
    if park::spend() && park::is_past_deadline() {
        return Err(past_deadline());
    }
    Ok(())
}

/// An operation whose type of result is forgotten.
pub(super) type Operation<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// Has `run` call an operation, and returns the operation's last result.
pub(super) fn forgetting<R>(
    mut op: impl FnMut() -> io::Result<R>,
    run: impl FnOnce(Operation<'_>) -> io::Result<()>,
) -> io::Result<R> {
    let mut value = None;
    run(&mut || {
        value = Some(op()?);
        Ok(())
    })?;
    value.ok_or_else(|| unreachable!("it succeeds only after the operation has"))
}

/// The part of a [`Source`](super::source::Source) that does not depend on its type: the reactors
/// that know the descriptor, its time-outs and its deadlines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waits {
    pub(super) registrations: Registrations,
    // Nanoseconds; 0 for none.
    timeouts: [AtomicU64; 2],
    // When operations begin to fail.
    deadlines: [Deadline; 2],
    nonblocking: AtomicBool,
    // The descriptor's number, for reports.
    number: RawFd,
}

impl Waits {
    pub(super) fn new(number: RawFd) -> Self {
        Self {
            registrations: Registrations::default(),
            timeouts: [AtomicU64::new(0), AtomicU64::new(0)],
            deadlines: [Deadline::new(), Deadline::new()],
            nonblocking: AtomicBool::new(false),
            number,
        }
    }

    /// Calls `op`, which must run no code of users, until it does not block, and waits in between.
    /// `is_short` is whether a result shows that `fd` is drained.
    // A debug build would compile all of it anew for every operation.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn transfer<R>(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        mut op: impl FnMut() -> io::Result<R>,
        is_short: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        self.check_deadline(interest)?;
        park::running(
            #[cfg_attr(not(debug_assertions), inline(always))]
            |running| {
                let readiness = Cell::new(self.registrations.readiness(running));
                let mut deadline = None;
                try_then_wait(
                    #[cfg_attr(not(debug_assertions), inline(always))]
                    || {
                        let drained = || readiness.get().is_some_and(|known| known.is_drained());
                        if interest == Interest::Read && drained() && !self.is_nonblocking() {
                            return Err(Errno::AGAIN.into());
                        }
                        let result = op()?;
                        let short = is_short(&result);
                        if let Some(readiness) = readiness.get().filter(|_| short) {
                            readiness.set_short();
                        }
                        Ok(result)
                    },
                    #[cfg_attr(not(debug_assertions), inline(always))]
                    |error| {
                        if self.is_nonblocking() {
                            return Err(error);
                        }
                        let until = *deadline.get_or_insert_with(|| self.deadline(interest));
                        let ready = self.wait(running, fd, &readiness, interest, until)?;
                        // As with std, a time-out looks like a call that would block.
                        if ready { Ok(()) } else { Err(error) }
                    },
                )
            },
        )
    }

    /// [`transfer`](Self::transfer), for an operation that drains nothing.
    pub(super) fn retry(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        op: Operation<'_>,
    ) -> io::Result<()> {
        self.transfer(fd, interest, op, |()| false)
    }

    /// [`retry`](Self::retry), for an `op` that is code of a user: it may wait for anything.
    pub(super) fn retry_user(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        op: Operation<'_>,
    ) -> io::Result<()> {
        // Looked up anew each time: the body of a generator may go on in another coroutine.
        let edges = || {
            park::running(|running| {
                self.registrations.readiness(running).and_then(|readiness| readiness.edges())
            })
        };
        let before = Cell::new(None);
        let mut deadline = None;
        try_then_wait(
            || {
                // Not only in the waits: there is none for a regular file, which is always ready.
                self.check_deadline(interest)?;
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
                if self.wait_until(fd, interest, until)? { Ok(()) } else { Err(error) }
            },
        )
    }

    /// [`retry`](Self::retry) for writes for which the kernel sends no usable event: polls with
    /// exponential back-off.
    pub(super) fn retry_unannounced(&self, op: Operation<'_>) -> io::Result<()> {
        let mut deadline = None;
        let mut pause = PAUSE;
        try_then_wait(
            || {
                self.check_deadline(Interest::Write)?;
                op()
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

    /// Calls `op` once, and does not wait.
    pub(super) fn attempt(&self, op: Operation<'_>) -> io::Result<()> {
        try_then_wait(op, Err)
    }

    /// Calls `op`, which reads into a buffer without room, and does not wait, as there is nothing
    /// to wait for. The kernel does the same for blocking calls, but not for others.
    #[cold]
    pub(super) fn read_nothing(
        &self,
        op: &mut dyn FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        match try_then_wait(op, Err) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {
                Ok(0)
            }
            result => result,
        }
    }

    /// [`wait`](Self::wait), for a caller that has not looked anything up.
    pub(super) fn wait_until(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        park::running(|running| {
            let readiness = Cell::new(self.registrations.readiness(running));
            self.wait(running, fd, &readiness, interest, deadline)
        })
    }

    /// Waits until an operation that would have blocked is worth trying again. Returns `false` when
    /// `deadline` has passed first.
    ///
    /// # Errors
    ///
    /// `TimedOut` when a deadline of the source or of a `fail_after` has passed first.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn wait<'a>(
        &self,
        running: Option<Running<'a>>,
        fd: BorrowedFd<'_>,
        readiness: &Cell<Option<Readiness<'a>>>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let Some(running) = running else {
            let limit = self.deadlines[interest as usize].get();
            let until = park::earlier(deadline, limit);
            let ready = pool::while_blocked(|| poll_one(fd, interest, until))?;
            return if !ready && until == limit { Err(past_deadline()) } else { Ok(ready) };
        };
        check_unwinding()?;
        if readiness.get().is_none() {
            readiness.set(self.registrations.register(running.scheduler, fd)?);
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
        let wake = descriptor::wait(running, readiness, fd, interest, why, until)?;
        match wake {
            Wake::Ready => Ok(true),
            _ if until == limit => Err(past_deadline()),
            _ => Ok(false),
        }
    }

    /// Whether there is a deadline for this direction, or may be one of a `fail_after`.
    #[cfg_attr(not(debug_assertions), inline(always))]
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
    pub(super) fn listen_on(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        park::running(|running| {
            if let Some(Running { scheduler, .. }) = running {
                self.registrations.register(scheduler, fd)?;
            }
            Ok(())
        })
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
    pub(super) fn subscribe(&self, fd: BorrowedFd<'_>, interest: Interest, waiter: &Waiter) {
        park::running(|running| {
            if let Some(readiness) = self.registrations.readiness(running) {
                // Only systems that report a descriptor once can refuse. Then the next look is the
                // waiter's own.
                if readiness.subscribe_idle(fd, interest, waiter.clone()).is_err() {
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
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn check_deadline(&self, interest: Interest) -> io::Result<()> {
        if self.deadlines[interest as usize].has_passed() { Err(late()) } else { Ok(()) }
    }

    /// Sets the deadline for a direction. Coroutines that wait already take it into account.
    pub(crate) fn set_deadline(&self, interest: Interest, deadline: Option<Instant>) {
        self.deadlines[interest as usize].set(deadline);
        self.registrations.recheck();
    }

    /// When an operation that begins to wait now times out.
    #[inline]
    fn deadline(&self, interest: Interest) -> Option<Instant> {
        self.timeout(interest).and_then(park::deadline)
    }

    /// The time-out of [`retry`](Self::retry) for a direction.
    #[inline]
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
    #[inline]
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
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

/// The error of an operation that has not begun, because its deadline has passed. It counts against
/// the coroutine's budget, as a program may try again and again.
#[cold]
fn late() -> io::Error {
    park::spend();
    past_deadline()
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

//! The one way that I/O is done: try, and park when the kernel says that it would block.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::engine::blocking;
use crate::engine::context;
use crate::engine::reactor::{Interest, Port, Reactor, SourceKey};
use crate::engine::remote::{Door, Message, Waiter};
use crate::engine::task::{Wait, Wake};

/// The first and the longest pause of [`Source::retry_unannounced`]; each is twice the one before.
const RETRY: Duration = Duration::from_micros(500);
const RETRY_MAX: Duration = Duration::from_millis(50);

/// A descriptor in non-blocking mode, and the reactors that know it.
///
/// It owns what it wraps and never lends it mutably, so the descriptor stays the same and open
/// until the drop, which deregisters it first.
///
/// What each operation looks at is in its first cache line: with many descriptors, the next is cold.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Source<T: AsFd> {
    // Nearly always the only one: where the descriptor was first waited for.
    home: OnceLock<Registration>,
    // Nanoseconds; 0 for none.
    timeouts: [AtomicU64; 2],
    nonblocking: AtomicBool,
    // The descriptor's number, for reports.
    number: RawFd,
    // `None` only after `into_inner`.
    io: Option<T>,
    others: Mutex<Vec<Registration>>,
}

/// One thread's reactor knows the descriptor under this key, for as long as that thread lives.
struct Registration {
    // Weak, or a long-lived descriptor would keep the reactors of all threads that it has seen.
    port: Weak<Port>,
    door: &'static Door,
    key: SourceKey,
}

impl Registration {
    #[inline]
    fn is_with(&self, port: &Arc<Port>) -> bool {
        // A port's memory is not used again while somebody points to it, though weakly.
        ptr::eq(self.port.as_ptr(), Arc::as_ptr(port))
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a wait for a descriptor came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Try again.
    Ready,
    TimedOut,
}

impl<T: AsFd> Source<T> {
    /// Takes a descriptor, which must be in non-blocking mode.
    pub(crate) fn new(io: T) -> Self {
        Self {
            home: OnceLock::new(),
            timeouts: [AtomicU64::new(0), AtomicU64::new(0)],
            nonblocking: AtomicBool::new(false),
            number: io.as_fd().as_raw_fd(),
            io: Some(io),
            others: Mutex::default(),
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

    /// Does `op` until it does not block, waiting in between.
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
        self.retry_unless_short(interest, op, |_| false)
    }

    /// [`retry`](Self::retry), where `short` says of a result that the descriptor is drained,
    /// unless it is at its end.
    #[inline(always)]
    pub(crate) fn retry_unless_short<R>(
        &self,
        interest: Interest,
        mut op: impl FnMut(&T) -> io::Result<R>,
        short: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        let mut deadline = None;
        loop {
            context::spend();
            let nonblocking = self.is_nonblocking();
            let drained = || self.at_reactor(Reactor::is_drained).unwrap_or(false);
            if nonblocking || interest == Interest::Write || !drained() {
                match op(self.get()) {
                    Ok(result) => {
                        if short(&result) {
                            self.at_reactor(Reactor::set_short);
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
            if deadline.is_none() {
                deadline =
                    self.timeout(interest).map(|timeout| (timeout, context::deadline(timeout)));
            }
            let until = deadline.and_then(|(_, until)| until);
            if self.wait(interest, until)? == Outcome::TimedOut {
                return Err(timed_out(interest, deadline.map(|(timeout, _)| timeout)));
            }
        }
    }

    /// [`retry`](Self::retry), for an `op` that may wait, for whatever it likes.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_waiting<R>(
        &self,
        interest: Interest,
        mut op: impl FnMut() -> io::Result<R>,
    ) -> io::Result<R> {
        // Of no reactor, where none knows it yet.
        let edges = || self.at_reactor(Reactor::edges).flatten();
        self.retry(interest, |_| {
            let before = edges();
            match op() {
                // What has come meanwhile is not reported again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && edges() != before => {
                    Err(Errno::INTR.into())
                }
                result => result,
            }
        })
    }

    /// Does `op` once, and does not wait.
    ///
    /// # Errors
    ///
    /// Those of `op`, `WouldBlock` included.
    pub(crate) fn attempt<R>(&self, mut op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            context::spend();
            match op(self.get()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// [`retry`](Self::retry) for writing where no event tells when to try again, or one does that
    /// means nothing: tries again after pauses.
    ///
    /// # Errors
    ///
    /// Those of [`retry`](Self::retry).
    pub(crate) fn retry_unannounced<R>(
        &self,
        mut op: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let timeout = self.timeout(Interest::Write);
        let deadline = timeout.and_then(context::deadline);
        let mut pause = RETRY;
        loop {
            match self.attempt(&mut op) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {}
                result => return result,
            }
            check_unwinding()?;
            if deadline.is_some_and(|deadline| context::now() >= deadline) {
                return Err(timed_out(Interest::Write, timeout));
            }
            let until = context::deadline(pause).into_iter().chain(deadline).min();
            let why = Wait::Writable(self.number);
            context::block(context::waiter(), why, until);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Waits until the descriptor is writable for the first time.
    ///
    /// # Errors
    ///
    /// `TimedOut` when `deadline` passes first.
    pub(crate) fn wait_connected(&self, deadline: Option<Instant>) -> io::Result<()> {
        match self.wait(Interest::Write, deadline)? {
            Outcome::Ready => Ok(()),
            Outcome::TimedOut => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    #[inline]
    fn wait(&self, interest: Interest, deadline: Option<Instant>) -> io::Result<Outcome> {
        if !context::in_coroutine() {
            return blocking::waiting(|| poll_one(self.get().as_fd(), interest, deadline));
        }
        check_unwinding()?;
        let Some(subscribed) = self.subscribe(interest)? else {
            // A regular file: always ready.
            return Ok(Outcome::Ready);
        };
        let why = match interest {
            Interest::Read => Wait::Readable(self.number),
            Interest::Write => Wait::Writable(self.number),
        };
        if context::block(subscribed.waiter, why, deadline) == Wake::Ready {
            // The reactor let go of the waiter when it woke it.
            mem::forget(subscribed);
            return Ok(Outcome::Ready);
        }
        Ok(Outcome::TimedOut)
    }

    /// Has the reactor wake who calls this, unless it cannot watch the descriptor.
    #[inline]
    fn subscribe(&self, interest: Interest) -> io::Result<Option<Subscription>> {
        let subscribe = |reactor: &Reactor, key| {
            context::looks_next_at(self);
            let waiter = context::waiter();
            reactor.subscribe(key, self.get(), interest, waiter)?;
            Ok(Some(Subscription { key, interest, waiter }))
        };
        match self.at_reactor(subscribe) {
            Some(result) => result,
            None => match self.register() {
                Ok(()) => self.subscribe(interest),
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Calls `f` with this thread's reactor and the key of this descriptor there, if it has one. What the
    /// reactor knows is of use only to coroutines: while a plain thread runs, nobody polls it.
    #[inline]
    fn at_reactor<R>(&self, f: impl FnOnce(&Reactor, SourceKey) -> R) -> Option<R> {
        let home = self.home.get().filter(|_| context::in_coroutine())?;
        context::with(|cx| {
            let reactor = cx.scheduler.reactor()?;
            let here = home.is_with(reactor.port());
            let key = if here { home.key } else { self.other_key(reactor.port())? };
            Some(f(reactor, key))
        })
    }

    #[cold]
    fn other_key(&self, port: &Arc<Port>) -> Option<SourceKey> {
        self.others().iter().find(|other| other.is_with(port)).map(|other| other.key)
    }

    fn others(&self) -> MutexGuard<'_, Vec<Registration>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this thread's reactor know the descriptor.
    #[cold]
    fn register(&self) -> io::Result<()> {
        context::with(|cx| {
            let Some(reactor) = cx.scheduler.reactor() else {
                unreachable!("a coroutine runs, so its thread has a reactor")
            };
            let key = reactor.register(self.get().as_fd())?;
            let port = Arc::downgrade(reactor.port());
            if let Err(registration) = self.home.set(Registration { port, door: cx.door(), key }) {
                let mut others = self.others();
                others.retain(|other| other.port.strong_count() > 0);
                others.push(registration);
            }
            Ok(())
        })
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

impl<T: AsFd> Source<T> {
    /// Has the reactors forget the descriptor.
    fn deregister(&mut self) {
        let others = self.others.get_mut().unwrap_or_else(PoisonError::into_inner);
        let others = mem::take(others);
        for Registration { port, door, key } in self.home.take().into_iter().chain(others) {
            // The kernel has forgotten it along with a reactor that is gone.
            let Some(alive) = port.upgrade() else { continue };
            alive.forget(self.get().as_fd());
            drop(alive);
            let here = context::try_with(|cx| {
                ptr::eq(cx.door(), door).then(|| cx.scheduler.deregister(&port, key))
            });
            if here.flatten().is_none() {
                door.send(Message::Deregister { port, key });
            }
        }
    }
}

impl<T: AsFd> Drop for Source<T> {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Takes a waiter back that gave up, by time-out or unwinding.
struct Subscription {
    key: SourceKey,
    interest: Interest,
    waiter: Waiter,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        context::with(|cx| {
            let reactor = cx.scheduler.reactor().into_iter();
            reactor.for_each(|reactor| reactor.unsubscribe(self.key, self.interest, self.waiter));
        });
    }
}

/// Blocks a plain thread until its descriptor is ready.
pub(super) fn poll_one(
    fd: BorrowedFd<'_>,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<Outcome> {
    let flags = match interest {
        Interest::Read => PollFlags::IN,
        Interest::Write => PollFlags::OUT,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(Outcome::TimedOut),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(Outcome::Ready),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a descriptor is ready now.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<bool> {
    Ok(poll_one(fd, interest, Some(Instant::now()))? == Outcome::Ready)
}

/// Fails in a coroutine that unwinds: its I/O must not wait.
pub(super) fn check_unwinding() -> io::Result<()> {
    if context::is_unwinding() {
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

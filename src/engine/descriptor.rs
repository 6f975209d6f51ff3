//! Which reactors a descriptor is registered with, and waiting for its events.
//!
//! A descriptor is registered once with the reactor of each thread that has waited for it. Nearly
//! always that is one thread.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use super::cancel;
use super::context::{self, Running};
use super::current;
use super::mailbox::{Mailbox, Message};
use super::mutex::Mutex;
use super::park;
use super::reactor::{Interest, Port, Reactor, Readiness, Token};
use super::scheduler::Scheduler;
use super::task::{Wait, Wake};
use super::waiter::{FutureWaiter, Waiter};

/// The registrations of one descriptor, which must be deregistered before it is closed.
#[derive(Default, Debug)]
#[repr(C)]
pub(crate) struct Registrations {
    // With the reactor of the thread that waited first.
    first: OnceLock<Registration>,
    others: Mutex<Vec<Registration>>,
}

/// The registration with one thread's reactor. It is valid for as long as that thread lives.
struct Registration {
    // Weak, because a long-lived descriptor would otherwise keep alive the reactors of all threads
    // that have waited for it.
    port: Weak<Port>,
    mailbox: &'static Mailbox,
    token: Token,
}

impl Registration {
    #[inline]
    fn is_with(&self, reactor: &Reactor) -> bool {
        // The address identifies the port: its memory is not reused while a weak pointer to it
        // exists.
        ptr::eq(self.port.as_ptr(), Arc::as_ptr(reactor.port()))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Registrations {
    /// The descriptor's readiness, if it is registered with this thread's reactor. `None` on a
    /// plain thread, because nothing polls a reactor outside of a run.
    #[inline]
    pub(crate) fn readiness<'a>(&self, running: Option<Running<'a>>) -> Option<Readiness<'a>> {
        self.readiness_on(running.map(|running| running.scheduler))
    }

    #[inline]
    fn readiness_on<'a>(&self, scheduler: Option<&'a Scheduler>) -> Option<Readiness<'a>> {
        let first = self.first.get()?;
        let reactor = scheduler?.reactor()?;
        let token = if first.is_with(reactor) { first.token } else { self.other_token(reactor)? };
        Some(reactor.readiness(token))
    }

    #[cold]
    fn other_token(&self, reactor: &Reactor) -> Option<Token> {
        let others = self.others.lock();
        others.iter().find(|other| other.is_with(reactor)).map(|other| other.token)
    }

    /// Registers the descriptor `fd` with this thread's reactor, unless it already is. `None` for a
    /// descriptor that is always ready, such as a regular file.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    #[cold]
    pub(crate) fn register<'a>(
        &self,
        scheduler: &'a Scheduler,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Option<Readiness<'a>>> {
        // Another coroutine may have registered the descriptor since the operation began.
        if let Some(readiness) = self.readiness_on(Some(scheduler)) {
            return Ok(Some(readiness));
        }
        let Some(reactor) = scheduler.reactor() else {
            unreachable!("a run is under way, so its thread has a reactor")
        };
        let token = match reactor.register(fd) {
            Ok(token) => token,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(None),
            Err(error) => return Err(error),
        };
        let port = Arc::downgrade(reactor.port());
        let registration = Registration { port, mailbox: scheduler.mailbox(), token };
        if let Err(registration) = self.first.set(registration) {
            let mut others = self.others.lock();
            others.retain(|other| other.port.strong_count() > 0);
            others.push(registration);
        }
        // A deadline that is set from now on finds the registration, and one that was set before is
        // found by the caller.
        fence(Ordering::SeqCst);
        Ok(Some(reactor.readiness(token)))
    }

    /// Whether an operation on `fd` is worth a try. If not, the next edge wakes `future`.
    ///
    /// # Errors
    ///
    /// When no run is under way on this thread, and when the kernel refuses.
    pub(crate) fn poll_ready(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        future: &FutureWaiter,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // In place of a yield, which must not happen in the middle of a poll. `block_on` yields.
        if current::in_coroutine() && !current::spend() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let look = |list: bool| -> io::Result<bool> {
            with_run(|scheduler| {
                let scheduler = scheduler.ok_or_else(nothing_would_wake)?;
                let known = self.readiness_on(Some(scheduler));
                let known = known.map_or_else(|| self.register(scheduler, fd), |it| Ok(Some(it)));
                let Some(readiness) = known? else { return Ok(true) };
                let ready = readiness.is_ready(interest);
                if list && !ready {
                    readiness.subscribe_future(fd, interest, future)?;
                }
                Ok(ready)
            })
        };
        if look(false)? {
            return Poll::Ready(Ok(()));
        }
        // The waker is user code, which may wait when it is cloned, or suspend in the body of a
        // generator. So nothing of the scheduler is borrowed now. An event that comes meanwhile is
        // not reported again.
        future.set_waker(cx.waker());
        if look(true)? { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Calls `op` once, unless the descriptor is known to be not ready. Its result says whether a
    /// stream has been drained.
    ///
    /// `op` may be code of a user. In the body of a generator it may suspend, and go on when the
    /// thread's scheduler is gone. So nothing is borrowed from that across the call.
    ///
    /// # Errors
    ///
    /// Those of `op`; `WouldBlock`.
    pub(crate) fn attempt(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        op: &mut dyn FnMut() -> io::Result<bool>,
    ) -> io::Result<()> {
        let before = with_run(|scheduler| self.readiness_on(scheduler)?.look(interest));
        if let Some((_, false)) = before {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = op();
        if let Some((edges, true)) = before {
            with_run(|scheduler| {
                // An event that came while `op` ran is not reported again.
                let readiness = self.readiness_on(scheduler)?;
                let unchanged = readiness.edges() == Some(edges);
                match &result {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && unchanged => {
                        readiness.clear(fd, interest);
                    }
                    Ok(true) if unchanged => readiness.set_short(),
                    _ => {}
                }
                Some(())
            });
        }
        result.map(drop)
    }

    /// Has every coroutine that waits for the descriptor try again, on all threads. A caller that
    /// registers later has seen what the caller of this has changed.
    #[cold]
    pub(crate) fn recheck(&self) {
        // Orders the change before the look at the registrations. The counterpart is in `register`.
        fence(Ordering::SeqCst);
        let name = |of: &Registration| Some((of.port.upgrade()?.number(), of.mailbox, of.token));
        let mut all: Vec<_> = self.others.lock().iter().filter_map(name).collect();
        all.extend(self.first.get().and_then(name));
        for (reactor, mailbox, token) in all {
            let token = token.number();
            let local = context::try_with(|scheduler| {
                let local = ptr::eq(scheduler.mailbox(), mailbox);
                local.then(|| scheduler.recheck(reactor, token))
            });
            match local.flatten() {
                Some(waiters) => wake_all(waiters),
                None => mailbox.send(Message::Recheck { reactor, token }),
            }
        }
    }

    /// Deregisters the descriptor from all reactors. `fd` is `None` if it is closed next, and its
    /// open file with it: then the kernel forgets the registrations by itself.
    pub(crate) fn deregister(&mut self, fd: Option<BorrowedFd<'_>>) {
        let others = mem::take(self.others.get_mut());
        for Registration { port, mailbox, token } in self.first.take().into_iter().chain(others) {
            // If the reactor is gone, the kernel has forgotten the registration with it.
            let Some(port) = port.upgrade() else { continue };
            if let Some(fd) = fd {
                port.forget(fd);
            }
            let (reactor, token) = (port.number(), token.number());
            let local = context::try_with(|scheduler| {
                let local = ptr::eq(scheduler.mailbox(), mailbox);
                local.then(|| scheduler.deregister(reactor, token))
            });
            match local.flatten() {
                Some(waiters) => wake_all(waiters),
                None => mailbox.send(Message::Deregister { reactor, token }),
            }
        }
    }
}

/// Ends the waits of all these waiters. The wakers of futures are user code: the panic hook has
/// reported a panic of theirs.
fn wake_all(waiters: Vec<Waiter>) {
    cancel::catch_and_forget(|| park::wake_all(waiters));
}

#[cold]
fn nothing_would_wake() -> io::Error {
    io::Error::other(
        "no plainsong runtime runs on this thread, so nothing would wake the future: poll it \
         inside of `plainsong::run`, or use a call that waits by itself",
    )
}

/// Calls `f` with this thread's scheduler, if a run is under way on it.
#[inline]
fn with_run<R>(f: impl FnOnce(Option<&Scheduler>) -> R) -> R {
    context::with_any(|scheduler| f(scheduler.filter(|scheduler| scheduler.is_running())))
}

/// Parks the running coroutine until the next edge of `fd`, or until `deadline` has passed. An
/// operation on `fd` has just failed with `WouldBlock`. Unwinds when the coroutine is cancelled.
///
/// # Errors
///
/// When the kernel refuses.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn wait(
    running: Running<'_>,
    readiness: Readiness<'_>,
    fd: BorrowedFd<'_>,
    interest: Interest,
    why: Wait,
    deadline: Option<Instant>,
) -> io::Result<Wake> {
    let Running { scheduler, task } = running;
    if scheduler.is_cancel_pending(task) {
        scheduler.raise(task);
    }
    let parker = scheduler.prepare(task);
    let subscribed = readiness.subscribe(fd, interest, parker.into());
    if subscribed.is_err() {
        readiness.unsubscribe(interest, &parker.into());
        return subscribed.map(|()| Wake::Ready);
    }
    let wake = scheduler.park(task, why, deadline);
    if wake != Wake::Ready {
        // No event has come, so the reactor still has the waiter.
        readiness.unsubscribe(interest, &parker.into());
        if wake == Wake::Cancelled {
            scheduler.raise(task);
        }
    }
    Ok(wake)
}

//! Which reactors know a descriptor, and waiting for it.
//!
//! A descriptor is registered with the reactor of each thread that has waited for it, once. Nearly
//! always that is one thread.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use super::context::{self, Running};
use super::mailbox::{Mailbox, Message};
use super::mutex::Mutex;

use super::reactor::{Interest, Port, Reactor, Readiness, Token};
use super::task::{Wait, Wake};

/// The reactors that know one descriptor. It must be deregistered before it is closed.
#[derive(Default, Debug)]
#[repr(C)]
pub(crate) struct Registrations {
    // Where the descriptor was first waited for.
    first: OnceLock<Registration>,
    others: Mutex<Vec<Registration>>,
}

/// One thread's reactor knows the descriptor by this token, for as long as that thread lives.
struct Registration {
    // Weak, or a long-lived descriptor would keep the reactors of all threads that have waited for
    // it.
    port: Weak<Port>,
    mailbox: &'static Mailbox,
    token: Token,
}

impl Registration {
    #[inline]
    fn is_with(&self, reactor: &Reactor) -> bool {
        // The memory of a port is not used again while even a weak pointer to it is left.
        ptr::eq(self.port.as_ptr(), Arc::as_ptr(reactor.port()))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("token", &self.token).finish_non_exhaustive()
    }
}

impl Registrations {
    /// What this thread's reactor knows of the descriptor, if anything. That is of use to
    /// coroutines only: while a plain thread runs, nothing polls its reactor.
    #[inline]
    pub(crate) fn readiness<'a>(&self, running: Option<Running<'a>>) -> Option<Readiness<'a>> {
        let first = self.first.get()?;
        let reactor = running?.scheduler.reactor()?;
        let token = if first.is_with(reactor) { first.token } else { self.other_token(reactor)? };
        Some(reactor.readiness(token))
    }

    #[cold]
    fn other_token(&self, reactor: &Reactor) -> Option<Token> {
        let others = self.others.lock();
        others.iter().find(|other| other.is_with(reactor)).map(|other| other.token)
    }

    /// Has this thread's reactor know the descriptor `fd`, if it does not yet. `None` for one that
    /// is always ready, such as a regular file.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    #[cold]
    pub(crate) fn register<'a>(
        &self,
        running: Running<'a>,
        fd: &impl AsFd,
    ) -> io::Result<Option<Readiness<'a>>> {
        // Another coroutine may have registered it since the operation began.
        if let Some(readiness) = self.readiness(Some(running)) {
            return Ok(Some(readiness));
        }
        let scheduler = running.scheduler;
        let Some(reactor) = scheduler.reactor() else {
            unreachable!("a coroutine runs, so its thread has a reactor")
        };
        let token = match reactor.register(fd.as_fd()) {
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
        Ok(Some(reactor.readiness(token)))
    }

    /// Has all reactors forget the descriptor.
    pub(crate) fn deregister(&mut self, fd: &impl AsFd) {
        let others = mem::take(self.others.get_mut());
        for Registration { port, mailbox, token } in self.first.take().into_iter().chain(others) {
            // The kernel has forgotten it along with a reactor that is gone.
            let Some(port) = port.upgrade() else { continue };
            port.forget(fd.as_fd());
            let (reactor, token) = (port.number(), token.number());
            let local = context::try_with(|scheduler| {
                let local = ptr::eq(scheduler.mailbox(), mailbox);
                local.then(|| scheduler.deregister(reactor, token))
            });
            if local.flatten().is_none() {
                mailbox.send(Message::Deregister { reactor, token });
            }
        }
    }
}

/// Parks the running coroutine until the next edge of `fd`, of which an operation has failed with
/// `WouldBlock`, or until `deadline` has passed. Unwinds when the coroutine is cancelled.
///
/// # Errors
///
/// When the kernel refuses.
#[inline(always)]
pub(crate) fn wait(
    running: Running<'_>,
    readiness: Readiness<'_>,
    fd: &impl AsFd,
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
        // The reactor has not let go of the waiter, as it does when it wakes one.
        readiness.unsubscribe(interest, &parker.into());
        if wake == Wake::Cancelled {
            scheduler.raise(task);
        }
    }
    Ok(wake)
}

//! The two directions of a descriptor, as operations of a `select!`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, poll};

use super::source::{Descriptor, Source};
use super::waits::{flags, is_ready};
use crate::engine::park;
use crate::engine::reactor::Interest;
use crate::engine::shared::start_thread;
use crate::engine::waiter::Waiter;
use crate::sync::operation::{Directions, Registration, Ticket};

/// How long a plain thread pauses between two looks, when no other thread can look for it.
const PAUSE: Duration = Duration::from_millis(1);

impl<T: Descriptor> Directions for Source<T> {
    fn is_ready(&self, interest: Interest) -> bool {
        // If the kernel refuses to say, the operation itself reports why.
        let ready = is_ready(self.get().as_fd(), interest).unwrap_or(true);
        if ready {
            // The kernel is ahead of the last poll, and a `try_…` asks only that.
            self.note_ready(interest);
        }
        ready
    }

    fn prepare(&self) {
        if let Err(error) = self.listen_on(self.fd()) {
            panic!("the kernel refuses to watch a descriptor of a `select!`: {error}");
        }
    }

    fn register<'a>(
        &'a self,
        waiter: Waiter,
        interest: Interest,
    ) -> Option<Box<dyn Registration + 'a>> {
        let registration: Box<dyn Registration + 'a> = if park::in_coroutine() {
            self.subscribe(self.fd(), interest, &waiter);
            Box::new(Subscribed { source: self, interest, waiter })
        } else {
            Box::new(Watched(watch(self.get().as_fd(), interest, waiter)))
        };
        // After the subscription, as an event before it is not reported again.
        if self.is_ready(interest) {
            registration.deregister(false);
            return None;
        }
        Some(registration)
    }
}

/// A place in the list of the reactor.
struct Subscribed<'a, T: Descriptor> {
    source: &'a Source<T>,
    interest: Interest,
    waiter: Waiter,
}

impl<T: Descriptor> Registration for Subscribed<'_, T> {
    fn deregister(self: Box<Self>, _: bool) -> Option<Ticket> {
        self.source.unsubscribe(self.interest, &self.waiter);
        None
    }
}

/// A thread watches until this is dropped: it sees the end of the other stream.
struct Watched(#[expect(dead_code, reason = "held for its drop")] Option<UnixStream>);

impl Registration for Watched {
    fn deregister(self: Box<Self>, _: bool) -> Option<Ticket> {
        None
    }
}

/// Has a thread wait for a descriptor and wake `waiter`, a plain thread: nothing polls a reactor
/// for it. It is no thread of the pool, where the wait could queue behind calls that block.
fn watch(fd: BorrowedFd<'_>, interest: Interest, waiter: Waiter) -> Option<UnixStream> {
    let begin = || -> io::Result<UnixStream> {
        let fd = fd.try_clone_to_owned()?;
        let (held, end) = UnixStream::pair()?;
        let waiter = waiter.clone();
        let look = move || {
            let of = [(fd.as_fd(), flags(interest)), (end.as_fd(), flags(Interest::Read))];
            let mut both = of.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
            // A wake too early, after a signal, does no harm.
            let _ = poll(&mut both, None);
            drop((fd, end));
            park::wake(waiter);
        };
        start_thread("plainsong-select", Box::new(look))?;
        Ok(held)
    };
    let begun = begin();
    if begun.is_err() {
        // There is no thread or no descriptor left: this thread has to look again by itself.
        thread::sleep(PAUSE);
        park::wake(waiter);
    }
    begun.ok()
}

//! How a server accepts: with a stack for the coroutine at hand, within its limit, and through a
//! lack of descriptors or memory.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::Listener;
use super::socket::BACKLOG;
use crate::engine::context;
use crate::engine::defer::Defer;
use crate::engine::mutex::Mutex;
use crate::engine::park;
use crate::engine::spawn;
use crate::engine::stack::Stack;
use crate::engine::task::{Wait, Wake};
use crate::engine::waiter::Waiters;
use crate::time::{now, sleep};

/// The first and the longest pause after an `accept` that failed for lack of a resource. (Go's
/// `net/http` has the same two.)
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

const ROOM: Wait = Wait::new(&Wait::for_any_thread("one of the server's connections to end"));

/// When to stop accepting, other than when it fails.
#[derive(Clone, Copy)]
pub(super) enum Until {
    Never,
    /// When the queue is empty, or as many have been accepted as it can hold. Without room or
    /// resources, also at this time.
    Drained(Option<Instant>),
}

/// Accepts connections and has `start` make a coroutine for each, on a stack that exists already.
/// `paused` is called with the error when accepting pauses, and with `None` when it resumes.
pub(super) fn accept_until<L: Listener>(
    listener: &L,
    until: Until,
    limit: Option<&Limit>,
    paused: impl Fn(Option<&io::Error>),
    start: impl Fn(Stack, L::Stream, L::Address, Option<Slot>),
) -> io::Result<()> {
    let (most, waits, deadline) = match until {
        Until::Never => (usize::MAX, true, None),
        // The kernel queues one connection more than it was asked to.
        Until::Drained(deadline) => (BACKLOG as usize + 1, false, deadline),
    };
    for _ in 0..most {
        let mut pause = Pause(PAUSE);
        // The stack comes first, so that each accepted connection can be served.
        let mut stack = Spare(None);
        loop {
            let slot = match limit.map(|limit| limit.acquire(deadline)) {
                None => None,
                Some(Some(slot)) => Some(slot),
                Some(None) => return Ok(()),
            };
            let error = match stack.fill().and_then(|()| listener.accept_now()) {
                Ok((stream, peer)) => {
                    if pause.has_begun() {
                        paused(None);
                    }
                    if let Some(stack) = stack.0.take() {
                        start(stack, stream, peer, slot);
                    }
                    break;
                }
                Err(error) => error,
            };
            // A slot that is not used now may be of use to another worker.
            drop(slot);
            match blame(&error) {
                Blame::Nobody if waits => listener.wait_for_connection()?,
                Blame::Nobody => return Ok(()),
                Blame::Connection => {}
                // `accept` takes a descriptor before it looks for a connection.
                Blame::Resources if !waits && !listener.has_connection()? => return Ok(()),
                Blame::Resources if deadline.is_some_and(|deadline| now() >= deadline) => {
                    return Err(error);
                }
                Blame::Resources => {
                    if !pause.has_begun() {
                        paused(Some(&error));
                    }
                    pause.wait(deadline);
                }
                Blame::Listener => return Err(error),
            }
        }
    }
    Ok(())
}

/// A stack for the next connection. It goes back to the pool if there is none.
struct Spare(Option<Stack>);

impl Spare {
    fn fill(&mut self) -> io::Result<()> {
        if self.0.is_none() {
            self.0 = Some(context::with(|scheduler| spawn::take_stack::<()>(scheduler, None))?);
        }
        Ok(())
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(stack) = self.0.take() {
            context::with(|scheduler| scheduler.put_stack(stack));
        }
    }
}

/// The next pause; each is twice as long as the one before.
struct Pause(Duration);

impl Pause {
    fn wait(&mut self, deadline: Option<Instant>) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now()));
        sleep(left.unwrap_or(self.0).min(self.0));
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }

    fn has_begun(&self) -> bool {
        self.0 > PAUSE
    }
}

/// How many connections a server may serve at once, on all its workers.
#[derive(Clone)]
pub(super) struct Limit(Arc<Mutex<Room>>);

struct Room {
    free: usize,
    waiters: Waiters,
}

/// The right to serve one connection, which the drop gives back.
pub(super) struct Slot(Limit);

impl Limit {
    pub(super) fn new(connections: usize) -> Self {
        Self(Arc::new(Mutex::new(Room { free: connections, waiters: Waiters::default() })))
    }

    fn try_acquire(&self) -> Option<Slot> {
        let mut room = self.0.lock();
        room.free = room.free.checked_sub(1)?;
        Some(Slot(self.clone()))
    }

    /// Waits for a slot. `None` when `deadline` has passed first.
    fn acquire(&self, deadline: Option<Instant>) -> Option<Slot> {
        loop {
            if let Some(slot) = self.try_acquire() {
                return Some(slot);
            }
            let wake = park::until(ROOM, deadline, |waiter| {
                let mut room = self.0.lock();
                if room.free > 0 {
                    return None;
                }
                room.waiters.push(waiter.clone());
                Some(Defer::new(move || self.0.lock().waiters.remove(&waiter)))
            });
            if wake == Wake::TimedOut {
                return None;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let waiters = {
            let mut room = self.0.0.lock();
            room.free += 1;
            room.waiters.take()
        };
        park::wake_all(waiters);
    }
}

/// The cause of an error of `accept`.
enum Blame {
    /// There was no connection to accept.
    Nobody,
    /// The connection that was to be accepted: the next one may be well.
    Connection,
    /// A lack of descriptors or memory, which may end.
    Resources,
    /// The listener.
    Listener,
}

fn blame(error: &io::Error) -> Blame {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Blame::Resources,
        // accept(2) lists these as errors of the new connection, "like EAGAIN". EOPNOTSUPP is among
        // them, but has another meaning that does not pass: the socket is not one that can listen.
        Some(
            libc::ECONNABORTED
            | libc::ENETDOWN
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => Blame::Connection,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(libc::ENONET) => Blame::Connection,
        _ if error.kind() == io::ErrorKind::WouldBlock => Blame::Nobody,
        _ if error.kind() == io::ErrorKind::ConnectionAborted => Blame::Connection,
        // No room for another stack.
        _ if error.kind() == io::ErrorKind::OutOfMemory => Blame::Resources,
        _ => Blame::Listener,
    }
}

//! The only file that names polling: which descriptors are ready.
//!
//! A descriptor is registered once per thread, for both directions, edge-triggered. That it is
//! readable is kept as a flag until a read finds the descriptor drained, so that the read after
//! that parks without asking the kernel again.
//!
//! On Linux, `polling` makes the epoll instance, and this file adds to it and waits on
//! it through rustix: `Poller::wait` would make five system calls where one does, and its
//! events do not report a peer's half-close (`EPOLLRDHUP`). Elsewhere, or with
//! `--cfg plainsong_portable_reactor`, `polling` does it all.
//!
//! The reactor runs no coroutine and wakes none: it returns the waiters that are to be woken.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use slab::Slab;

use super::waiter::{Waiter, Waiters};

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
use self::epoll as backend;
#[cfg(not(all(target_os = "linux", not(plainsong_portable_reactor))))]
use self::portable as backend;
pub(crate) use backend::Port;

/// Events taken from the kernel at once. What is touched when their coroutines are woken should
/// still be in the processor's second cache when these have their turns. No fewer than the turns
/// between two ticks of the loop, or descriptors would get less than their share of a ready queue
/// that is never empty.
pub(super) const EVENTS: usize = 128;

/// `epoll_wait` takes milliseconds in 32 bits, a little more than 24 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A direction of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// Names a registration; never that of another descriptor, before or after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(u64);

impl Token {
    fn new(index: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | index as u64)
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    /// The token as a message to another thread carries it.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// What the kernel said of one descriptor.
#[derive(Clone, Copy)]
struct Event {
    token: u64,
    readable: bool,
    writable: bool,
    /// The peer has ended its side or sent urgent data, or the descriptor failed: from now on
    /// a short read does not mean that the descriptor is drained.
    ending: bool,
}

/// One registered descriptor, in one cache line: with many descriptors, the next one is cold.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    token: Token,
    readable: bool,
    ending: bool,
    /// How often anything has been reported.
    edges: u32,
    readers: Waiters,
    /// Seldom is there any.
    writers: Option<Box<Waiters>>,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// The descriptors that one thread's coroutines wait for.
pub(crate) struct Reactor {
    port: Arc<Port>,
    buffer: RefCell<backend::Buffer>,
    entries: RefCell<Slab<Entry>>,
    generation: Cell<u32>,
}

impl Reactor {
    /// # Errors
    ///
    /// When the kernel refuses, mostly for lack of descriptors.
    pub(super) fn new() -> io::Result<Self> {
        static REACTORS: AtomicU64 = AtomicU64::new(0);
        let number = REACTORS.fetch_add(1, Ordering::Relaxed);
        let port = Port::new(number).map_err(|error| {
            let advice = "each worker takes up to four descriptors; allow more (ulimit -n)";
            io::Error::new(error.kind(), format!("cannot make a reactor: {error}; {advice}"))
        })?;
        Ok(Self {
            port: Arc::new(port),
            buffer: RefCell::new(backend::Buffer::new(EVENTS)),
            entries: RefCell::default(),
            generation: Cell::new(0),
        })
    }

    /// A number that no other reactor of the process has.
    pub(super) fn number(&self) -> u64 {
        self.port.number
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// What ends a [`poll`](Self::poll) that waits, from any thread.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.port))
    }

    /// How often to poll until each descriptor that is ready now has been reported.
    pub(super) fn batches(&self) -> usize {
        self.entries.borrow().len() / EVENTS + 1
    }

    /// Whether no descriptor is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Starts to watch a descriptor, which must be given to [`Port::forget`] before it is
    /// closed, and its token to [`deregister`](Self::deregister).
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> io::Result<Token> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut entries = self.entries.borrow_mut();
        let vacant = entries.vacant_entry();
        let token = Token::new(vacant.key(), generation);
        self.port.watch(fd, token.0)?;
        vacant.insert(Entry {
            token,
            // Not known yet: the kernel reports what is ready now as the first edge.
            readable: true,
            ending: false,
            edges: 0,
            readers: Waiters::default(),
            writers: None,
        });
        Ok(token)
    }

    /// Forgets the registration whose token has this number; late events for it find nothing.
    /// Returns the waiters that it still had.
    pub(super) fn deregister(&self, number: u64) -> impl Iterator<Item = Waiter> + use<> {
        let token = Token(number);
        let mut entries = self.entries.borrow_mut();
        let known = entries.get(token.index()).is_some_and(|entry| entry.token == token);
        let entry = known.then(|| entries.remove(token.index()));
        entry.into_iter().flat_map(|entry| {
            let writers = entry.writers.into_iter().flat_map(|writers| *writers);
            entry.readers.into_iter().chain(writers)
        })
    }

    /// What is known of a registered descriptor.
    #[inline]
    pub(crate) fn readiness(&self, token: Token) -> Readiness<'_> {
        Readiness { reactor: self, token }
    }

    /// Waits for events, for `timeout` at most (for ever without one), and appends the waiters that
    /// they wake. Returns whether there may be more of them.
    pub(super) fn poll(
        &self,
        timeout: Option<Duration>,
        woken: &mut Vec<Waiter>,
    ) -> io::Result<bool> {
        // Longer ones need a newer system call than some systems have; waking early does no harm.
        let timeout = timeout.map(|timeout| timeout.min(TIMEOUT_MAX));
        let mut buffer = self.buffer.borrow_mut();
        let events = self.port.wait(&mut buffer, timeout)?;
        let mut entries = self.entries.borrow_mut();
        for event in buffer.drain() {
            let token = Token(event.token);
            let entry = entries.get_mut(token.index()).filter(|entry| entry.token == token);
            let Some(entry) = entry else { continue };
            entry.ending |= event.ending;
            entry.edges = entry.edges.wrapping_add(1);
            if event.readable {
                entry.readable = true;
                entry.readers.append_to(woken);
            }
            if event.writable {
                if let Some(writers) = &mut entry.writers {
                    writers.append_to(woken);
                }
            }
        }
        // One of them may have been the waker's, which is not counted everywhere.
        Ok(events + 1 >= EVENTS)
    }
}

/// What one thread's reactor knows of one descriptor. An operation finds it once.
#[derive(Clone, Copy)]
pub(crate) struct Readiness<'a> {
    reactor: &'a Reactor,
    token: Token,
}

impl Readiness<'_> {
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut entries = self.reactor.entries.borrow_mut();
        entries.get_mut(self.token.index()).filter(|entry| entry.token == self.token).map(f)
    }

    /// Whether a read would fail with `WouldBlock`, as far as the last poll knows.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.with(|entry| !entry.readable).unwrap_or(false)
    }

    /// A number that changes with each report on the descriptor.
    pub(crate) fn edges(&self) -> Option<u32> {
        self.with(|entry| entry.edges)
    }

    /// Notes that a read of a TCP stream got less than it asked for.
    ///
    /// That means drained unless something that comes without a further edge is behind it: the end
    /// of the stream, an error, or data past an urgent mark. Each of these raised an event of its
    /// own, either before this read (then `ending` is set) or after the last poll (then a later
    /// one reports it).
    #[inline]
    pub(crate) fn set_short(&self) {
        self.with(|entry| entry.readable &= entry.ending || !backend::TELLS_ENDING);
    }

    /// Has `waiter` woken at the next edge of `fd`, the registered descriptor, of which an
    /// operation has failed with `WouldBlock`.
    #[inline]
    pub(crate) fn subscribe(
        &self,
        fd: &impl AsFd,
        interest: Interest,
        waiter: Waiter,
    ) -> io::Result<()> {
        let waits = self.with(|entry| {
            match interest {
                Interest::Read => {
                    entry.readable = false;
                    entry.readers.push(waiter);
                }
                Interest::Write => entry.writers.get_or_insert_default().push(waiter),
            }
            let any_writer = entry.writers.as_ref().is_some_and(|writers| !writers.is_empty());
            (!entry.readers.is_empty(), any_writer)
        });
        let Some((readers, writers)) = waits else {
            return Err(io::Error::other("waited for a descriptor that is not registered"));
        };
        self.reactor.port.rearm(fd, self.token.0, readers, writers)
    }

    /// Takes back a [`subscribe`](Self::subscribe) that has not been answered.
    pub(crate) fn unsubscribe(&self, interest: Interest, waiter: &Waiter) {
        self.with(|entry| match interest {
            Interest::Read => entry.readers.remove(waiter),
            Interest::Write => {
                if let Some(writers) = &mut entry.writers {
                    writers.remove(waiter);
                }
            }
        });
    }
}

impl Port {
    /// The number of its reactor.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Wake for Port {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// Linux: the poller's own epoll instance, spoken to directly.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
mod epoll {
    use super::{AsFd, BorrowedFd, Duration, EVENTS, Event, io};
    use polling::Poller;
    use rustix::buffer::spare_capacity;
    use rustix::event::epoll::{self, EventData, EventFlags};
    use rustix::event::{EventfdFlags, Timespec, eventfd};
    use rustix::fd::OwnedFd;

    pub(super) const TELLS_ENDING: bool = true;

    /// The key of the eventfd: no entry has it, as a slab never holds 2^32 - 1 descriptors.
    const WAKER: u64 = u64::MAX;

    /// The part of a reactor that other threads may use.
    #[derive(Debug)]
    pub(crate) struct Port {
        pub(super) number: u64,
        poller: Poller,
        // `Poller::notify` is re-armed only by `Poller::wait`, which is never called here.
        eventfd: OwnedFd,
    }

    impl Port {
        pub(super) fn new(number: u64) -> io::Result<Self> {
            let poller = Poller::new()?;
            let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Edge-triggered, so that it need not be read: each write is an edge.
            epoll::add(
                &poller,
                &eventfd,
                EventData::new_u64(WAKER),
                EventFlags::IN | EventFlags::ET,
            )?;
            Ok(Self { number, poller, eventfd })
        }

        pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
            let flags = EventFlags::IN
                | EventFlags::OUT
                | EventFlags::PRI
                | EventFlags::RDHUP
                | EventFlags::ET;
            Ok(epoll::add(&self.poller, fd, EventData::new_u64(token), flags)?)
        }

        /// Edges need no second asking.
        #[expect(clippy::unused_self, clippy::unnecessary_wraps)]
        pub(super) fn rearm(&self, _: &impl AsFd, _: u64, _: bool, _: bool) -> io::Result<()> {
            Ok(())
        }

        /// Stops watching a descriptor, from any thread.
        pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
            // Fails only when the descriptor is not watched any more.
            let _ = epoll::delete(&self.poller, fd);
        }

        /// Ends a wait of the reactor's thread.
        pub(super) fn notify(&self) {
            // Fails only when the count is 2^64 - 1 already, and then the wait has ended.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }

        pub(super) fn wait(
            &self,
            into: &mut Buffer,
            timeout: Option<Duration>,
        ) -> io::Result<usize> {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            into.0.clear();
            match epoll::wait(self.poller.as_fd(), spare_capacity(&mut into.0), timeout.as_ref()) {
                // A process that was stopped and goes on, say: nothing is known of what has come
                // meanwhile.
                Err(rustix::io::Errno::INTR) => Ok(EVENTS),
                result => Ok(result?),
            }
        }
    }

    pub(super) struct Buffer(Vec<epoll::Event>);

    impl Buffer {
        pub(super) fn new(capacity: usize) -> Self {
            Self(Vec::with_capacity(capacity))
        }

        pub(super) fn drain(&mut self) -> impl Iterator<Item = Event> {
            const FAILED: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
            const ENDING: EventFlags = FAILED.union(EventFlags::RDHUP).union(EventFlags::PRI);
            self.0.iter().filter(|event| event.data.u64() != WAKER).map(|event| {
                let flags = event.flags;
                Event {
                    token: event.data.u64(),
                    readable: flags.intersects(ENDING | EventFlags::IN),
                    writable: flags.intersects(FAILED | EventFlags::OUT),
                    ending: flags.intersects(ENDING),
                }
            })
        }
    }
}

/// Every system that polling supports.
#[cfg(not(all(target_os = "linux", not(plainsong_portable_reactor))))]
mod portable {
    use super::{AsFd, BorrowedFd, Duration, Event, io};
    use polling::{Event as Ready, Events, PollMode, Poller};
    use std::os::fd::AsRawFd;

    pub(super) const TELLS_ENDING: bool = false;

    /// The part of a reactor that other threads may use.
    #[derive(Debug)]
    pub(crate) struct Port {
        pub(super) number: u64,
        poller: Poller,
    }

    impl Port {
        pub(super) fn new(number: u64) -> io::Result<Self> {
            Ok(Self { number, poller: Poller::new()? })
        }

        #[allow(unsafe_code)]
        pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
            let interest = Ready::all(token as usize);
            // SAFETY: the descriptor's owner calls `forget` before it closes it.
            unsafe { self.poller.add_with_mode(fd.as_raw_fd(), interest, self.mode()) }
        }

        fn mode(&self) -> PollMode {
            if self.poller.supports_edge() { PollMode::Edge } else { PollMode::Oneshot }
        }

        /// Asks again where the system reports a descriptor only once: for what is waited for, as
        /// the other direction would be reported at once, and instead.
        pub(super) fn rearm(
            &self,
            fd: &impl AsFd,
            token: u64,
            readable: bool,
            writable: bool,
        ) -> io::Result<()> {
            if self.poller.supports_edge() {
                return Ok(());
            }
            let interest = Ready::new(token as usize, readable, writable);
            self.poller.modify_with_mode(fd, interest, self.mode())
        }

        /// Stops watching a descriptor, from any thread.
        pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
            let _ = self.poller.delete(fd);
        }

        /// Ends a wait of the reactor's thread.
        pub(super) fn notify(&self) {
            let _ = self.poller.notify();
        }

        pub(super) fn wait(
            &self,
            into: &mut Buffer,
            timeout: Option<Duration>,
        ) -> io::Result<usize> {
            into.events.clear();
            // What is reported once is not watched any more, for either direction.
            into.both = !self.poller.supports_edge();
            self.poller.wait(&mut into.events, timeout)
        }
    }

    pub(super) struct Buffer {
        events: Events,
        both: bool,
    }

    impl Buffer {
        pub(super) fn new(capacity: usize) -> Self {
            let capacity = std::num::NonZeroUsize::new(capacity);
            let events = capacity.map_or_else(Events::new, Events::with_capacity);
            Self { events, both: false }
        }

        pub(super) fn drain(&mut self) -> impl Iterator<Item = Event> {
            self.events.iter().map(|event| Event {
                token: event.token as u64,
                readable: event.readable || self.both,
                writable: event.writable || self.both,
                ending: false,
            })
        }
    }
}

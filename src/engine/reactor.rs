//! The reactor: which descriptors are ready.
//!
//! A descriptor is registered once per thread, for both directions, edge-triggered. A flag
//! remembers that the descriptor is readable, until a read finds it drained. The next read then
//! parks at once, without a system call that would fail.
//!
//! On Linux, this file uses epoll through rustix, and not the crate `polling`. The reasons:
//! `Poller::wait` makes five system calls where one is enough, its events do not report a peer's
//! half-close (`EPOLLRDHUP`), and a poller takes two descriptors more. On other systems, or with
//! `--cfg plainsong_portable_reactor`, `polling` does everything.
//!
//! The reactor wakes no coroutine itself. It returns the waiters that the scheduler must wake.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use slab::Slab;

use super::error::reworded;
use super::waiter::{FutureWaiter, Waiter, Waiters};

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
use self::epoll as backend;
#[cfg(not(all(target_os = "linux", not(plainsong_portable_reactor))))]
use self::portable as backend;
pub(crate) use backend::{CLOSING_FORGETS, Port};

/// How many events one poll takes from the kernel. It is small enough that the memory touched by
/// waking their coroutines is still in the second-level cache when these have their turns. It is at
/// least the number of turns between two ticks of the loop: otherwise descriptors would get less
/// than their share of a ready queue that is never empty.
pub(super) const EVENTS: usize = 128;

/// `epoll_wait` takes its timeout in milliseconds, in 32 bits: a little more than 24 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The direction of data that a wait is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// Identifies a registration. A token is never used again for another descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(u64);

impl Token {
    fn new(index: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | index as u64)
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    /// Whether `entry`, which has the token's index, is the one that the token was made for.
    #[inline]
    fn is_of(self, entry: &Entry) -> bool {
        (self.0 >> 32) as u32 == entry.generation
    }

    /// The token as a number, for a message to another thread.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// An event of one descriptor, as the kernel reported it.
#[derive(Clone, Copy)]
struct Event {
    token: u64,
    readable: bool,
    writable: bool,
    /// The peer has ended its side or sent urgent data, or the descriptor failed: from now on
    /// a short read does not mean that the descriptor is drained.
    ending: bool,
}

/// One registered descriptor. It fits into one cache line, because with many descriptors each
/// access misses the cache.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    /// The half of its token that is not the index.
    generation: u32,
    /// A read is worth a try.
    readable: bool,
    /// A write is, as far as futures know. Coroutines try each write.
    writable: bool,
    ending: bool,
    /// How many events were reported.
    edges: u32,
    readers: Waiters,
    /// Boxed, because few descriptors have any.
    writers: Option<Box<Waiters>>,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    #[inline]
    fn clear(&mut self, interest: Interest) {
        match interest {
            Interest::Read => self.readable = false,
            Interest::Write => self.writable = false,
        }
    }

    #[inline]
    fn waiters(&mut self, interest: Interest) -> &mut Waiters {
        match interest {
            Interest::Read => &mut self.readers,
            Interest::Write => self.writers.get_or_insert_default(),
        }
    }
}

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
    /// When the kernel refuses, mostly because the process has too many descriptors.
    pub(super) fn new() -> io::Result<Self> {
        static REACTORS: AtomicU64 = AtomicU64::new(0);
        let number = REACTORS.fetch_add(1, Ordering::Relaxed);
        let port = Port::new(number).map_err(|error| {
            let advice = "each worker takes up to four descriptors; allow more (ulimit -n)";
            let text = format!("cannot make a reactor: {error}; {advice}");
            reworded(error, text)
        })?;
        Ok(Self {
            port: Arc::new(port),
            buffer: RefCell::new(backend::Buffer::new(EVENTS)),
            entries: RefCell::default(),
            generation: Cell::new(0),
        })
    }

    /// A descriptor that is readable when [`poll`](Self::poll) has events.
    #[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.port.fd()
    }

    /// A number that no other reactor of the process has.
    pub(super) fn number(&self) -> u64 {
        self.port.number
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// A waker that ends a [`poll`](Self::poll), from any thread.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.port))
    }

    /// How many polls it takes until each descriptor that is ready now has been reported.
    pub(super) fn batches(&self) -> usize {
        self.entries.borrow().len() / EVENTS + 1
    }

    /// Whether no descriptor is registered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Registers a descriptor. Before it is closed, it must be passed to [`Port::forget`], unless
    /// the [kernel forgets it](CLOSING_FORGETS), and its token to
    /// [`deregister`](Self::deregister).
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> io::Result<Token> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut entries = self.entries.borrow_mut();
        let token = Token::new(entries.vacant_key(), generation);
        self.port.watch(fd, token.0)?;
        entries.insert(Entry {
            generation,
            // This is not known yet. The kernel reports the current state as the first edge.
            readable: true,
            writable: true,
            ending: false,
            edges: 0,
            readers: Waiters::default(),
            writers: None,
        });
        Ok(token)
    }

    /// Forgets the registration whose token has this number, and returns its waiters. Late events
    /// for it find nothing.
    pub(super) fn deregister(&self, number: u64) -> impl Iterator<Item = Waiter> + use<> {
        let token = Token(number);
        let mut entries = self.entries.borrow_mut();
        let known = entries.get(token.index()).is_some_and(|entry| token.is_of(entry));
        let entry = known.then(|| entries.remove(token.index()));
        entry.into_iter().flat_map(|entry| {
            let writers = entry.writers.into_iter().flat_map(|writers| *writers);
            entry.readers.into_iter().chain(writers)
        })
    }

    /// Takes the waiters of the registration whose token has this number. They try again what they
    /// wait for.
    pub(super) fn take_waiters(&self, number: u64) -> Vec<Waiter> {
        let (token, mut waiters) = (Token(number), Vec::new());
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(token.index()).filter(|entry| token.is_of(entry)) {
            entry.readers.append_to(&mut waiters);
            if let Some(writers) = &mut entry.writers {
                writers.append_to(&mut waiters);
            }
        }
        waiters
    }

    /// Takes the futures out of all waiter lists.
    pub(super) fn take_futures(&self) -> Vec<Waiter> {
        let mut futures = Vec::new();
        for (_, entry) in &mut *self.entries.borrow_mut() {
            entry.readers.take_futures(&mut futures);
            if let Some(writers) = &mut entry.writers {
                writers.take_futures(&mut futures);
            }
        }
        futures
    }

    /// The readiness of a registered descriptor.
    #[inline]
    pub(crate) fn readiness(&self, token: Token) -> Readiness<'_> {
        Readiness { reactor: self, token }
    }

    /// Waits for events, for `timeout` at most (forever without one), and appends the waiters that
    /// they wake. Returns whether there may be more events, and how many came.
    pub(super) fn poll(
        &self,
        timeout: Option<Duration>,
        woken: &mut Vec<Waiter>,
    ) -> io::Result<(bool, u64)> {
        // A longer timeout needs a system call that older kernels lack. Waking early does no harm.
        let timeout = timeout.map(|timeout| timeout.min(TIMEOUT_MAX));
        let mut buffer = self.buffer.borrow_mut();
        let events = self.port.wait(&mut buffer, timeout)?;
        let (mut entries, mut count) = (self.entries.borrow_mut(), 0);
        for event in buffer.drain() {
            count += 1;
            let token = Token(event.token);
            let entry = entries.get_mut(token.index()).filter(|entry| token.is_of(entry));
            let Some(entry) = entry else { continue };
            entry.ending |= event.ending;
            entry.edges = entry.edges.wrapping_add(1);
            if event.readable {
                entry.readable = true;
                entry.readers.append_to(woken);
            }
            if event.writable {
                entry.writable = true;
                if let Some(writers) = &mut entry.writers {
                    writers.append_to(woken);
                }
            }
        }
        // One event may have been the waker's, which not every backend counts.
        Ok((events + 1 >= EVENTS, count))
    }
}

/// The readiness of one descriptor, as one thread's reactor knows it. Each operation looks it up
/// once.
#[derive(Clone, Copy)]
pub(crate) struct Readiness<'a> {
    reactor: &'a Reactor,
    token: Token,
}

impl Readiness<'_> {
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut entries = self.reactor.entries.borrow_mut();
        entries.get_mut(self.token.index()).filter(|entry| self.token.is_of(entry)).map(f)
    }

    /// Whether a read would fail with `WouldBlock`, according to the last poll.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.with(|entry| !entry.readable).unwrap_or(false)
    }

    /// Whether an operation is worth a try, according to the last poll and the last tries.
    pub(crate) fn is_ready(&self, interest: Interest) -> bool {
        self.look(interest).is_none_or(|(_, ready)| ready)
    }

    /// [`edges`](Self::edges) and [`is_ready`](Self::is_ready).
    #[inline]
    pub(crate) fn look(&self, interest: Interest) -> Option<(u32, bool)> {
        self.with(|entry| match interest {
            Interest::Read => (entry.edges, entry.readable),
            Interest::Write => (entry.edges, entry.writable),
        })
    }

    /// Notes that an operation is worth a try, whatever the last poll has said.
    pub(crate) fn set_ready(&self, interest: Interest) {
        self.with(|entry| match interest {
            Interest::Read => entry.readable = true,
            Interest::Write => entry.writable = true,
        });
    }

    /// Notes that an operation on `fd`, the registered descriptor, has just failed with
    /// `WouldBlock`.
    pub(crate) fn clear(&self, fd: BorrowedFd<'_>, interest: Interest) {
        if self.list(fd, |entry| entry.clear(interest)).is_err() {
            // No event would tell that it is ready again.
            self.set_ready(interest);
        }
    }

    /// A number that changes with each event of the descriptor.
    #[inline]
    pub(crate) fn edges(&self) -> Option<u32> {
        self.with(|entry| entry.edges)
    }

    /// Notes that a read of a TCP stream was short: it got less than it asked for.
    ///
    /// A short read means that the descriptor is drained, unless something follows that raises no
    /// further edge: the end of the stream, an error, or data behind an urgent mark. Each of these
    /// has raised an event of its own. If a poll has taken that event, `ending` is set. If not, a
    /// later poll will report it as an edge.
    #[inline]
    pub(crate) fn set_short(&self) {
        self.with(|entry| entry.readable &= entry.ending || !backend::TELLS_ENDING);
    }

    /// Registers `waiter` for the next edge of `fd`, the registered descriptor. An operation on it
    /// has just failed with `WouldBlock`.
    #[inline]
    pub(crate) fn subscribe(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        waiter: Waiter,
    ) -> io::Result<()> {
        self.list(fd, |entry| {
            entry.clear(interest);
            entry.waiters(interest).push(waiter);
        })
    }

    /// [`subscribe`](Self::subscribe) for a waiter that has tried no operation.
    pub(crate) fn subscribe_idle(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        waiter: Waiter,
    ) -> io::Result<()> {
        self.list(fd, |entry| entry.waiters(interest).push(waiter))
    }

    /// [`subscribe`](Self::subscribe) for a future, which may be listed already.
    pub(crate) fn subscribe_future(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        future: &FutureWaiter,
    ) -> io::Result<()> {
        self.list(fd, |entry| entry.waiters(interest).push_future(future))
    }

    #[inline]
    fn list(&self, fd: BorrowedFd<'_>, add: impl FnOnce(&mut Entry)) -> io::Result<()> {
        let waits = self.with(|entry| {
            add(entry);
            let any_writer = entry.writers.as_ref().is_some_and(|writers| !writers.is_empty());
            (!entry.readers.is_empty() || !entry.readable, any_writer || !entry.writable)
        });
        let Some((readers, writers)) = waits else {
            return Err(io::Error::other("waited for a descriptor that is not registered"));
        };
        self.reactor.port.rearm(fd, self.token.0, readers, writers)
    }

    /// Undoes a [`subscribe`](Self::subscribe) whose edge has not come.
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
    /// The number of the port's reactor.
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

/// Linux: epoll.
#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
mod epoll {
    use super::{AsFd, BorrowedFd, Duration, EVENTS, Event, io};
    use rustix::buffer::spare_capacity;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::event::{EventfdFlags, Timespec, eventfd};
    use rustix::fd::OwnedFd;

    pub(super) const TELLS_ENDING: bool = true;
    /// A descriptor need not be forgotten before it is closed, if no other one shares its file.
    pub(crate) const CLOSING_FORGETS: bool = true;

    /// The key of the eventfd. No entry has it, because a slab never holds 2^32 - 1 descriptors.
    const WAKER: u64 = u64::MAX;

    /// The part of a reactor that other threads may use.
    #[derive(Debug)]
    pub(crate) struct Port {
        pub(super) number: u64,
        epoll: OwnedFd,
        // Written to, it ends a wait.
        eventfd: OwnedFd,
    }

    impl Port {
        pub(super) fn new(number: u64) -> io::Result<Self> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Edge-triggered: each write is an edge, so it need not be read.
            let (waker, edges) = (EventData::new_u64(WAKER), EventFlags::IN | EventFlags::ET);
            epoll::add(&epoll, &eventfd, waker, edges)?;
            Ok(Self { number, epoll, eventfd })
        }

        pub(super) fn fd(&self) -> BorrowedFd<'_> {
            self.epoll.as_fd()
        }

        const EVENTS: EventFlags = EventFlags::IN
            .union(EventFlags::OUT)
            .union(EventFlags::PRI)
            .union(EventFlags::RDHUP)
            .union(EventFlags::ET);

        pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
            let token = EventData::new_u64(token);
            match epoll::add(&self.epoll, fd, token, Self::EVENTS) {
                // A socket of this number was closed while a duplicate kept its file open, and now
                // another duplicate has the number. The closed socket may still have an entry, if
                // another thread has closed it.
                Err(rustix::io::Errno::EXIST) => {
                    Ok(epoll::modify(&self.epoll, fd, token, Self::EVENTS)?)
                }
                result => Ok(result?),
            }
        }

        /// Edge-triggered registrations stay armed.
        #[expect(clippy::unused_self, clippy::unnecessary_wraps)]
        pub(super) fn rearm(&self, _: BorrowedFd<'_>, _: u64, _: bool, _: bool) -> io::Result<()> {
            Ok(())
        }

        /// Stops watching a descriptor, from any thread.
        pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
            // Fails only if the descriptor is not registered any more.
            let _ = epoll::delete(&self.epoll, fd);
        }

        /// Ends a wait of the reactor's thread.
        pub(super) fn notify(&self) {
            // Fails only if the count is already 2^64 - 1, and then the wait has ended.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }

        pub(super) fn wait(
            &self,
            into: &mut Buffer,
            timeout: Option<Duration>,
        ) -> io::Result<usize> {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            into.0.clear();
            match epoll::wait(self.epoll.as_fd(), spare_capacity(&mut into.0), timeout.as_ref()) {
                // For example, the process was stopped and continued. Events may have come
                // meanwhile, so this reports as many as fit.
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

/// All other systems that `polling` supports.
#[cfg(not(all(target_os = "linux", not(plainsong_portable_reactor))))]
mod portable {
    use super::{AsFd, BorrowedFd, Duration, Event, io};
    use polling::{Event as Ready, Events, PollMode, Poller};
    use std::os::fd::AsRawFd;

    pub(super) const TELLS_ENDING: bool = false;
    pub(crate) const CLOSING_FORGETS: bool = false;

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
            // SAFETY: the owner of the descriptor calls `forget` before it closes it.
            unsafe { self.poller.add_with_mode(fd.as_raw_fd(), interest, self.mode()) }
        }

        fn mode(&self) -> PollMode {
            if self.poller.supports_edge() { PollMode::Edge } else { PollMode::Oneshot }
        }

        /// Arms the registration again, on systems that report a descriptor only once. It asks only
        /// for the directions that have waiters or are not ready: another direction may be ready,
        /// and its report would use up the registration.
        pub(super) fn rearm(
            &self,
            fd: BorrowedFd<'_>,
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
            // A one-shot report disarms both directions, so it must wake the waiters of both.
            into.both = !self.poller.supports_edge();
            let mut timeout = timeout;
            loop {
                match self.poller.wait(&mut into.events, timeout) {
                    // The backend for `poll` has seen a `notify` whose byte is not in its pipe yet.
                    // So the wait is over. Until one succeeds, further `notify` have no effect.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        timeout = Some(Duration::ZERO);
                    }
                    result => return result,
                }
            }
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
                token: event.key as u64,
                readable: event.readable || self.both,
                writable: event.writable || self.both,
                ending: false,
            })
        }
    }
}

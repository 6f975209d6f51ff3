//! The only file that names polling: which descriptors are ready.
//!
//! A descriptor is registered once, for both directions, edge-triggered. That it is readable is kept
//! as a flag until a read finds the descriptor drained, so that the read after that parks without asking
//! the kernel again.
//!
//! On Linux, `polling` makes the epoll instance, and this file adds to it and waits on
//! it through rustix: `Poller::wait` would make five system calls where one does, and its
//! events do not tell a peer's half-close (`EPOLLRDHUP`). Elsewhere, or with
//! `--cfg plainsong_portable_reactor`, `polling` does it all.
//!
//! The reactor runs no coroutine: it says whom to wake.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::remote::{Waiter, Waiters};

#[cfg(all(target_os = "linux", not(plainsong_portable_reactor)))]
use self::epoll as backend;
#[cfg(not(all(target_os = "linux", not(plainsong_portable_reactor))))]
use self::portable as backend;
pub(crate) use backend::Port;

/// Events taken from the kernel at once. What is touched when their coroutines are woken should be in the
/// processor's second cache still when these have their turns. No fewer than the turns after which a loop with a
/// full ready queue looks up, or descriptors would have less than their share of these.
pub(super) const EVENTS: usize = 128;

/// What `epoll_wait` can wait in milliseconds is a little more than 24 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A direction of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// Names a registration; never that of another descriptor, before or after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SourceKey(u64);

impl SourceKey {
    fn new(index: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | index as u64)
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

/// What the kernel said of one descriptor.
#[derive(Clone, Copy)]
struct Event {
    key: u64,
    readable: bool,
    writable: bool,
    /// The peer has ended its side or sent urgent data, or the descriptor failed: from now on
    /// a short read does not mean that the descriptor is drained.
    ending: bool,
}

/// All in one cache line: with many descriptors, what is known of the next is cold.
#[derive(Debug)]
#[repr(align(64))]
struct Source {
    key: SourceKey,
    readable: bool,
    ending: bool,
    /// How often anything has been reported.
    edges: u32,
    readers: Waiters,
    /// Seldom is there any.
    writers: Option<Box<Waiters>>,
}

const _: () = assert!(size_of::<Source>() == 64);

/// The descriptors that one thread's coroutines wait for.
pub(crate) struct Reactor {
    port: Arc<Port>,
    buffer: RefCell<backend::Buffer>,
    sources: RefCell<Slab<Source>>,
    generation: Cell<u32>,
}

impl Reactor {
    /// # Errors
    ///
    /// When the kernel refuses, mostly for lack of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let port = Port::new().map_err(|error| {
            let advice = "each worker takes up to four descriptors; allow more (ulimit -n)";
            io::Error::new(error.kind(), format!("cannot make a reactor: {error}; {advice}"))
        })?;
        Ok(Self {
            port: Arc::new(port),
            buffer: RefCell::new(backend::Buffer::new(EVENTS)),
            sources: RefCell::default(),
            generation: Cell::new(0),
        })
    }

    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// How often to poll until each descriptor that is ready now has been told.
    pub(crate) fn batches(&self) -> usize {
        self.sources.borrow().len() / EVENTS + 1
    }

    /// Whether no descriptor is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.borrow().is_empty()
    }

    /// Starts to watch a descriptor, which must be given to [`Port::forget`] before it is
    /// closed, and its key to [`deregister`](Self::deregister).
    pub(crate) fn register(&self, fd: BorrowedFd<'_>) -> io::Result<SourceKey> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut sources = self.sources.borrow_mut();
        let vacant = sources.vacant_entry();
        let key = SourceKey::new(vacant.key(), generation);
        self.port.watch(fd, key.0)?;
        vacant.insert(Source {
            key,
            // Not known yet: the kernel reports what is ready now as the first edge.
            readable: true,
            ending: false,
            edges: 0,
            readers: Waiters::default(),
            writers: None,
        });
        Ok(key)
    }

    /// Forgets a registration; late events for it find nothing. Returns who still waited.
    pub(crate) fn deregister(&self, key: SourceKey) -> impl Iterator<Item = Waiter> + use<> {
        let mut sources = self.sources.borrow_mut();
        let source = sources.get(key.index()).is_some_and(|source| source.key == key);
        let source = source.then(|| sources.remove(key.index()));
        source.into_iter().flat_map(|mut source| {
            let writers = source.writers.into_iter().flat_map(|mut writers| writers.take());
            source.readers.take().chain(writers)
        })
    }

    #[inline]
    fn with<R>(&self, key: SourceKey, f: impl FnOnce(&mut Source) -> R) -> Option<R> {
        let mut sources = self.sources.borrow_mut();
        sources.get_mut(key.index()).filter(|source| source.key == key).map(f)
    }

    /// Whether a read would only be told to wait, as far as the last poll knows.
    #[inline]
    pub(crate) fn is_drained(&self, key: SourceKey) -> bool {
        self.with(key, |source| !source.readable).unwrap_or(false)
    }

    /// A number that changes with each report on a descriptor.
    pub(crate) fn edges(&self, key: SourceKey) -> Option<u32> {
        self.with(key, |source| source.edges)
    }

    /// Notes that a read of a TCP stream got less than it asked for.
    ///
    /// That means drained unless something that comes without a further edge is behind it: the end
    /// of the stream, an error, or data past an urgent mark. Each of these raised an event of its
    /// own, either before this read (then `ending` is set) or after the last poll (then a later
    /// one reports it).
    #[inline]
    pub(crate) fn set_short(&self, key: SourceKey) {
        self.with(key, |source| source.readable &= source.ending || !backend::TELLS_ENDING);
    }

    /// Lets `waiter` know at the next edge of `fd`, the descriptor of `key`, of which an operation was
    /// told to wait.
    #[inline]
    pub(crate) fn subscribe(
        &self,
        key: SourceKey,
        fd: &impl AsFd,
        interest: Interest,
        waiter: Waiter,
    ) -> io::Result<()> {
        let waits = self.with(key, |source| {
            match interest {
                Interest::Read => {
                    source.readable = false;
                    source.readers.push(waiter);
                }
                Interest::Write => source.writers.get_or_insert_default().push(waiter),
            }
            (
                !source.readers.is_empty(),
                source.writers.as_ref().is_some_and(|writers| !writers.is_empty()),
            )
        });
        let Some((readers, writers)) = waits else {
            return Err(io::Error::other("waited for a descriptor that is not registered"));
        };
        let armed = self.port.rearm(fd, key.0, readers, writers);
        armed.inspect_err(|_| self.unsubscribe(key, interest, waiter))
    }

    /// Takes back a [`subscribe`](Self::subscribe) that has not been answered.
    pub(crate) fn unsubscribe(&self, key: SourceKey, interest: Interest, waiter: Waiter) {
        self.with(key, |source| match interest {
            Interest::Read => source.readers.remove(waiter),
            Interest::Write => {
                source.writers.iter_mut().for_each(|writers| writers.remove(waiter));
            }
        });
    }

    /// Waits for events, for `timeout` at most (for ever without one), and appends whom they
    /// wake. Returns whether there may be more of them.
    pub(crate) fn poll(
        &self,
        timeout: Option<Duration>,
        woken: &mut Vec<Waiter>,
    ) -> io::Result<bool> {
        // Longer ones need a newer system call than some systems have; waking early does no harm.
        let timeout = timeout.map(|timeout| timeout.min(TIMEOUT_MAX));
        let mut buffer = self.buffer.borrow_mut();
        let events = self.port.wait(&mut buffer, timeout)?;
        let mut sources = self.sources.borrow_mut();
        for event in buffer.drain() {
            let key = SourceKey(event.key);
            let Some(source) = sources.get_mut(key.index()).filter(|source| source.key == key)
            else {
                continue;
            };
            source.ending |= event.ending;
            source.edges = source.edges.wrapping_add(1);
            if event.readable {
                source.readable = true;
                source.readers.append_to(woken);
            }
            if event.writable
                && let Some(writers) = &mut source.writers
            {
                writers.append_to(woken);
            }
        }
        // One of them may have been the bell, which is not counted everywhere.
        Ok(events + 1 >= EVENTS)
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

    /// The key of the bell: no source has it, as a slab never holds 2^32 - 1 descriptors.
    const BELL: u64 = u64::MAX;

    /// The part of a reactor that other threads may use.
    #[derive(Debug)]
    pub(crate) struct Port {
        poller: Poller,
        // `Poller::notify` is re-armed only by `Poller::wait`, which is never called here.
        bell: OwnedFd,
    }

    impl Port {
        pub(super) fn new() -> io::Result<Self> {
            let poller = Poller::new()?;
            let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Edge-triggered, so that nobody has to read it: each ring is an edge.
            epoll::add(&poller, &bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
            Ok(Self { poller, bell })
        }

        pub(super) fn watch(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN
                | EventFlags::OUT
                | EventFlags::PRI
                | EventFlags::RDHUP
                | EventFlags::ET;
            Ok(epoll::add(&self.poller, fd, EventData::new_u64(key), flags)?)
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

        /// Ends the owner's sleep.
        pub(crate) fn ring(&self) {
            // Fails only when 2^64 - 1 rings are unread, and then it is ringing.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }

        pub(super) fn wait(
            &self,
            into: &mut Buffer,
            timeout: Option<Duration>,
        ) -> io::Result<usize> {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            into.0.clear();
            match epoll::wait(self.poller.as_fd(), spare_capacity(&mut into.0), timeout.as_ref()) {
                // A process that was stopped and goes on, say: nothing is known of what has come meanwhile.
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
            self.0.iter().filter(|event| event.data.u64() != BELL).map(|event| {
                let flags = event.flags;
                Event {
                    key: event.data.u64(),
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
        poller: Poller,
    }

    impl Port {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self { poller: Poller::new()? })
        }

        #[allow(unsafe_code)]
        pub(super) fn watch(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let interest = Ready::all(key as usize);
            // SAFETY: the descriptor's owner calls `forget` before it closes it.
            unsafe { self.poller.add_with_mode(fd.as_raw_fd(), interest, self.mode()) }
        }

        fn mode(&self) -> PollMode {
            if self.poller.supports_edge() { PollMode::Edge } else { PollMode::Oneshot }
        }

        /// Asks again where the system reports a descriptor only once: for what is waited for, as the other
        /// direction would be reported at once, and instead.
        pub(super) fn rearm(
            &self,
            fd: &impl AsFd,
            key: u64,
            readable: bool,
            writable: bool,
        ) -> io::Result<()> {
            if self.poller.supports_edge() {
                return Ok(());
            }
            let interest = Ready::new(key as usize, readable, writable);
            self.poller.modify_with_mode(fd, interest, self.mode())
        }

        /// Stops watching a descriptor, from any thread.
        pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
            let _ = self.poller.delete(fd);
        }

        /// Ends the owner's sleep.
        pub(crate) fn ring(&self) {
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
                key: event.key as u64,
                readable: event.readable || self.both,
                writable: event.writable || self.both,
                ending: false,
            })
        }
    }
}

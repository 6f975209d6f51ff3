//! A scheduler's time: nanoseconds since its first run began.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

/// The clock of one scheduler. Its source is a function pointer, so that a test may use another.
#[derive(Debug)]
pub(super) struct Clock {
    read: Cell<fn() -> Instant>,
    origin: OnceCell<Instant>,
    // As of the last `update`.
    nanos: Cell<u64>,
    // The same in milliseconds: each wait notes when it began.
    millis: Cell<u32>,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            read: Cell::new(Instant::now),
            origin: OnceCell::new(),
            nanos: Cell::new(0),
            millis: Cell::new(0),
        }
    }

    /// Starts the clock, unless it has started. Earlier deadlines count as passed.
    pub(super) fn start(&self) {
        self.origin();
    }

    fn origin(&self) -> Instant {
        *self.origin.get_or_init(|| self.now())
    }

    /// The time.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        (self.read.get())()
    }

    /// Has the clock take the time from `read`.
    pub(super) fn set_source(&self, read: fn() -> Instant) {
        self.read.set(read);
    }

    /// The time at so many nanoseconds of this clock.
    pub(super) fn instant_at(&self, nanos: u64) -> Instant {
        let origin = self.origin();
        origin.checked_add(Duration::from_nanos(nanos)).unwrap_or(origin)
    }

    /// Reads the time, in nanoseconds of this clock.
    pub(super) fn update(&self) -> u64 {
        let nanos = self.nanos_at(self.now());
        self.nanos.set(nanos);
        self.millis.set((nanos / 1_000_000) as u32);
        nanos
    }

    /// The nanoseconds of this clock at `time`.
    pub(super) fn nanos_at(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.origin());
        since.as_nanos().try_into().unwrap_or(u64::MAX)
    }

    /// Nanoseconds as of the last [`update`](Self::update).
    pub(super) fn last_nanos(&self) -> u64 {
        self.nanos.get()
    }

    /// Milliseconds as of the last [`update`](Self::update).
    #[inline]
    pub(super) fn last_millis(&self) -> u32 {
        self.millis.get()
    }
}

//! A scheduler's time: nanoseconds since [`LAG`] before its first run began.

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

use super::super::cancel;
use super::super::current;

/// 292 years: the last time that is told from later ones. To any time, the loop can add a pause.
const FAR: u64 = u64::MAX / 2;
/// 100 years: how far the clock of a host may be behind the start.
const LAG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads the clock of a host, which is user code. Frames of the library that use the running
/// coroutine call this, so a clock may do no more than a hook. `None` if it panics.
#[cold]
fn read(source: fn() -> Instant) -> Option<Instant> {
    let mut time = None;
    current::while_hooked(|| cancel::catch_and_forget(|| time = Some(source())));
    time
}

/// The clock of one scheduler.
#[derive(Debug)]
pub(super) struct Clock {
    // The clock of the host, if the loop is a guest: user code.
    source: Cell<Option<fn() -> Instant>>,
    origin: OnceCell<Instant>,
    // As of the last `update`.
    nanos: Cell<u64>,
    // The same in milliseconds: each wait notes when it began.
    millis: Cell<u64>,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Self {
            source: Cell::new(None),
            origin: OnceCell::new(),
            nanos: Cell::new(0),
            millis: Cell::new(0),
        }
    }

    /// A run begins.
    pub(super) fn start(&self) {
        self.update();
    }

    fn origin(&self) -> Instant {
        *self.origin.get_or_init(|| {
            let now = self.now();
            now.checked_sub(LAG).unwrap_or(now)
        })
    }

    /// The time.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.source.get().and_then(read).unwrap_or_else(Instant::now)
    }

    /// Has the clock take the time from `source`, or else from the system.
    pub(super) fn set_source(&self, source: Option<fn() -> Instant>) {
        self.source.set(source);
    }

    /// The time for a report, in nanoseconds of this clock: with a source, as of the last
    /// [`update`](Self::update). Async-signal-safe.
    pub(super) fn nanos_for_report(&self) -> u64 {
        match self.source.get() {
            None => self.nanos_at(Instant::now()),
            Some(_) => self.last_nanos(),
        }
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
        self.millis.set(nanos / 1_000_000);
        nanos
    }

    /// The nanoseconds of this clock at `time`: [`FAR`] at most, and 0 before its origin.
    pub(super) fn nanos_at(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.origin());
        since.as_nanos().try_into().map_or(FAR, |nanos: u64| nanos.min(FAR))
    }

    /// Nanoseconds as of the last [`update`](Self::update).
    pub(super) fn last_nanos(&self) -> u64 {
        self.nanos.get()
    }

    /// Milliseconds as of the last [`update`](Self::update).
    #[inline]
    pub(super) fn last_millis(&self) -> u64 {
        self.millis.get()
    }
}

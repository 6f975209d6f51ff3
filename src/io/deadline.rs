//! A point in time that threads share: when the operations of a socket begin to fail.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::park;

/// A deadline, or none: nanoseconds from [`origin`], or [`NEVER`].
#[derive(Debug)]
pub(super) struct Deadline(AtomicI64);

/// The number that stands for no deadline, and for those that are too far away to be told from it.
const NEVER: i64 = i64::MAX;

impl Deadline {
    pub(super) const fn new() -> Self {
        Self(AtomicI64::new(NEVER))
    }

    pub(super) fn set(&self, deadline: Option<Instant>) {
        self.0.store(deadline.map_or(NEVER, nanos_of), Ordering::Relaxed);
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != NEVER
    }

    #[inline]
    pub(super) fn get(&self) -> Option<Instant> {
        let nanos = self.0.load(Ordering::Relaxed);
        if nanos == NEVER { None } else { Some(instant_of(nanos)) }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn has_passed(&self) -> bool {
        self.is_set() && self.is_before_now()
    }

    #[cold]
    fn is_before_now(&self) -> bool {
        self.get().is_some_and(|deadline| deadline <= park::now())
    }
}

/// Where the numbers count from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(park::now)
}

fn nanos_of(deadline: Instant) -> i64 {
    let origin = origin();
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(NEVER);
    match deadline.checked_duration_since(origin) {
        Some(after) => nanos(after),
        None => -nanos(origin.saturating_duration_since(deadline)),
    }
}

#[cold]
fn instant_of(nanos: i64) -> Instant {
    let (origin, span) = (origin(), Duration::from_nanos(nanos.unsigned_abs()));
    let deadline = if nanos < 0 { origin.checked_sub(span) } else { origin.checked_add(span) };
    deadline.unwrap_or(origin)
}

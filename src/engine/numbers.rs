//! Numbers about one worker, as plain data.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::task::Wait;

/// The numbers of one thread's scheduler.
#[derive(Default)]
pub(crate) struct Numbers {
    pub(crate) counts: Counts,
    /// How many coroutines are parked for each reason.
    pub(crate) parked: Vec<(Wait, u64)>,
    /// The memory that is reserved for stacks, as far as it is used.
    pub(crate) stacks: Vec<Range<usize>>,
}

impl Numbers {
    /// With room for what is added without allocating.
    pub(crate) fn with_room() -> Self {
        // More than there are reasons in the library. Reservations double in size.
        Self { parked: Vec::with_capacity(128), stacks: Vec::with_capacity(128), ..Self::default() }
    }

    /// Counts a parked coroutine, if there is room.
    pub(crate) fn add_parked(&mut self, wait: Wait) {
        if let Some((_, count)) = self.parked.iter_mut().find(|(other, _)| other.is_as(wait)) {
            *count += 1;
        } else if self.parked.len() < self.parked.capacity() {
            self.parked.push((wait, 1));
        }
    }

    /// Adds the memory of stacks, if there is room.
    pub(crate) fn add_stacks(&mut self, range: Range<usize>) {
        if self.stacks.len() < self.stacks.capacity() {
            self.stacks.push(range);
        }
    }
}

/// Numbers about a worker, or about several workers together.
///
/// The counts begin with the run.
#[derive(Clone, Default, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Counts {
    /// How many coroutines have been spawned, or have been started here, if they were spawned
    /// anywhere.
    pub spawned: u64,
    /// How many coroutines there are.
    pub live: u64,
    /// How many of them wait for their turn.
    pub ready: u64,
    /// How many of them are parked, by what they wait for: `recv channel`, `lock Mutex`, `sleep`.
    pub parked: BTreeMap<String, u64>,
    /// How many coroutines have been spawned anywhere, and have not started.
    pub pending: u64,
    /// How many turns there were: each is a switch to a coroutine, and one back.
    pub turns: u64,
    /// How many of them ended because their budget was spent.
    pub budget_yields: u64,
    /// How often the worker has taken coroutines that had not started from another worker.
    pub steals: u64,
    /// How many wakes and unparks have come from other threads.
    pub remote_wakes: u64,
    /// How often the kernel was asked for events.
    pub polls: u64,
    /// How many events it has returned.
    pub events: u64,
    /// How many timers are armed.
    pub timers: u64,
    /// How many stacks there are, those in use and those kept for the next coroutines.
    pub stacks: u64,
    /// How many of them are not in use.
    pub free_stacks: u64,
    /// Bytes of address space that are reserved for stacks.
    pub stack_bytes_reserved: u64,
    /// Bytes of stacks that are in memory.
    pub stack_bytes_resident: u64,
    /// How often the memory of a stack that is not in use was given back to the system.
    pub stacks_trimmed: u64,
    /// How long coroutines have waited for their turn, after they were woken or spawned. Measured
    /// [on request](crate::inspect::measure_times).
    pub delays: Histogram,
    /// How long turns have taken. Measured [on request](crate::inspect::measure_times).
    pub turn_times: Histogram,
    /// How long the worker has waited for events in the kernel: its sleep. Measured
    /// [on request](crate::inspect::measure_times).
    pub poll_times: Histogram,
}

impl Counts {
    /// Adds the numbers of another worker.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { parked, delays, turn_times, poll_times, .. } = self;
        for (wait, count) in &other.parked {
            *parked.entry(wait.clone()).or_default() += count;
        }
        delays.add(&other.delays);
        turn_times.add(&other.turn_times);
        poll_times.add(&other.poll_times);
        self.spawned += other.spawned;
        self.live += other.live;
        self.ready += other.ready;
        self.pending += other.pending;
        self.turns += other.turns;
        self.budget_yields += other.budget_yields;
        self.steals += other.steals;
        self.remote_wakes += other.remote_wakes;
        self.polls += other.polls;
        self.events += other.events;
        self.timers += other.timers;
        self.stacks += other.stacks;
        self.free_stacks += other.free_stacks;
        self.stack_bytes_reserved += other.stack_bytes_reserved;
        self.stack_bytes_resident += other.stack_bytes_resident;
        self.stacks_trimmed += other.stacks_trimmed;
    }
}

/// How many buckets a histogram has.
const BUCKETS: usize = 28;
/// The upper bound of the first bucket is this power of two, in nanoseconds.
const FIRST: u32 = 7;

/// How often durations of each size were measured.
///
/// The bounds of its buckets are powers of two, from 128 ns to 8.6 s.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    #[cfg_attr(feature = "serde", serde(rename = "sum_ns"))]
    sum: u64,
}

/// A histogram that one thread fills.
pub(crate) struct Measured {
    buckets: [Cell<u64>; BUCKETS],
    sum: Cell<u64>,
}

impl Measured {
    pub(crate) const fn new() -> Self {
        Self { buckets: [const { Cell::new(0) }; BUCKETS], sum: Cell::new(0) }
    }

    pub(crate) fn clear(&self) {
        self.buckets.iter().for_each(|count| count.set(0));
        self.sum.set(0);
    }

    /// Adds a duration in nanoseconds.
    #[inline]
    pub(crate) fn add(&self, nanos: u64) {
        let bits = (nanos >> FIRST).checked_ilog2().map_or(0, |log| log as usize + 1);
        let count = &self.buckets[bits.min(BUCKETS - 1)];
        count.set(count.get() + 1);
        self.sum.set(self.sum.get() + nanos);
    }

    /// The durations that were measured until now. Async-signal-safe.
    pub(crate) fn get(&self) -> Histogram {
        Histogram { buckets: self.buckets.each_ref().map(Cell::get), sum: self.sum.get() }
    }
}

impl Histogram {
    fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(ours, theirs)| *ours += theirs);
        self.sum += other.sum;
    }

    /// The counts of the buckets, each with its upper bound, which it does not include. The last
    /// one has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.buckets.iter().enumerate().map(|(at, count)| {
            let bound = Duration::from_nanos(1 << (FIRST + at as u32));
            ((at + 1 < BUCKETS).then_some(bound), *count)
        })
    }

    /// How many durations were measured.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// A duration that no more than this part of the measured ones exceed: the upper bound of a
    /// bucket. `quantile(0.99)` is exceeded by one in a hundred at most. `None` if none was
    /// measured, or if that bucket has no bound.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * part).ceil();
        let mut seen = 0;
        let bucket = self.buckets().find(|(_, count)| {
            seen += count;
            seen > 0 && seen as f64 >= wanted
        });
        bucket.and_then(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_is_just_above_it() {
        for nanos in [0, 1, 127, 128, 129, 255, 256, 1 << 20, (1 << 33) - 1, 1 << 33, 1 << 60] {
            let measured = Measured::new();
            measured.add(nanos);
            let histogram = measured.get();
            let (mut below, mut found) = (0, Vec::new());
            for (bound, count) in histogram.buckets() {
                let bound = bound.map_or(u64::MAX, |bound| bound.as_nanos() as u64);
                if count == 1 {
                    found.push(below..bound);
                }
                below = bound;
            }
            assert!(found.len() == 1 && found[0].contains(&nanos), "{nanos}: {found:?}");
            assert_eq!(histogram.sum(), Duration::from_nanos(nanos));
        }
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let measured = Measured::new();
        assert_eq!(measured.get().quantile(0.5), None);
        (0..99).for_each(|_| measured.add(1000));
        measured.add(1_000_000);
        let histogram = measured.get();
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_nanos(1024)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_nanos(1024)));
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_nanos(1 << 20)));
    }
}

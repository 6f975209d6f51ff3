//! The flight recorder: the last events of each worker, in a ring that any thread may read.
//!
//! A ring has one writer, its worker, which never waits. A reader copies the ring without asking
//! the worker, so it learns what a worker that is stuck has done. The order of the accesses:
//!
//! 1. The writer announces event `n` by `written = n`, with a release fence behind it. Then it
//!    writes the words of the event over those of event `n - capacity`, and sets `written = n + 1`.
//! 2. The reader reads `written`, copies, and reads `written` again, behind an acquire fence.
//!
//! If the reader has seen any word of event `n`, its second read returns `n` at least. So all
//! events up to `n - capacity` may be damaged, and it drops them.
//!
//! Rings are never freed, because a worker may write to its ring at any time. A worker that ends
//! leaves its ring to the next one that asks for that size.

#![allow(unsafe_code)]

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use super::id::Id;
use super::mutex::Mutex;
use super::task::{Reason, Wait};
use super::ticks;

/// How many events the ring of each worker keeps. Zero while nothing is recorded.
static CAPACITY: AtomicUsize = AtomicUsize::new(0);

/// The largest ring, of 512 MiB. A worker has no caller that could be told of a lack of memory.
const MAX: usize = 1 << 24;

static RINGS: Mutex<Rings> = Mutex::new(Rings { all: Vec::new(), free: Vec::new() });

struct Rings {
    all: Vec<&'static Ring>,
    free: Vec<&'static Ring>,
}

/// Begins to record, with room for at least this many events of each worker. With zero, it ends.
pub(crate) fn set_capacity(events: usize) {
    ticks::Scale::get();
    let events = if events == 0 { 0 } else { events.min(MAX).next_power_of_two().max(16) };
    CAPACITY.store(events, Ordering::Relaxed);
}

/// How many events the ring of each worker keeps.
#[inline]
pub(crate) fn capacity() -> usize {
    CAPACITY.load(Ordering::Relaxed)
}

/// The worker that writes to a ring: its run, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) run: u64,
    pub(crate) worker: usize,
}

/// The last events of one worker.
pub(crate) struct Ring {
    slots: Box<[Slot]>,
    written: AtomicU64,
    // The first event of the worker that has the ring now, or had it last.
    first: AtomicU64,
    run: AtomicU64,
    worker: AtomicUsize,
    // The last turn that has begun: the coroutine, and when.
    turn: [AtomicU64; 2],
}

/// An event: the time in ticks, the kind with the coroutine's id, and two words that depend on the
/// kind.
#[derive(Default)]
#[repr(align(32))]
struct Slot([AtomicU64; 4]);

/// The bits of an id in the word that it shares with the kind.
const ID: u64 = (1 << 56) - 1;

const YIELDED: u64 = 1;
const PARKED: u64 = 2;
const ENDED: u64 = 3;
const SPAWNED: u64 = 4;
const WOKEN: u64 = 5;
const CANCELLED: u64 = 6;
const POLLED: u64 = 7;
const STOLEN: u64 = 8;

/// The origin of a wake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// Another coroutine of the worker.
    Coroutine(Id),
    /// An event of the kernel, or a waker.
    Loop,
    /// Another thread.
    Thread,
    Timer,
    Cancellation,
}

/// How a turn has ended.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// The turn goes on.
    Runs,
    Yielded,
    Parked(Wait),
    /// The coroutine has ended, which was spawned there.
    Ended(&'static Location<'static>),
}

/// Something that has happened on a worker.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    /// When, or when it began, in ticks.
    pub(crate) at: u64,
    pub(crate) what: What,
}

/// The kind of an event. Durations are in ticks.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Turn { id: Id, took: u64, then: Then },
    Spawned { id: Id, spawned: &'static Location<'static>, parent: Option<Id> },
    Woken { id: Id, by: By },
    Cancelled { id: Id, by: Option<Id> },
    Polled { events: u64, took: u64 },
    Stolen,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity).map(|_| Slot::default()).collect(),
            written: AtomicU64::new(0),
            first: AtomicU64::new(0),
            run: AtomicU64::new(0),
            worker: AtomicUsize::new(0),
            turn: Default::default(),
        }
    }

    /// A ring for the worker that calls this, which must be its only writer until it calls
    /// [`release`](Self::release).
    pub(crate) fn acquire(place: Place) -> &'static Self {
        let capacity = capacity().max(1);
        let mut rings = RINGS.lock();
        let free = rings.free.iter().position(|ring| ring.slots.len() == capacity);
        let ring = match free {
            Some(at) => rings.free.swap_remove(at),
            None => {
                let ring: &Self = Box::leak(Box::new(Self::new(capacity)));
                rings.all.push(ring);
                ring
            }
        };
        ring.first.store(ring.written.load(Ordering::Relaxed), Ordering::Relaxed);
        ring.run.store(place.run, Ordering::Relaxed);
        ring.worker.store(place.worker, Ordering::Relaxed);
        ring.turn.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        ring
    }

    /// The worker writes no more.
    pub(crate) fn release(&'static self) {
        self.turn.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        RINGS.lock().free.push(self);
    }

    /// Whether the ring is as large as it should be.
    pub(crate) fn fits(&self) -> bool {
        self.slots.len() == capacity()
    }

    #[inline]
    fn write(&self, words: [u64; 4]) {
        let number = self.written.load(Ordering::Relaxed);
        fence(Ordering::Release);
        if let Some(slot) = self.slots.get(number as usize & (self.slots.len() - 1)) {
            slot.0.iter().zip(words).for_each(|(at, word)| at.store(word, Ordering::Relaxed));
        }
        self.written.store(number + 1, Ordering::Release);
    }

    /// The turn of a coroutine begins.
    #[inline]
    pub(crate) fn turn_begins(&self, at: u64, id: Id) {
        self.turn[0].store(id.get(), Ordering::Relaxed);
        self.turn[1].store(at, Ordering::Release);
    }

    #[inline]
    pub(crate) fn turn_ends(&self, at: u64, took: u64, id: Id, then: Then) {
        let (kind, word, detail) = match then {
            Then::Runs => return,
            Then::Yielded => (YIELDED, 0, 0),
            Then::Parked(wait) => (PARKED, address(wait.reason()), wait.detail()),
            Then::Ended(spawned) => (ENDED, address(spawned), 0),
        };
        let took = u64::from(u32::try_from(took >> ticks::SHORT).unwrap_or(u32::MAX));
        self.write([at, kind << 56 | id.get() & ID, word, u64::from(detail) << 32 | took]);
    }

    #[inline]
    pub(crate) fn spawned(
        &self,
        at: u64,
        id: Id,
        spawned: &'static Location<'static>,
        parent: Option<Id>,
    ) {
        let parent = parent.map_or(0, Id::get);
        self.write([at, SPAWNED << 56 | id.get() & ID, address(spawned), parent]);
    }

    #[inline]
    pub(crate) fn woken(&self, at: u64, id: Id, by: By) {
        let (who, how) = match by {
            By::Coroutine(id) => (id.get(), 0),
            By::Loop => (0, 1),
            By::Thread => (0, 2),
            By::Timer => (0, 3),
            By::Cancellation => (0, 4),
        };
        self.write([at, WOKEN << 56 | id.get() & ID, who, how]);
    }

    pub(crate) fn cancelled(&self, at: u64, id: Id, by: Option<Id>) {
        self.write([at, CANCELLED << 56 | id.get() & ID, by.map_or(0, Id::get), 0]);
    }

    #[inline]
    pub(crate) fn polled(&self, at: u64, took: u64, events: u64) {
        self.write([at, POLLED << 56, events, took]);
    }

    pub(crate) fn stolen(&self, at: u64) {
        self.write([at, STOLEN << 56, 0, 0]);
    }

    /// The events since a time in ticks, those of this worker.
    fn read(&self, since: u64) -> Vec<Event> {
        let end = self.written.load(Ordering::Acquire);
        let capacity = self.slots.len() as u64;
        let start = end.saturating_sub(capacity).max(self.first.load(Ordering::Relaxed));
        let copied: Vec<(u64, [u64; 4])> = (start..end)
            .map(|number| {
                let slot = &self.slots[number as usize & (self.slots.len() - 1)];
                (number, slot.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
            })
            .collect();
        let [id, began] = &self.turn;
        let (began, id) = (began.load(Ordering::Acquire), id.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let written = self.written.load(Ordering::Relaxed);
        let whole = copied.into_iter().filter(|(number, _)| number + capacity > written);
        let whole: Vec<_> = whole.map(|(_, words)| words).collect();
        // The turn that goes on has no event yet.
        let ends = [YIELDED, PARKED, ENDED];
        let last = whole.iter().rev().find(|words| ends.contains(&(words[1] >> 56)));
        let runs = last.is_none_or(|words| words[0] < began).then_some(()).and(Id::from_number(id));
        let runs = runs.map(|id| {
            let took = ticks::now().saturating_sub(began);
            Event { at: began, what: What::Turn { id, took, then: Then::Runs } }
        });
        let events = whole.into_iter().filter_map(|words| Words(words).decode()).chain(runs);
        let events = events.filter(|event| event.at + event.took() >= since);
        events.collect()
    }
}

impl Event {
    /// How long it has taken, in ticks.
    pub(crate) fn took(&self) -> u64 {
        match self.what {
            What::Turn { took, .. } | What::Polled { took, .. } => took,
            _ => 0,
        }
    }
}

fn address<T>(what: &'static T) -> u64 {
    ptr::from_ref(what).expose_provenance() as u64
}

/// The words of a whole event: `write` was called with them.
struct Words([u64; 4]);

impl Words {
    fn decode(self) -> Option<Event> {
        let Self([at, head, first, second]) = self;
        let id = Id::from_number(head & ID);
        // SAFETY: called only for an event that has the address of a static location there.
        let place =
            || unsafe { &*ptr::with_exposed_provenance::<Location<'static>>(first as usize) };
        let turn = |then| Some(What::Turn { id: id?, took: ticks::long(second as u32), then });
        let what = match head >> 56 {
            YIELDED => turn(Then::Yielded)?,
            PARKED => {
                let reason = ptr::with_exposed_provenance::<Reason>(first as usize);
                // SAFETY: an event of this kind has the address of a static reason there.
                turn(Then::Parked(Wait::new(unsafe { &*reason }).with((second >> 32) as u32)))?
            }
            ENDED => turn(Then::Ended(place()))?,
            SPAWNED => What::Spawned { id: id?, spawned: place(), parent: Id::from_number(second) },
            WOKEN => {
                let by = match (second, Id::from_number(first)) {
                    (0, Some(id)) => By::Coroutine(id),
                    (2, _) => By::Thread,
                    (3, _) => By::Timer,
                    (4, _) => By::Cancellation,
                    _ => By::Loop,
                };
                What::Woken { id: id?, by }
            }
            CANCELLED => What::Cancelled { id: id?, by: Id::from_number(first) },
            POLLED => What::Polled { events: first, took: second },
            STOLEN => What::Stolen,
            _ => return None,
        };
        Some(Event { at, what })
    }
}

/// The events of all workers since a time in ticks, also of workers that have ended, if no other
/// has their ring.
pub(crate) fn events_since(since: u64) -> Vec<(Place, Vec<Event>)> {
    // Under the lock, so that no ring gets another owner.
    let rings = RINGS.lock();
    let place = |ring: &Ring| Place {
        run: ring.run.load(Ordering::Relaxed),
        worker: ring.worker.load(Ordering::Relaxed),
    };
    rings.all.iter().map(|ring| (place(ring), ring.read(since))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    fn id(number: u64) -> Id {
        Id::from_number(number).unwrap()
    }

    #[test]
    fn a_ring_has_a_largest_size() {
        set_capacity(usize::MAX);
        let largest = capacity();
        set_capacity(0);
        assert_eq!(largest, MAX);
    }

    #[test]
    fn the_last_events_are_kept() {
        let ring = Ring::new(16);
        (1..=100).for_each(|at| ring.woken(at, id(at), By::Timer));
        let events = ring.read(0);
        // The place of the oldest is the next one to be written to.
        assert!(events.iter().map(|event| event.at).eq(86..=100));
        assert_eq!(ring.read(95).len(), 6);
    }

    #[test]
    fn a_reader_beside_a_writer_sees_whole_events_in_order() {
        let (ring, done) = (Ring::new(64), AtomicBool::new(false));
        thread::scope(|s| {
            s.spawn(|| {
                (1..=300_000).for_each(|at| ring.cancelled(at, id(at), Some(id(at))));
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let mut before = 0;
                for event in ring.read(0) {
                    let What::Cancelled { id: one, by: Some(by) } = event.what else {
                        panic!("another kind");
                    };
                    assert!(one == id(event.at) && by == one && event.at > before);
                    before = event.at;
                }
            }
        });
    }

    #[test]
    fn a_turn_that_goes_on_is_among_the_events() {
        ticks::Scale::get();
        let ring = Ring::new(16);
        ring.turn_begins(5, id(7));
        assert!(matches!(
            ring.read(0)[..],
            [Event { at: 5, what: What::Turn { then: Then::Runs, .. } }]
        ));
        ring.turn_ends(5, 10 << ticks::SHORT, id(7), Then::Yielded);
        let events = ring.read(0);
        assert!(matches!(events[..], [Event { what: What::Turn { then: Then::Yielded, .. }, .. }]));
        assert_eq!(events[0].took(), 10 << ticks::SHORT);
    }
}

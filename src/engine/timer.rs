//! Deadlines in order: a hierarchical timing wheel that is exact to the nanosecond.
//!
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (1987), with
//! one change: a wheel's slots say where a deadline *differs* from the current time, six bits
//! a level, so eleven levels hold every `u64` exactly and nothing is rounded to a tick. Adding and
//! cancelling touch one list; an entry moves down at most once a level in its life.
//!
//! The wheel owns no clock: time is handed in, as nanoseconds that never go back.

use std::num::NonZeroU32;

use slab::Slab;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// End of a list.
const NIL: u32 = u32::MAX;
/// How many entries of the next slot [`Timers::next`] looks at for the exact deadline.
const SCAN: usize = 32;

/// Names one armed timer; given back by whoever cancels it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey(NonZeroU32);

impl TimerKey {
    // A key is one more than its index, which lets an `Option` of it be as small.
    fn new(index: usize) -> Self {
        let key = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(key.expect("fewer than 2^32 timers"))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    deadline: u64,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// A set of deadlines, each with an item that comes back when it passes.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    entries: Slab<Entry<T>>,
    slots: [[List; SLOTS]; LEVELS],
    // Bit `s` of `occupied[l]`: slot `s` of level `l` has entries.
    occupied: [u64; LEVELS],
    // The time that the slots are relative to: that of the last `expire`.
    now: u64,
    // No deadline is earlier than this. It may be too early after a cancellation.
    earliest: u64,
}

impl<T: Copy> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Slab::new(),
            slots: [[List { first: NIL, last: NIL }; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            now: 0,
            earliest: u64::MAX,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a timer; a deadline that has passed expires at the next [`expire`](Self::expire).
    #[inline]
    pub(crate) fn add(&mut self, deadline: u64, item: T) -> TimerKey {
        let index = self.entries.insert(Entry { item, deadline, previous: NIL, next: NIL });
        let key = TimerKey::new(index);
        self.link(key.index(), deadline);
        self.earliest = self.earliest.min(deadline);
        key
    }

    /// Removes a timer that has not expired.
    #[inline]
    pub(crate) fn cancel(&mut self, key: TimerKey) -> T {
        let Entry { item, deadline, previous, next } = self.entries.remove(key.index() as usize);
        let (level, slot) = self.place(deadline);
        if previous == NIL {
            self.slots[level][slot].first = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NIL {
            self.slots[level][slot].last = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        if previous == NIL && next == NIL {
            self.occupied[level] &= !(1 << slot);
        }
        if self.entries.is_empty() {
            self.earliest = u64::MAX;
        }
        item
    }

    /// When to call [`expire`](Self::expire) next: never later than the earliest deadline.
    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.earliest)
    }

    /// Appends the items whose deadlines are at or before `now`, in order of deadline; equal
    /// deadlines in the order in which they were added.
    #[inline]
    pub(crate) fn expire(&mut self, now: u64, due: &mut Vec<T>) {
        if now >= self.earliest {
            self.expire_slots(now, due);
        } else if self.entries.is_empty() {
            self.now = now;
        }
    }

    fn expire_slots(&mut self, now: u64, due: &mut Vec<T>) {
        let mut passed = Vec::new();
        let mut moved = Vec::new();
        while let Some((level, slot)) = self.first_slot()
            && self.start_of(level, slot) <= now
        {
            let mut at =
                std::mem::replace(&mut self.slots[level][slot], List { first: NIL, last: NIL })
                    .first;
            self.occupied[level] &= !(1 << slot);
            while at != NIL {
                let entry = &self.entries[at as usize];
                if entry.deadline <= now { &mut passed } else { &mut moved }
                    .push((entry.deadline, at));
                at = entry.next;
            }
        }
        self.now = now;
        // At most one slot was only partly due; what is left of it is placed anew, in order.
        for &(deadline, key) in &moved {
            self.link(key, deadline);
        }
        // Slots came in order of time, entries of one slot in order of arrival.
        passed.sort_by_key(|&(deadline, _)| deadline);
        due.extend(passed.iter().map(|&(_, key)| self.entries.remove(key as usize).item));
        self.earliest = self.find_earliest();
    }

    fn find_earliest(&self) -> u64 {
        let Some((level, slot)) = self.first_slot() else { return u64::MAX };
        let mut earliest = u64::MAX;
        let mut at = self.slots[level][slot].first;
        for _ in 0..SCAN {
            if at == NIL {
                return earliest;
            }
            let entry = &self.entries[at as usize];
            earliest = earliest.min(entry.deadline);
            at = entry.next;
        }
        // A long list: waking at its slot's start spreads it over the level below.
        self.start_of(level, slot)
    }

    /// The slot with the earliest entries: lower levels agree with `now` in more bits.
    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The earliest time that belongs to a slot.
    fn start_of(&self, level: usize, slot: usize) -> u64 {
        let shift = level as u32 * BITS;
        let above = u64::MAX.checked_shl(shift + BITS).unwrap_or(0);
        (self.now & above) | ((slot as u64) << shift)
    }

    /// The level is where the deadline first differs from `now`, the slot its digit there.
    #[inline]
    fn place(&self, deadline: u64) -> (usize, usize) {
        let deadline = deadline.max(self.now);
        let different = (deadline ^ self.now) | 1;
        let level = (different.ilog2() / BITS) as usize;
        let slot = (deadline >> (level as u32 * BITS)) as usize % SLOTS;
        (level, slot)
    }

    #[inline]
    fn link(&mut self, key: u32, deadline: u64) {
        let (level, slot) = self.place(deadline);
        let list = &mut self.slots[level][slot];
        let last = std::mem::replace(&mut list.last, key);
        if last == NIL {
            list.first = key;
            self.occupied[level] |= 1 << slot;
        } else {
            self.entries[last as usize].next = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.previous = last;
        entry.next = NIL;
    }
}

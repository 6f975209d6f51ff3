//! Deadlines in order: a hierarchical timing wheel that is exact to the nanosecond.
//!
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels" (1987), with
//! one change: a wheel's slots say where a deadline *differs* from the current time, six bits
//! a level, so eleven levels hold every `u64` exactly and nothing is rounded to a tick. Adding and
//! cancelling touch one list; an entry moves down at most once a level in its life.
//!
//! The wheel owns no clock: time is handed in, in nanoseconds. It goes back only by
//! [`Timers::set_time`]: otherwise an earlier time than the last one counts as the last one.

use std::num::NonZeroU32;

use slab::Slab;

use super::order::sort_by_key;

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = u64::BITS.div_ceil(BITS) as usize;
/// End of a list.
const NIL: u32 = u32::MAX;
/// How many entries of the next slot [`Timers::next`] looks at for the exact deadline.
const SCAN: usize = 32;

/// Names one armed timer, for its cancellation.
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

    /// The deadline of a timer that has not expired.
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<u64> {
        self.entries.get(key.index() as usize).map(|entry| entry.deadline)
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

    /// Has the time be `now`, which may be earlier than the last one. Nothing expires.
    pub(crate) fn set_time(&mut self, now: u64) {
        let mut keys = Vec::with_capacity(self.entries.len());
        for list in self.slots.as_flattened_mut() {
            let mut at = std::mem::replace(list, List { first: NIL, last: NIL }).first;
            while at != NIL {
                keys.push(at);
                at = self.entries[at as usize].next;
            }
        }
        self.occupied = [0; LEVELS];
        self.now = now;
        // Equal deadlines come from one list, so they keep their order.
        for key in keys {
            self.link(key, self.entries[key as usize].deadline);
        }
    }

    fn expire_slots(&mut self, now: u64, due: &mut Vec<T>) {
        // The slots are relative to a time that must not go back: by it, the entry of a timer that
        // is cancelled is found.
        let now = now.max(self.now);
        let mut passed = Vec::new();
        let mut moved = Vec::new();
        while let Some((level, slot)) =
            self.first_slot().filter(|&(level, slot)| self.start_of(level, slot) <= now)
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
        // At most one slot was only partly due; its remaining entries are placed anew, in order.
        for &(deadline, key) in &moved {
            self.link(key, deadline);
        }
        // Slots came in order of time, entries of one slot in order of arrival.
        sort_by_key(&mut passed, |&(deadline, _)| deadline);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64: the same sequence from the same seed.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.next() % bound
        }

        /// Any magnitude is as likely as any other.
        fn magnitude(&mut self) -> u64 {
            let shift = self.below(64);
            self.next() >> shift
        }
    }

    /// The specification of `Timers`, in the plainest code.
    #[derive(Default)]
    struct Model(Vec<(u64, u64)>);

    impl Model {
        fn add(&mut self, deadline: u64, serial: u64) {
            self.0.push((deadline, serial));
        }

        fn cancel(&mut self, serial: u64) {
            self.0.retain(|&(_, other)| other != serial);
        }

        fn earliest(&self) -> Option<u64> {
            self.0.iter().map(|&(deadline, _)| deadline).min()
        }

        /// In order of deadline, and of serial number where that is equal.
        fn expire(&mut self, now: u64) -> Vec<u64> {
            let (mut due, left) = self.0.iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
            self.0 = left;
            due.sort_unstable();
            due.into_iter().map(|(_, serial)| serial).collect()
        }
    }

    fn expire(timers: &mut Timers<u64>, now: u64) -> Vec<u64> {
        let mut due = Vec::new();
        timers.expire(now, &mut due);
        due
    }

    fn deadline(random: &mut Random, now: u64, model: &Model) -> u64 {
        match random.below(20) {
            0 => 0,
            1 => u64::MAX,
            2 => now,
            3 => now.saturating_sub(random.magnitude()),
            // A deadline that is there already: ties must keep their order.
            4..=7 => model.earliest().unwrap_or(now),
            8..=11 => now.saturating_add(random.below(70)),
            _ => now.saturating_add(random.magnitude()),
        }
    }

    fn compare_with_model(seed: u64, steps: u64) {
        let mut random = Random(seed);
        let (mut timers, mut model) = (Timers::new(), Model::default());
        let mut armed: Vec<(TimerKey, u64)> = Vec::new();
        let mut now = 0;
        for serial in 0..steps {
            match random.below(100) {
                0 => {
                    now = random.magnitude();
                    timers.set_time(now);
                }
                1..=49 => {
                    let deadline = deadline(&mut random, now, &model);
                    armed.push((timers.add(deadline, serial), serial));
                    model.add(deadline, serial);
                }
                50..=69 if !armed.is_empty() => {
                    let at = random.below(armed.len() as u64) as usize;
                    let (key, item) = armed.swap_remove(at);
                    assert_eq!(timers.cancel(key), item, "seed {seed}");
                    model.cancel(item);
                }
                _ => {
                    let time = match random.below(4) {
                        0 => now,
                        1 => timers.next().unwrap_or(now),
                        2 => now.saturating_add(random.below(200)),
                        _ => now.saturating_add(random.magnitude() >> 8),
                    };
                    // The next deadline may be earlier than the last time.
                    now = time.max(timers.now);
                    let due = expire(&mut timers, time);
                    assert_eq!(due, model.expire(now), "seed {seed} at {now}");
                    armed.retain(|(_, item)| !due.contains(item));
                }
            }
            assert_eq!(timers.len(), model.0.len(), "seed {seed}");
            assert_eq!(timers.next().is_some(), model.earliest().is_some(), "seed {seed}");
            assert!(timers.next() <= model.earliest(), "seed {seed}: would wake too late");
        }
        assert_eq!(expire(&mut timers, u64::MAX), model.expire(u64::MAX), "seed {seed}");
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn does_what_the_model_does() {
        for seed in 0..300 {
            compare_with_model(seed, 1000);
        }
    }

    #[test]
    fn going_from_next_to_next_expires_all_at_their_very_times() {
        for seed in 0..100 {
            let mut random = Random(seed);
            let (mut timers, mut model) = (Timers::new(), Model::default());
            for serial in 0..200 {
                // Many in few slots, so that `next` may not look at each of them.
                let deadline = match seed % 4 {
                    0 => random.magnitude(),
                    1 => (1 << 40) + random.below(1 << 20),
                    // The first of them at the very start of its slot.
                    2 => (1 << 36) + ((random.below(200) >> random.below(8)) << 10),
                    _ => u64::MAX - random.below(1000),
                };
                timers.add(deadline, serial);
                model.add(deadline, serial);
            }
            let mut last = None;
            let mut looks = 0;
            while let Some(next) = timers.next() {
                assert!(last < Some(next), "seed {seed}: no progress at {next}");
                assert!(Some(next) <= model.earliest(), "seed {seed}: {next} is too late");
                last = Some(next);
                looks += 1;
                assert_eq!(expire(&mut timers, next), model.expire(next), "seed {seed}");
            }
            assert_eq!(model.earliest(), None);
            assert!(looks <= 200 * LEVELS, "seed {seed}: {looks} looks for 200 timers");
        }
    }

    #[test]
    fn equal_deadlines_keep_their_order_through_every_level() {
        let deadline = 0o1234_5670_1234_5670_1234;
        let mut timers = Timers::new();
        for (serial, level) in (0..LEVELS as u32).rev().enumerate() {
            // Each time is nearer, so that each add finds a lower level.
            timers.expire(deadline - (1 << (level * BITS)).min(deadline), &mut Vec::new());
            timers.add(deadline, serial as u64);
        }
        assert!(expire(&mut timers, deadline - 1).is_empty());
        assert_eq!(expire(&mut timers, deadline), (0..LEVELS as u64).collect::<Vec<_>>());
    }

    #[test]
    fn deadlines_at_the_ends_of_time() {
        let mut timers = Timers::new();
        timers.add(u64::MAX, 3);
        timers.add(u64::MAX - 1, 2);
        timers.add(0, 0);
        timers.add(0, 1);
        assert_eq!(timers.next(), Some(0));
        assert_eq!(expire(&mut timers, 0), [0, 1]);
        assert!(expire(&mut timers, u64::MAX - 2).is_empty());
        assert_eq!(expire(&mut timers, u64::MAX - 1), [2]);
        assert_eq!(expire(&mut timers, u64::MAX), [3]);
        timers.add(u64::MAX, 5);
        timers.add(7, 4);
        assert_eq!(expire(&mut timers, u64::MAX), [4, 5]);
    }

    #[test]
    fn deadlines_that_have_passed_come_at_once_and_in_order() {
        let mut timers = Timers::new();
        timers.expire(1_000_000, &mut Vec::new());
        let late = timers.add(999_999, 1);
        timers.add(5, 0);
        timers.add(1_000_000, 3);
        timers.add(999_999, 2);
        timers.add(1_000_001, 4);
        assert!(timers.next() <= Some(5));
        assert_eq!(timers.cancel(late), 1);
        assert_eq!(expire(&mut timers, 1_000_000), [0, 2, 3]);
        assert_eq!(expire(&mut timers, 1_000_001), [4]);
    }

    #[test]
    fn a_million_armed_and_cancelled_take_no_room() {
        let mut random = Random(1);
        let mut timers = Timers::new();
        let mut armed = Vec::new();
        for now in 0..1_000_000 {
            armed.push(timers.add(now + 30_000_000_000 + random.below(1000), now));
            if armed.len() > 100 {
                timers.cancel(armed.swap_remove(random.below(100) as usize));
            }
            if now % 1000 == 0 {
                assert!(expire(&mut timers, now).is_empty());
            }
        }
        assert_eq!(timers.len(), 100);
        assert!(timers.entries.capacity() <= 256, "{} entries", timers.entries.capacity());
        for key in armed {
            timers.cancel(key);
        }
        assert_eq!(timers.occupied, [0; LEVELS]);
        assert_eq!(timers.next(), None);
    }
}

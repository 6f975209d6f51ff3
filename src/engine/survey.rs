//! A survey: the coroutines of a thread at one moment.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;

use super::facts::{Facts, Frames};
use super::numbers::Numbers;
use super::processor::Registers;
use super::rows::Rows;

/// The coroutines of one thread.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) coroutines: Rows,
    /// Coroutines for which there was no room, where none could be made.
    pub(crate) missed: usize,
    /// The table was being changed at this moment, so nothing is known.
    pub(crate) unreadable: bool,
    /// The thread was interrupted to answer.
    pub(crate) interrupted: Option<Option<Registers>>,
    /// Which of the coroutines are wanted.
    pub(crate) wanted: Wanted,
    /// The number of turns that are left until the worker's next tick.
    pub(crate) turn: u32,
    /// Finds the frames of the coroutines, if they are wanted.
    pub(crate) walker: Option<Box<dyn Walk>>,
    /// The addresses of frames: each coroutine has a part of the list. Many share one.
    pub(crate) frames: Vec<usize>,
    /// Numbers, if they are wanted in place of the coroutines.
    pub(crate) numbers: Option<Box<Numbers>>,
    /// Where stacks are, if it is wanted.
    pub(crate) stacks: Option<StackMemory>,
    // The parts, by their hashes.
    known: HashMap<u64, Frames>,
}

/// The memory of a thread's stacks.
#[derive(Default, Debug)]
pub(crate) struct StackMemory {
    /// All of it.
    pub(crate) arenas: Vec<Range<usize>>,
    /// Stacks that are not in use.
    pub(crate) free: Vec<Range<usize>>,
}

/// The coroutines that a survey is about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Wanted {
    #[default]
    All,
    /// The one that runs.
    Running,
    /// The one that runs, and the parked ones that have this address on their stacks.
    Referring(usize),
}

/// Something that finds the frames of a stack.
pub(crate) trait Walk: Send {
    /// Adds the addresses of at most `max` frames, the innermost first. `read` reads a word of the
    /// stack. Async-signal-safe, if there is room for the frames.
    fn walk(
        &mut self,
        from: Registers,
        read: &mut dyn FnMut(usize) -> Option<usize>,
        frames: &mut Vec<usize>,
        max: usize,
    );
}

impl Survey {
    /// Finds the frames that follow from these registers.
    pub(crate) fn walk(
        &mut self,
        from: Registers,
        read: &mut dyn FnMut(usize) -> Option<usize>,
    ) -> Frames {
        const MAX: usize = 64;
        let room = match self.interrupted {
            None => MAX,
            Some(_) => MAX.min(self.frames.capacity() - self.frames.len()),
        };
        let before = self.frames.len();
        if let Some(walker) = &mut self.walker {
            walker.walk(from, read, &mut self.frames, room);
        }
        let new = Frames(before as u32, (self.frames.len() - before) as u32);
        // Many wait at the same place, and a list of each would take more memory than the
        // coroutines' own pages.
        let hash = self.known.hasher().hash_one(self.part(new));
        match self.known.get(&hash) {
            Some(same) if self.part(*same) == self.part(new) => {
                let same = *same;
                self.frames.truncate(before);
                return same;
            }
            None if self.interrupted.is_none() || self.known.len() < self.known.capacity() => {
                self.known.insert(hash, new);
            }
            _ => {}
        }
        new
    }

    /// The addresses of a coroutine's frames.
    pub(crate) fn frames_of(&self, facts: &Facts) -> &[usize] {
        self.part(facts.frames)
    }

    fn part(&self, Frames(first, count): Frames) -> &[usize] {
        &self.frames[first as usize..][..count as usize]
    }
}

impl Survey {
    /// A survey that is for numbers.
    pub(crate) fn of_numbers() -> Self {
        Self { numbers: Some(Box::new(Numbers::with_room())), ..Self::default() }
    }

    /// A survey with room for this many coroutines.
    pub(crate) fn with_capacity(coroutines: usize) -> Self {
        Self { coroutines: Rows::with_capacity(coroutines), ..Self::default() }
    }

    /// Has the frames of the coroutines found, too, with room for those of this many.
    #[cfg(feature = "backtrace")]
    pub(crate) fn find_frames(&mut self, walker: Box<dyn Walk>, coroutines: usize) {
        /// As many are usual.
        const EACH: usize = 24;
        /// Coroutines that wait at different places.
        const PLACES: usize = 4096;
        self.walker = Some(walker);
        self.frames.reserve(coroutines * EACH);
        self.known.reserve(coroutines.min(PLACES));
    }

    /// Adds a coroutine. In a signal handler, only if there is room.
    pub(crate) fn add(&mut self, facts: impl FnOnce(&mut Self) -> Facts) {
        if self.interrupted.is_some() && !self.coroutines.has_room() {
            self.missed += 1;
        } else {
            let facts = facts(self);
            self.coroutines.push(facts);
        }
    }
}

//! The object in whose queue a coroutine waits, as plain data for reports.

use std::ops::Range;
use std::panic::Location;
use std::ptr;

use super::id::Id;

/// The object whose queue a coroutine waits in, as it was when the report looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) created: &'static Location<'static>,
    /// Where the wait was called.
    pub(crate) waited_at: &'static Location<'static>,
    pub(crate) holder: Held,
    pub(crate) count: Option<Count>,
    /// Tells objects apart. It is no address, so that it cannot be taken for a reference.
    pub(crate) identity: usize,
    /// Its memory, if it is in an `Arc` of its own.
    pub(crate) shared: Option<Object>,
}

/// One of several objects that a coroutine waits for.
#[derive(Clone, Debug)]
pub(crate) struct Alternative {
    /// As in [`Subject`].
    pub(crate) shared: Option<Object>,
    /// Memory that belongs to the wait and may refer to the object.
    pub(crate) memory: Range<usize>,
}

/// The memory of an object in an `Arc` of its own, to which all references lead.
///
/// It keeps the complements of the addresses, so that it is no reference itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Object {
    start: usize,
    end: usize,
}

impl Object {
    /// `content` is the whole content of an `Arc`.
    pub(crate) fn in_arc<T>(content: &T) -> Self {
        const WORD: usize = size_of::<usize>();
        // The counts come first. The last word is left out: the allocator of glibc points there if
        // the block behind is free, and no handle does.
        let counts = (2 * WORD).max(align_of::<T>());
        let address = ptr::from_ref(content).addr();
        Self { start: !(address - counts), end: !(address + size_of::<T>() - WORD) }
    }

    /// The object as numbers, none of which is zero.
    pub(crate) fn to_words(self) -> [u64; 2] {
        [self.start as u64, self.end as u64]
    }

    /// The object with these numbers. `None` for zeros.
    pub(crate) fn from_words([start, end]: [u64; 2]) -> Option<Self> {
        (start != 0).then_some(Self { start: start as usize, end: end as usize })
    }

    /// The number of the object among `objects`, which are sorted, to whose memory a word leads.
    pub(crate) fn find(objects: &[Self], word: usize) -> Option<usize> {
        let at = objects.partition_point(|object| object.start < !word);
        objects.get(at).is_some_and(|object| object.end < !word).then_some(at)
    }
}

/// The holder of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// It is no lock, or it is changing hands at this moment.
    Unknown,
    /// A plain thread.
    Thread,
    Coroutine(Id),
    /// Several readers, or one of which nothing is known but the last that came.
    Readers(usize, Option<Id>),
}

/// How much is in an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Count {
    pub(crate) len: usize,
    /// `None` without bounds.
    pub(crate) of: Option<usize>,
}

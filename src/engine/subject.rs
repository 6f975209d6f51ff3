//! The object in whose queue a coroutine waits, as plain data for reports.

use std::panic::Location;

use super::id::Id;

/// The object whose queue a coroutine waits in, as it was when the report looked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) created: &'static Location<'static>,
    /// Where the wait was called.
    pub(crate) waited_at: &'static Location<'static>,
    pub(crate) holder: Held,
    pub(crate) count: Option<Count>,
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

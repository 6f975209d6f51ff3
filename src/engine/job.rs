//! What will be a coroutine, on whatever thread, and where it has been put.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address::Address;
use super::remote::Door;
use super::task::Id;

/// What is kept of a coroutine before it starts.
pub(crate) trait Seed: Send {
    /// Makes a coroutine of this thread of it, and says which; `None` when that is not possible, or has
    /// been done.
    fn start(&mut self) -> Option<(Id, &'static Door, u32)>;

    /// Says that it will not be started, unless it has been.
    fn end(&mut self);
}

/// The place of a coroutine that has none yet, and what is asked of it before it has.
///
/// The seed is kept with it, as one allocation instead of two; only the [`Job`] reaches that. So what
/// a closure was captured in is freed with the last handle, and not when it starts.
pub(crate) struct Placement<S: ?Sized = dyn Seed> {
    placed: Mutex<Placed>,
    seed: UnsafeCell<S>,
}

// SAFETY: a shared placement gives access to what is locked only, and a job, which has the seed to itself, is
// shared with nobody: the seed only moves between threads, which a `Seed: Send` allows.
unsafe impl<S: ?Sized + Send> Sync for Placement<S> {}
// No code of a user runs under the lock.
impl<S: ?Sized> RefUnwindSafe for Placement<S> {}

#[derive(Default)]
pub(super) struct Placed {
    door: Option<&'static Door>,
    slot: u32,
    pub(super) cancelled: bool,
    pub(super) unparked: bool,
}

impl Placed {
    pub(super) fn at(&self) -> Option<(&'static Door, u32)> {
        Some((self.door?, self.slot))
    }
}

impl<S: ?Sized> Placement<S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Placed> {
        // No user code runs under this lock.
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where the coroutine has been put, and hands on what was asked of it before.
    fn settle(&self, id: Id, door: &'static Door, slot: u32) {
        let mut placed = self.lock();
        (placed.door, placed.slot) = (Some(door), slot);
        let (cancelled, unparked) = (placed.cancelled, placed.unparked);
        drop(placed);
        let address = Address::known(door, slot, id);
        if cancelled {
            address.cancel(None);
        }
        if unparked {
            address.unpark();
        }
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement").field("at", &self.lock().at()).finish_non_exhaustive()
    }
}

/// What starts a coroutine on the thread that it is called on. One that is dropped tells its handle.
pub(crate) struct Job(Arc<Placement>);

impl Job {
    /// The job that `seed` is for.
    ///
    /// # Safety
    ///
    /// The seed must hold nothing that borrows any more once it has started or ended, and what it
    /// borrows must live until then.
    pub(crate) unsafe fn new<'a>(seed: impl Seed + 'a) -> Self {
        let placement: Arc<Placement<dyn Seed + 'a>> =
            Arc::new(Placement { placed: Mutex::default(), seed: UnsafeCell::new(seed) });
        // SAFETY: the two types differ in a lifetime only. Whoever shares the placement keeps it for longer
        // than that, perhaps, but reaches nothing of the seed but its memory; and when that is
        // freed nothing in it borrows, by the caller's promise.
        Self(unsafe {
            std::mem::transmute::<Arc<Placement<dyn Seed + 'a>>, Arc<Placement>>(placement)
        })
    }

    /// Where its coroutine is, or will be.
    pub(crate) fn placement(&self) -> &Arc<Placement> {
        &self.0
    }

    #[inline]
    fn seed(&mut self) -> &mut dyn Seed {
        // SAFETY: there is one job of a placement, which is borrowed mutably, and nobody else reaches the seed.
        unsafe { &mut *self.0.seed.get() }
    }

    /// Makes a coroutine of this thread of it.
    #[inline]
    pub(crate) fn start(mut self) {
        if let Some((id, door, slot)) = self.seed().start() {
            self.0.settle(id, door, slot);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.seed().end();
    }
}

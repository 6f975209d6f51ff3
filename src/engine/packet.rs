//! Where a coroutine leaves its result for the handle that takes it.
//!
//! One allocation with two owners, the coroutine and the handle; whoever sees that the other has
//! gone frees it. Three bits say how far they are:
//!
//! ```text
//! ENDED      the result is there, and the coroutine has gone
//! DETACHED   the handle has gone
//! ELSEWHERE  somebody who is not a coroutine of the home thread waits, or has waited
//! ABANDONED  with ENDED: there is no result and never will be
//! ```

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::cancel::Failure;
use super::context::{self, Context};
use super::remote::{Door, Waiter, Waiters};
use super::task::{Id, Wait, Wake};

const ENDED: u8 = 1;
const DETACHED: u8 = 2;
const ELSEWHERE: u8 = 4;
const ABANDONED: u8 = 8;

/// A packet but for its result.
pub(crate) struct Header {
    state: AtomicU8,
    // Slot and wait of a coroutine of the home thread: almost every join is by one, and these cost
    // it no lock. One that gave up may still be here: its wait is over, so waking it does nothing.
    joiner_slot: Cell<u32>,
    joiner_wait: Cell<u64>,
    // The coroutine's thread, the only one that uses these two; nobody's when any worker may start it.
    home: &'static Door,
    elsewhere: OnceLock<Arc<Mutex<Waiters>>>,
}

#[repr(C)]
struct Packet<T> {
    header: Header,
    result: UnsafeCell<MaybeUninit<Result<T, Failure>>>,
}

fn lock(waiters: &Mutex<Waiters>) -> MutexGuard<'_, Waiters> {
    // No user code runs under this lock.
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Header {
    /// Says that the coroutine has gone, and wakes those who wait for that. Must be called once, on the
    /// home thread if there is one. Returns `false` when the handle had gone before.
    #[inline]
    fn end(&self, how: u8) -> bool {
        // A job may be dropped so late that its thread has no context any more; nor has that a coroutine.
        let tick = context::try_with(Context::tick).unwrap_or(0);
        // From here on the second is the time of the end, for those who ask which came first.
        let joiner = (self.joiner_slot.get(), self.joiner_wait.replace(tick));
        // Once `ENDED` is set the receiver may free the packet, so this is the last use of `self`.
        if self.state.compare_exchange(0, how, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return self.end_slowly(how, joiner);
        }
        wake_joiner(joiner);
        true
    }

    #[cold]
    fn end_slowly(&self, how: u8, joiner: (u32, u64)) -> bool {
        let elsewhere = self.elsewhere.get().cloned();
        let (before, waiters) = {
            // Who registers holds this lock while it sets `ELSEWHERE`: it is either in the
            // list by now or will see `ENDED`. (Without a list, it was the handle that went.)
            let mut guard = elsewhere.as_deref().map(lock);
            let before = self.state.fetch_or(how, Ordering::AcqRel);
            (before, guard.as_mut().map(|waiters| waiters.take()))
        };
        wake_joiner(joiner);
        waiters.into_iter().flatten().for_each(context::wake);
        before & DETACHED == 0
    }

    /// Says that the coroutine will never end. Must be called on the home thread, once.
    pub(crate) fn abandon(&self) {
        // If the handle has gone, the packet stays behind like the rest of the coroutine.
        self.end(ENDED | ABANDONED);
    }

    #[inline]
    fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) & ENDED != 0
    }

    /// Has `waiter` woken at the end. Returns `false` when the coroutine has ended already.
    fn register(&self, waiter: Waiter) -> bool {
        if let Some((slot, wait)) = waiter.local_to(self.home) {
            // Only whoever owns the handle can wait, so the one before has given up.
            self.joiner_slot.set(slot);
            self.joiner_wait.set(wait);
            return true;
        }
        let mut waiters = lock(self.elsewhere.get_or_init(Arc::default));
        if self.state.fetch_or(ELSEWHERE, Ordering::AcqRel) & ENDED != 0 {
            return false;
        }
        waiters.push(waiter);
        true
    }

    /// For coroutines of one thread that have ended: a number that says which ended first.
    fn ended_at(&self) -> Option<u64> {
        self.is_ended().then(|| self.joiner_wait.get())
    }

    fn unregister(&self, waiter: Waiter) {
        if let Some(elsewhere) = self.elsewhere.get() {
            lock(elsewhere).remove(waiter);
        }
    }
}

fn wake_joiner((slot, wait): (u32, u64)) {
    context::try_with(|cx| cx.scheduler.unpark(slot, wait, Wake::Ready));
}

/// The coroutine's end of a packet. Forgetting it leaks the packet.
pub(crate) struct Sender<T>(NonNull<Packet<T>>);

// SAFETY: a sender that goes to another thread is one of a packet that is at home nowhere, as those
// who send it have it made: then nobody else uses the joiner's two cells, and the rest is as for a receiver.
//
// The result goes from one thread to another, which a `T: Send` allows.
unsafe impl<T: Send> Send for Sender<T> {}

/// The handle's end of a packet.
pub(crate) struct Receiver<T>(NonNull<Packet<T>>);

// SAFETY: what a receiver does with a packet on another thread is take or drop the result,
// which a `T: Send` allows, use the state, which is atomic, and use `elsewhere`, which is locked.
//
// It uses the joiner's cells only after it has found itself on the home thread.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: as above; a shared receiver does not touch the result.
unsafe impl<T: Send> Sync for Receiver<T> {}

/// A packet for a coroutine of the thread with this door, which is the calling one or nobody.
#[inline]
pub(crate) fn packet<T>(home: &'static Door) -> (Sender<T>, Receiver<T>) {
    let packet = NonNull::from(Box::leak(Box::new(Packet {
        header: Header {
            state: AtomicU8::new(0),
            joiner_slot: Cell::new(0),
            joiner_wait: Cell::new(0),
            home,
            elsewhere: OnceLock::new(),
        },
        result: UnsafeCell::new(MaybeUninit::uninit()),
    })));
    (Sender(packet), Receiver(packet))
}

impl<T> Sender<T> {
    /// The packet but for its result; valid until [`finish`](Self::finish).
    pub(crate) fn header(&self) -> NonNull<Header> {
        // The header is the packet's first field.
        self.0.cast()
    }

    /// Leaves the result and wakes those who wait for it. Must be called on the home thread, if there
    /// is one.
    ///
    /// A result that nobody will take is dropped here, which may be any code.
    #[inline]
    pub(crate) fn finish(self, result: Result<T, Failure>) {
        // SAFETY: a receiver frees the packet only once `ENDED` is set, which `end` below does.
        let packet = unsafe { self.0.as_ref() };
        // SAFETY: until `ENDED` is set, the one sender alone touches the result.
        unsafe { (*packet.result.get()).write(result) };
        if !packet.header.end(ENDED) {
            // SAFETY: the receiver has gone, and the result was written above.
            drop(unsafe { take(self.0) });
        }
    }
}

impl<T> Receiver<T> {
    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the sender frees the packet only once `DETACHED` is set, which the drop
        // of this receiver does.
        &unsafe { self.0.as_ref() }.header
    }

    /// Whether the coroutine has ended.
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        self.header().is_ended()
    }

    /// For coroutines of one thread that have ended: a number that says which ended first.
    pub(crate) fn ended_at(&self) -> Option<u64> {
        self.header().ended_at()
    }

    /// Whether the coroutine is, or was, one of the run of the calling one.
    pub(crate) fn is_of_this_run(&self) -> bool {
        let home = self.header().home;
        let is_ours = context::try_with(|cx| {
            std::ptr::eq(cx.door(), home) || cx.scheduler.at_post(|post| post.workers.knows(home))
        });
        // A thread that is ending has no run any more.
        is_ours.unwrap_or(false)
    }

    /// Has `waiter` woken at the end. Returns `false` when the coroutine has ended already.
    pub(crate) fn register(&self, waiter: Waiter) -> bool {
        self.header().register(waiter)
    }

    /// Takes back a [`register`](Self::register) whose wait is over.
    pub(crate) fn unregister(&self, waiter: Waiter) {
        self.header().unregister(waiter);
    }

    /// Waits until the coroutine, `id`, has ended. Returns `false` if `deadline` passes first.
    pub(crate) fn wait(&self, id: Id, deadline: Option<Instant>) -> bool {
        let header = self.header();
        let why = match self.is_of_this_run() {
            true => Wait::Join(id.short()),
            false => Wait::JoinElsewhere(id.short()),
        };
        while !header.is_ended() {
            let waiter = context::waiter();
            if header.register(waiter) && context::block(waiter, why, deadline) == Wake::TimedOut {
                header.unregister(waiter);
                return header.is_ended();
            }
        }
        true
    }

    /// Takes the result of a coroutine that has ended.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[inline]
    pub(crate) fn take(self) -> Result<T, Failure> {
        assert!(self.is_ended(), "took the result of a coroutine that has not ended");
        let packet = self.0;
        mem::forget(self);
        // SAFETY: `ENDED`, seen with `Acquire`, says that the result is written and that the
        // sender is done with the packet; and this receiver is used up.
        unsafe { take(packet) }
    }
}

impl<T> Drop for Receiver<T> {
    #[inline]
    fn drop(&mut self) {
        if self.header().state.fetch_or(DETACHED, Ordering::AcqRel) & ENDED != 0 {
            // SAFETY: as in `take`; nothing uses this receiver after its drop.
            drop(unsafe { take(self.0) });
        }
    }
}

/// Takes the result out of a packet and frees it.
///
/// # Safety
///
/// `ENDED` must be set, or the result have been written, and nobody may use the packet any more.
#[inline]
unsafe fn take<T>(packet: NonNull<Packet<T>>) -> Result<T, Failure> {
    // SAFETY: the packet was leaked from a box, and by the caller's promise it is ours alone.
    let packet = unsafe { Box::from_raw(packet.as_ptr()) };
    if packet.header.state.load(Ordering::Relaxed) & ABANDONED != 0 {
        return Err(Failure::Cancelled);
    }
    // SAFETY: a sender that was not abandoned has written it; as a `MaybeUninit` it is not dropped
    // again when the box is freed.
    unsafe { packet.result.into_inner().assume_init() }
}

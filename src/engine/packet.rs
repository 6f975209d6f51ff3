//! Where a coroutine leaves its result for the handle that takes it.
//!
//! One allocation with two owners, the coroutine and the handle; whoever sees that the other has
//! gone frees it. Three bits say how far they are:
//!
//! ```text
//! ENDED      the result is there, and the coroutine has gone
//! DETACHED   the handle has gone
//! ELSEWHERE  somebody who is not a coroutine of the home thread waits, or has waited
//! ```

#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::engine::cancel::Failure;
use crate::engine::context;
use crate::engine::remote::{Door, Waiter, Waiters};
use crate::engine::task::{Id, Wait, Wake};

const ENDED: u8 = 1;
const DETACHED: u8 = 2;
const ELSEWHERE: u8 = 4;

struct Packet<T> {
    state: AtomicU8,
    // The coroutine's thread, the only one that uses `joiner`.
    home: &'static Door,
    // Slot and wait of a coroutine of the home thread: almost every join is by one, and this costs
    // it no lock. One that gave up may still be here: its wait is over, so waking it does nothing.
    joiner: (Cell<u32>, Cell<u64>),
    elsewhere: OnceLock<Arc<Mutex<Waiters>>>,
    result: UnsafeCell<MaybeUninit<Result<T, Failure>>>,
}

fn lock(waiters: &Mutex<Waiters>) -> MutexGuard<'_, Waiters> {
    // No user code runs under this lock.
    waiters.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The coroutine's end of a packet. Forgetting it leaks the packet.
pub(super) struct Sender<T>(NonNull<Packet<T>>);

/// The handle's end of a packet.
pub(super) struct Receiver<T>(NonNull<Packet<T>>);

// SAFETY: what a receiver does with a packet on another thread is take or drop the result,
// which a `T: Send` allows, use the state, which is atomic, and use `elsewhere`, which is locked.
//
// It uses `joiner` only after it has found itself on the home thread.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: as above; a shared receiver does not touch the result.
unsafe impl<T: Send> Sync for Receiver<T> {}

/// A packet for a coroutine of the thread with this door, the calling one.
#[inline]
pub(super) fn packet<T>(home: &'static Door) -> (Sender<T>, Receiver<T>) {
    let packet = NonNull::from(Box::leak(Box::new(Packet {
        state: AtomicU8::new(0),
        home,
        joiner: (Cell::new(0), Cell::new(0)),
        elsewhere: OnceLock::new(),
        result: UnsafeCell::new(MaybeUninit::uninit()),
    })));
    (Sender(packet), Receiver(packet))
}

impl<T> Sender<T> {
    /// Leaves the result and wakes those who wait for it. Must be called on the home thread.
    ///
    /// A result that nobody will take is dropped here, which may be any code.
    #[inline]
    pub(super) fn finish(self, result: Result<T, Failure>) {
        // SAFETY: a receiver frees the packet only once `ENDED` is set, and below that is
        // the last use of `packet`.
        let packet = unsafe { self.0.as_ref() };
        // SAFETY: until `ENDED` is set, the one sender alone touches the result.
        unsafe { (*packet.result.get()).write(result) };
        let joiner = (packet.joiner.0.get(), packet.joiner.1.get());
        let mut elsewhere = None;
        let ended = packet
            .state
            .compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Acquire)
            .or_else(|state| {
                // Who registers holds this lock while it sets `ELSEWHERE`, so it is either in
                // the list by now or will see `ENDED`.
                elsewhere = packet.elsewhere.get().cloned();
                let guard = elsewhere.as_deref().map(lock);
                let state = match packet.state.fetch_or(ENDED, Ordering::AcqRel) {
                    before if before & DETACHED == 0 => Ok(before),
                    _ => Err(state),
                };
                drop(guard);
                state
            });
        if ended.is_err() {
            // SAFETY: the receiver has gone, and the result was written above.
            return unsafe { drop(take(self.0)) };
        }
        context::with(|cx| cx.scheduler.unpark(joiner.0, joiner.1, Wake::Ready));
        if let Some(elsewhere) = elsewhere {
            let waiters = lock(&elsewhere).take();
            waiters.for_each(context::wake);
        }
    }
}

impl<T> Receiver<T> {
    #[inline]
    fn packet(&self) -> &Packet<T> {
        // SAFETY: the sender frees the packet only once `DETACHED` is set, which the drop
        // of this receiver does.
        unsafe { self.0.as_ref() }
    }

    /// Whether the coroutine has ended.
    #[inline]
    pub(super) fn is_ended(&self) -> bool {
        self.packet().state.load(Ordering::Acquire) & ENDED != 0
    }

    /// Waits until the coroutine, `id`, has ended. Returns `false` if `deadline` passes first.
    pub(super) fn wait(&self, id: Id, deadline: Option<Instant>) -> bool {
        while !self.is_ended() {
            let waiter = context::waiter();
            if !self.register(waiter) {
                return true;
            }
            if context::block(waiter, Wait::Join(id.short()), deadline) == Wake::TimedOut {
                if let Some(elsewhere) = self.packet().elsewhere.get() {
                    lock(elsewhere).remove(waiter);
                }
                return self.is_ended();
            }
        }
        true
    }

    /// Has `waiter` woken at the end. Returns `false` when the coroutine has ended already.
    fn register(&self, waiter: Waiter) -> bool {
        let packet = self.packet();
        if let Some((slot, wait)) = waiter.local_to(packet.home) {
            // Only whoever owns the handle can wait, so the one before has given up.
            packet.joiner.0.set(slot);
            packet.joiner.1.set(wait);
            return true;
        }
        let elsewhere = packet.elsewhere.get_or_init(Arc::default);
        let mut waiters = lock(elsewhere);
        if packet.state.fetch_or(ELSEWHERE, Ordering::AcqRel) & ENDED != 0 {
            return false;
        }
        waiters.push(waiter);
        true
    }

    /// Takes the result of a coroutine that has ended.
    ///
    /// # Panics
    ///
    /// When it has not.
    #[inline]
    pub(super) fn take(self) -> Result<T, Failure> {
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
        if self.packet().state.fetch_or(DETACHED, Ordering::AcqRel) & ENDED != 0 {
            // SAFETY: as in `take`; nothing uses this receiver after its drop.
            unsafe { drop(take(self.0)) };
        }
    }
}

/// Takes the result out of a packet and frees it.
///
/// # Safety
///
/// The result must have been written, and nobody may use the packet any more.
#[inline]
unsafe fn take<T>(packet: NonNull<Packet<T>>) -> Result<T, Failure> {
    // SAFETY: the packet was leaked from a box, and by the caller's promise it is ours alone.
    let packet = unsafe { Box::from_raw(packet.as_ptr()) };
    // SAFETY: the caller promises that it was written; it is a `MaybeUninit`, so that freeing the
    // box does not drop it again.
    unsafe { packet.result.into_inner().assume_init() }
}

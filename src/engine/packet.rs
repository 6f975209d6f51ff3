//! Where a coroutine leaves its result for the handle that takes it.
//!
//! A packet is one allocation with two owners: the coroutine and the handle. The owner that
//! finishes last frees it. The state is a set of bits that are only ever added:
//!
//! ```text
//! ENDED      the result is there, and the coroutine is done with the packet
//! DETACHED   the handle is done with the packet
//! ELSEWHERE  a waiter that is no coroutine of the home thread is listed, or was
//! ```
//!
//! 1. The coroutine writes the result, and then adds `ENDED`. If `DETACHED` was set, it frees the
//!    packet.
//! 2. The handle adds `DETACHED` when it is dropped. If `ENDED` was set, it frees the packet. A
//!    handle that takes the result has seen `ENDED`, and frees the packet without adding a bit.
//! 3. A joiner that is a coroutine of the home thread writes its wait into two cells. Only the home
//!    thread uses these cells, so this needs no lock, and nothing interleaves.
//! 4. Any other joiner locks the list of waiters, adds `ELSEWHERE`, and enters the list if `ENDED`
//!    was not set.
//!
//! Interleavings: the coroutine's step and a joiner's step 4, on different threads. The coroutine
//! first tries to add `ENDED` with a compare-exchange from zero. If that succeeds, a later joiner
//! sees `ENDED`. If it fails because of `ELSEWHERE`, the coroutine takes the lock of the list
//! before it adds `ENDED`. Then each joiner is in the list by that time, or will see `ENDED`.
//!
//! After one owner's step, the other may free the packet at any moment. So both steps take a
//! pointer and not a reference.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::cancel::Failure;
use super::context;
use super::id::Id;
use super::mailbox::ThreadId;
use super::mutex::Mutex;
use super::park;
use super::shared::atomic::{AtomicU8, Ordering};
use super::task::{Completion, Wait, Wake};
use super::waiter::{Waiter, Waiters};
use super::workers::RunId;

const ENDED: u8 = 1;
const DETACHED: u8 = 2;
const ELSEWHERE: u8 = 4;

const WAIT_HERE: Wait = Wait::new(&Wait::for_run("coroutine #{} to end"));
const WAIT_ELSEWHERE: Wait = Wait::new(&Wait::outside("coroutine #{} of another runtime to end"));

/// Where a coroutine runs, as far as its spawn knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// On this thread.
    Thread(ThreadId),
    /// On any worker of this run.
    Run(RunId),
    /// On some run, which may not have begun.
    Unknown,
}

/// The part of a packet that does not depend on the type of the result.
#[repr(C)]
pub(crate) struct Header {
    completion: Completion,
    state: AtomicU8,
    // Slot and wait of a joiner of the home thread. Almost all joiners are, and these cells save
    // them the lock. A joiner that gave up may still be here. Its wait is over, so waking it does
    // nothing.
    joiner_slot: Cell<u32>,
    joiner_wait: Cell<u64>,
    // Orders the ends of a thread's coroutines. Written before `ENDED` is added.
    ended_at: Cell<u64>,
    home: Home,
    elsewhere: OnceLock<Arc<Mutex<Waiters>>>,
}

#[repr(C)]
struct Packet<T> {
    header: Header,
    // `None` until the coroutine writes it, and for good if the coroutine is abandoned.
    result: Cell<Option<Result<T, Failure>>>,
}

/// One of the two owners of a packet, before its step.
struct Half<T>(NonNull<Packet<T>>);

impl<T> Half<T> {
    #[inline]
    fn packet(&self) -> &Packet<T> {
        // SAFETY: the packet is freed only when both owners are done with it, and this one is not.
        unsafe { self.0.as_ref() }
    }

    /// Frees the packet and returns the result.
    ///
    /// # Safety
    ///
    /// The other owner must be done with the packet. This one must not be used any more.
    #[inline]
    unsafe fn take(&self) -> Result<T, Failure> {
        // SAFETY: the packet was leaked from a box, and by the caller's promise nothing else uses
        // it.
        let packet = unsafe { Box::from_raw(self.0.as_ptr()) };
        match packet.result.into_inner() {
            Some(result) => result,
            None => Err(Failure::Cancelled(None)),
        }
    }
}

/// The coroutine's step. Returns `false` if the handle was dropped before.
///
/// # Safety
///
/// The packet must be alive. This must be called once, and on the home thread if there is one.
#[inline(always)]
unsafe fn end(header: NonNull<Header>) -> bool {
    // SAFETY: by the caller's promise the packet lives until the state is changed. That is its last
    // use.
    let header = unsafe { header.as_ref() };
    // A job may be dropped so late that its thread has no scheduler any more. Then the packet has
    // no joiner on this thread.
    header.ended_at.set(context::try_with(|scheduler| scheduler.next_end()).unwrap_or(0));
    let joiner = (header.joiner_slot.get(), header.joiner_wait.get());
    if header.state.compare_exchange(0, ENDED, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return end_slowly(&header.state, header.elsewhere.get().cloned(), joiner);
    }
    wake_joiner(joiner);
    true
}

#[inline]
fn wake_joiner((slot, wait): (u32, u64)) {
    context::try_with(|scheduler| scheduler.unpark(slot, wait));
}

/// The rest of [`end`] when the handle has gone, or a waiter is elsewhere. Without a list of
/// waiters, the handle was dropped.
#[cold]
fn end_slowly(
    state: &AtomicU8,
    elsewhere: Option<Arc<Mutex<Waiters>>>,
    joiner: (u32, u64),
) -> bool {
    let waiters = elsewhere.as_ref().map(|waiters| waiters.lock());
    let before = state.fetch_or(ENDED, Ordering::AcqRel);
    let waiters = waiters.map(|mut waiters| waiters.take());
    wake_joiner(joiner);
    if let Some(waiters) = waiters {
        park::wake_all(waiters);
    }
    before & DETACHED == 0
}

/// # Safety
///
/// As for [`end`]; and `completion` must be the first field of a header.
#[cold]
unsafe fn abandon(completion: NonNull<Completion>) {
    // SAFETY: by the caller's promise. If the handle has gone, the packet is leaked like the rest
    // of the coroutine.
    unsafe { end(completion.cast()) };
}

impl Header {
    #[inline]
    fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) & ENDED != 0
    }

    /// Registers `waiter` for the end. Returns `false` if the coroutine has already ended.
    fn register(&self, waiter: Waiter) -> bool {
        let is_home = self.home == Home::Thread(waiter.thread());
        if let Some((slot, wait)) = waiter.coroutine().filter(|_| is_home) {
            // Only the owner of the handle can wait, so an earlier joiner has given up.
            self.joiner_slot.set(slot);
            self.joiner_wait.set(wait);
            return true;
        }
        let mut waiters = self.elsewhere.get_or_init(Arc::default).lock();
        if self.state.fetch_or(ELSEWHERE, Ordering::AcqRel) & ENDED != 0 {
            return false;
        }
        waiters.push(waiter);
        true
    }

    fn unregister(&self, waiter: &Waiter) {
        if let Some(elsewhere) = self.elsewhere.get() {
            elsewhere.lock().remove(waiter);
        }
    }
}

/// The coroutine's half of a packet. Forgetting it leaks the packet.
pub(crate) struct Sender<T>(Half<T>);

// SAFETY: the callers send only senders of packets without a home thread. Then no joiner uses the
// two cells, and the rest is as for a receiver.
//
// The result moves from one thread to another, which `T: Send` allows.
unsafe impl<T: Send> Send for Sender<T> {}

/// The handle's half of a packet.
pub(crate) struct Receiver<T>(Half<T>);

// SAFETY: on another thread, a receiver takes or drops the result, which `T: Send` allows. It also
// uses the state, which is atomic, and `elsewhere`, which is locked.
//
// It uses the joiner's cells only for a waiter of the home thread, which is then the calling
// thread.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: as above. A shared receiver does not touch the result.
unsafe impl<T: Send> Sync for Receiver<T> {}

/// A packet for a coroutine that runs at `home`.
#[inline]
pub(crate) fn packet<T>(home: Home) -> (Sender<T>, Receiver<T>) {
    let packet = NonNull::from(Box::leak(Box::new(Packet {
        header: Header {
            completion: Completion { abandon },
            state: AtomicU8::new(0),
            joiner_slot: Cell::new(0),
            joiner_wait: Cell::new(0),
            ended_at: Cell::new(0),
            home,
            elsewhere: OnceLock::new(),
        },
        result: Cell::new(None),
    })));
    (Sender(Half(packet)), Receiver(Half(packet)))
}

impl<T> Sender<T> {
    /// A pointer that completes the packet without a result. Valid until [`finish`](Self::finish).
    #[inline]
    pub(crate) fn completion(&self) -> NonNull<Completion> {
        // It is the first field of the header, which is the first of the packet.
        self.0.0.cast()
    }

    /// Leaves the result and wakes the waiters. Must be called on the home thread, if there is one.
    ///
    /// This runs user code: it drops a result that no handle will take, and calls wakers of
    /// futures. It does so last, so nothing of ours is left undone if that code unwinds.
    #[inline]
    pub(crate) fn finish(self, result: Result<T, Failure>) {
        // It was `None`. Not `set`, which would look whether there is a value to be dropped.
        mem::forget(self.0.packet().result.replace(Some(result)));
        // SAFETY: the packet is alive, because the receiver frees it only once `ENDED` is set. This
        // uses up the sender.
        if !unsafe { end(self.0.0.cast()) } {
            // SAFETY: the receiver is dropped.
            drop(unsafe { self.0.take() });
        }
    }
}

impl<T> Receiver<T> {
    #[inline]
    fn header(&self) -> &Header {
        &self.0.packet().header
    }

    /// Whether the coroutine has ended.
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        self.header().is_ended()
    }

    /// A number that orders the ends of one thread's coroutines. `None` if the coroutine has not
    /// ended.
    pub(crate) fn ended_at(&self) -> Option<u64> {
        let header = self.header();
        header.is_ended().then(|| header.ended_at.get())
    }

    /// Whether the coroutine belongs to the run of the calling coroutine.
    pub(crate) fn is_of_this_run(&self) -> bool {
        match self.header().home {
            Home::Thread(thread) => {
                thread == ThreadId::current()
                    || with_worker(|worker| worker.workers.has_thread(thread))
            }
            Home::Run(run) => with_worker(|worker| worker.workers.id() == run),
            Home::Unknown => false,
        }
    }

    /// Registers `waiter` for the end. Returns `false` if the coroutine has already ended.
    pub(crate) fn register(&self, waiter: Waiter) -> bool {
        self.header().register(waiter)
    }

    /// Undoes a [`register`](Self::register) whose wait is over.
    pub(crate) fn unregister(&self, waiter: &Waiter) {
        self.header().unregister(waiter);
    }

    /// Waits until the coroutine, `id`, has ended. Returns `false` if `deadline` passes first.
    pub(crate) fn wait(&self, id: Id, deadline: Option<Instant>) -> bool {
        park::spend();
        let header = self.header();
        let why = if self.is_of_this_run() { WAIT_HERE } else { WAIT_ELSEWHERE };
        while !header.is_ended() {
            let parker = park::waiter();
            if header.register(parker.into())
                && park::block(parker, why.with(id.short()), deadline) == Wake::TimedOut
            {
                header.unregister(&parker.into());
                return header.is_ended();
            }
        }
        true
    }

    /// Takes the result of a coroutine that has ended.
    ///
    /// # Panics
    ///
    /// When the coroutine has not ended.
    #[inline]
    pub(crate) fn take(self) -> Result<T, Failure> {
        assert!(self.is_ended(), "took the result of a coroutine that has not ended");
        let receiver = ManuallyDrop::new(self);
        // SAFETY: `ENDED`, read with `Acquire`, says that the result is written and the sender is
        // done with the packet. This receiver is used up.
        unsafe { receiver.0.take() }
    }
}

fn with_worker(f: impl FnOnce(&super::workers::WorkerHandle) -> bool) -> bool {
    // A thread that is ending belongs to no run any more.
    context::try_with(|scheduler| scheduler.with_worker(f)).unwrap_or(false)
}

impl<T> Drop for Receiver<T> {
    #[inline]
    fn drop(&mut self) {
        if self.header().state.fetch_or(DETACHED, Ordering::AcqRel) & ENDED != 0 {
            // SAFETY: as in `take`. Nothing uses this receiver after its drop.
            drop(unsafe { self.0.take() });
        }
    }
}

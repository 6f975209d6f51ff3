//! The only way in from another thread: each thread that waits has a mailbox.
//!
//! A wake for a coroutine of the calling thread goes straight to the scheduler. A wake for another
//! thread is a [`Message`] in that thread's [`Mailbox`]. A plain thread waits at a mailbox of the
//! same kind, so the waking side need not know whether the waiter is a coroutine or a thread.
//!
//! # How no message is missed
//!
//! The sender makes a system call only if the owner sleeps. There is one flag for each side:
//!
//! 1. The sender pushes its message, sets `pending`, and swaps `sleeper` to `AWAKE`. If the old
//!    value says that the owner sleeps, the sender wakes it.
//! 2. The owner sets `sleeper`, and then reads `pending`. It sleeps only if `pending` is false.
//!
//! Interleavings: all four accesses are `SeqCst`, so they have one order that both sides agree on.
//! If the owner reads `pending` before the sender sets it, `sleeper` was set earlier still, and the
//! sender's swap sees it (unless another sender's swap was first, which then wakes the owner).
//! Otherwise the owner sees `pending`. So either the sender wakes the owner, or the owner stays
//! awake.
//!
//! The sender takes step 1 under the lock of the inbox. A plain thread also looks for its message
//! and sets `sleeper` under that lock, and the condition variable releases it.
//!
//! # Why mailboxes are never freed
//!
//! A thread that ends passes its mailbox on to another thread. So the address of a mailbox is plain
//! data: it may be copied freely, and a stale copy does no harm. Each wait has a number that no
//! other wait at its mailbox ever has, so a late wake finds nothing to wake.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::{self, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::id::Id;
use super::scopes::{CancelReason, Level};
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use super::shared::{Condvar, Mutex, MutexGuard, thread_local};

thread_local! {
    // Neither has a destructor, so they may be used at any time, even in the last destructors of a
    // thread.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static LATE: Cell<Option<&'static Mailbox>> = const { Cell::new(None) };
}

/// Identifies a thread. It is not the address of the mailbox: the next thread may have that one
/// while the last destructors of this thread still hold locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ThreadId(usize);

impl ThreadId {
    /// The low bits of [`number`](Self::number), which are always zero. They are free for flags in
    /// the same word.
    pub(crate) const FREE: usize = 0b11_1111;
    /// No thread.
    pub(crate) const NONE: Self = Self(0);

    /// The calling thread. `NONE` if nothing has waited or run on it yet.
    #[inline]
    pub(crate) fn current() -> Self {
        Self(CURRENT.get())
    }

    /// The id as a word.
    #[inline]
    pub(crate) fn number(self) -> usize {
        self.0
    }

    /// The id whose [`number`](Self::number) this is.
    pub(crate) fn from_number(number: usize) -> Self {
        Self(number)
    }
}

/// A request from one thread to another.
pub(crate) enum Message {
    /// End this wait.
    Wake { slot: u32, wait: u64 },
    /// Give this coroutine its `park` token.
    Unpark { slot: u32, id: Id },
    /// Cancel a level of this coroutine.
    Cancel { slot: u32, id: Id, level: Level, reason: Option<CancelReason> },
    /// Forget a descriptor that was closed elsewhere, if `reactor` is still your reactor's number.
    Deregister { reactor: u64, token: u64 },
    /// Wakes the waiters of a descriptor, because its deadline has changed.
    Recheck { reactor: u64, token: u64 },
    /// Take back the timer of a future's sleep, if it is still this one.
    Disarm { slot: u32, number: u64 },
    /// Check whether there is a job to start, or whether the run is closing.
    Check,
    /// Answer the question of what your coroutines do.
    Asked,
}

impl Message {
    /// Whether it means nothing to a thread that runs no coroutines.
    fn is_for_coroutines(&self) -> bool {
        match self {
            Self::Wake { slot, .. } => *slot != Mailbox::THREAD,
            Self::Unpark { .. } | Self::Cancel { .. } | Self::Recheck { .. } => true,
            Self::Deregister { .. } | Self::Disarm { .. } | Self::Check | Self::Asked => false,
        }
    }
}

/// Messages for one thread.
pub(crate) struct Mailbox {
    // The number of the thread that has it, or had it last. It orders nothing, so no model check
    // needs to know of it.
    thread: AtomicUsize,
    inbox: Mutex<Inbox>,
    // How the owner sleeps, or is about to sleep: `AWAKE`, `IN_REACTOR` or `ON_CONDVAR`.
    sleeper: AtomicU8,
    // The inbox may have messages. While the owner is awake, it reads only this flag.
    pending: AtomicBool,
    // Whether `cancelling` has entries, or `cancelling_all` is set.
    any_cancelling: AtomicBool,
    arrived: Condvar,
    // How often the owner has taken messages.
    received: AtomicU64,
    next_wait: CacheLine<AtomicU64>,
}

/// On a cache line of its own: the owner writes it with each wait, and other threads use the rest.
#[repr(align(64))]
struct CacheLine<T>(T);

struct Inbox {
    messages: Vec<Message>,
    // The owner runs coroutines. If not, messages for them would pile up.
    running: bool,
    // The coroutines whose root is being cancelled: from the request until the owner has acted on
    // it.
    cancelling: Vec<Id>,
    // All coroutines of the owner are being cancelled.
    cancelling_all: bool,
    // Wakes an owner that sleeps in its reactor.
    waker: Option<Waker>,
}

/// The owner is awake, and reads `pending` before it sleeps.
const AWAKE: u8 = 0;
/// The owner sleeps in its reactor: it is a worker.
const IN_REACTOR: u8 = 1;
/// The owner sleeps on `arrived`: it is a plain thread, or a worker before or after its run.
const ON_CONDVAR: u8 = 2;

/// Mailboxes of threads that have ended.
static FREE: sync::Mutex<Vec<&'static Mailbox>> = sync::Mutex::new(Vec::new());

fn free() -> sync::MutexGuard<'static, Vec<&'static Mailbox>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// A thread's use of a mailbox. Dropping it makes the mailbox free for another thread.
#[derive(Debug)]
pub(crate) struct Lease(&'static Mailbox);

impl Deref for Lease {
    type Target = &'static Mailbox;

    #[inline]
    fn deref(&self) -> &&'static Mailbox {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        CURRENT.set(0);
        let late = {
            let mut inbox = self.0.inbox();
            inbox.waker = None;
            inbox.running = false;
            inbox.cancelling.clear();
            inbox.cancelling_all = false;
            self.0.any_cancelling.store(false, Ordering::Relaxed);
            mem::take(&mut inbox.messages)
        };
        drop(late);
        free().push(self.0);
    }
}

impl Mailbox {
    const fn new() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            inbox: Mutex::new(Inbox {
                messages: Vec::new(),
                running: false,
                cancelling: Vec::new(),
                cancelling_all: false,
                waker: None,
            }),
            sleeper: AtomicU8::new(AWAKE),
            pending: AtomicBool::new(false),
            any_cancelling: AtomicBool::new(false),
            arrived: Condvar::new(),
            received: AtomicU64::new(0),
            next_wait: CacheLine(AtomicU64::new(1)),
        }
    }

    fn acquire() -> &'static Self {
        const STEP: usize = ThreadId::FREE + 1;
        static NEXT: AtomicUsize = AtomicUsize::new(STEP);
        let mailbox = free().pop().unwrap_or_else(|| Box::leak(Box::new(Self::new())));
        mailbox.thread.store(NEXT.fetch_add(STEP, Ordering::Relaxed), Ordering::Relaxed);
        mailbox
    }

    /// A mailbox for the calling thread, which must not have one.
    pub(crate) fn lease() -> Lease {
        let mailbox = Self::acquire();
        CURRENT.set(mailbox.thread().number());
        Lease(mailbox)
    }

    /// A mailbox for the destructors of thread-locals that run after the lease has ended. It is
    /// unknown when the last of them has run, so this mailbox is never passed on.
    #[cold]
    pub(crate) fn late() -> &'static Self {
        let mailbox = LATE.get().unwrap_or_else(Self::acquire);
        LATE.set(Some(mailbox));
        mailbox
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing under this lock panics half-way.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that has this mailbox, or had it last.
    #[inline]
    pub(crate) fn thread(&self) -> ThreadId {
        ThreadId(self.thread.load(Ordering::Relaxed))
    }

    /// Sets the waker that ends a sleep of the owner in its reactor.
    pub(crate) fn attach(&self, waker: Waker) {
        self.inbox().waker = Some(waker);
    }

    /// A number that no other wait at this mailbox ever has. Only the owner calls this.
    #[inline]
    pub(crate) fn next_wait(&self) -> u64 {
        // Only one thread writes, so this need not be one atomic operation.
        let number = self.next_wait.0.load(Ordering::Relaxed);
        self.next_wait.0.store(number + 1, Ordering::Relaxed);
        number
    }

    /// Delivers a message, and wakes the owner if it sleeps.
    pub(crate) fn send(&self, message: Message) {
        let mut inbox = self.inbox();
        if !inbox.running && message.is_for_coroutines() {
            return;
        }
        if let Message::Cancel { id, level: Level::Root, .. } = message {
            inbox.cancelling.push(id);
            self.any_cancelling.store(true, Ordering::Relaxed);
        }
        inbox.messages.push(message);
        self.pending.store(true, Ordering::SeqCst);
        match self.sleeper.swap(AWAKE, Ordering::SeqCst) {
            AWAKE => {}
            IN_REACTOR => {
                let waker = inbox.waker.clone();
                drop(inbox);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            _ => self.arrived.notify_one(),
        }
    }

    /// Whether another thread has requested the cancellation of this coroutine's root, and the
    /// owner has not acted on it yet. Then nothing must be handed over to the coroutine any more.
    #[inline]
    pub(crate) fn is_cancelling(&self, id: Id) -> bool {
        self.any_cancelling.load(Ordering::Relaxed) && self.finds_cancelling(id)
    }

    #[cold]
    fn finds_cancelling(&self, id: Id) -> bool {
        let inbox = self.inbox();
        inbox.cancelling_all || inbox.cancelling.contains(&id)
    }

    /// Notes that all coroutines of the owner are being cancelled, or no longer.
    pub(crate) fn set_cancelling_all(&self, cancelling: bool) {
        let mut inbox = self.inbox();
        inbox.cancelling_all = cancelling;
        self.any_cancelling.store(cancelling || !inbox.cancelling.is_empty(), Ordering::Relaxed);
    }

    /// Announces that the owner will be asked to cancel this coroutine as a whole.
    pub(crate) fn announce_cancel(&self, id: Id) {
        let mut inbox = self.inbox();
        if inbox.running {
            inbox.cancelling.push(id);
            self.any_cancelling.store(true, Ordering::Relaxed);
        }
    }

    /// Notes whether the owner runs coroutines from now on. If not, messages for them are dropped.
    pub(crate) fn set_running(&self, running: bool) {
        let mut inbox = self.inbox();
        inbox.running = running;
        if !running {
            inbox.messages.retain(|message| !message.is_for_coroutines());
            inbox.cancelling.clear();
            self.any_cancelling.store(inbox.cancelling_all, Ordering::Relaxed);
        }
    }

    /// Notes that the owner has acted on a request to cancel this coroutine as a whole.
    pub(crate) fn has_cancelled(&self, id: Id) {
        let mut inbox = self.inbox();
        inbox.cancelling.retain(|other| *other != id);
        let any = inbox.cancelling_all || !inbox.cancelling.is_empty();
        self.any_cancelling.store(any, Ordering::Relaxed);
    }

    /// Whether there may be messages.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Whether the owner sleeps in its reactor, or is about to.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleeper.load(Ordering::SeqCst) == IN_REACTOR
    }

    /// Takes all messages. Only the owner calls this.
    pub(crate) fn receive(&self, into: &mut Vec<Message>) {
        let mut inbox = self.inbox();
        self.pending.store(false, Ordering::SeqCst);
        self.received.store(self.received() + 1, Ordering::Relaxed);
        mem::swap(&mut inbox.messages, into);
    }

    /// How often the owner has taken messages. While one is pending that was sent after a call of
    /// this, and the number stays the same, the owner has not come to its next tick.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Step 2 of the owner: announces its sleep. Returns whether it may sleep. If not, there are
    /// messages.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.sleeper.store(IN_REACTOR, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            self.stay_awake();
            return false;
        }
        true
    }

    /// Takes the announcement back. A sender that still sees it wakes the owner once too often,
    /// which does no harm.
    #[inline]
    pub(crate) fn stay_awake(&self) {
        self.sleeper.store(AWAKE, Ordering::Relaxed);
    }

    /// Blocks a plain thread, the owner, until its wait `number` is woken or `deadline` has passed.
    /// Returns whether it was woken.
    pub(crate) fn block(&self, number: u64, deadline: Option<Instant>) -> bool {
        let mut inbox = self.inbox();
        loop {
            let mut woken = false;
            inbox.messages.retain(|message| match message {
                // A wake with another number is for a wait that has ended. Messages for coroutines
                // stay for the loop: this may run in a destructor that the loop has called.
                Message::Wake { slot: Self::THREAD, wait } => {
                    woken |= *wait == number;
                    false
                }
                _ => true,
            });
            self.pending.store(!inbox.messages.is_empty(), Ordering::SeqCst);
            if woken {
                return true;
            }
            self.sleeper.store(ON_CONDVAR, Ordering::SeqCst);
            inbox = match deadline {
                None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.stay_awake();
                        return false;
                    }
                    self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The slot in wakes for the plain thread itself. No coroutine has it.
    pub(crate) const THREAD: u32 = u32::MAX;
}

#[cfg(all(test, not(plainsong_model)))]
mod tests {
    use super::*;

    fn len(mailbox: &Mailbox) -> usize {
        mailbox.inbox().messages.len()
    }

    #[test]
    fn messages_for_coroutines_do_not_pile_up_where_none_run() {
        let mailbox = Mailbox::new();
        let id = Id::from_number(1).unwrap();
        let send_all = || {
            mailbox.send(Message::Wake { slot: 1, wait: 1 });
            mailbox.send(Message::Unpark { slot: 1, id });
            mailbox.send(Message::Cancel { slot: 1, id, level: Level::Root, reason: None });
            mailbox.send(Message::Recheck { reactor: 1, token: 1 });
            mailbox.announce_cancel(id);
        };
        send_all();
        assert!(len(&mailbox) == 0 && !mailbox.is_cancelling(id));
        mailbox.set_running(true);
        send_all();
        assert!(len(&mailbox) == 4 && mailbox.is_cancelling(id));
        mailbox.send(Message::Deregister { reactor: 1, token: 1 });
        mailbox.send(Message::Wake { slot: Mailbox::THREAD, wait: 1 });
        mailbox.set_running(false);
        assert!(len(&mailbox) == 2 && !mailbox.is_cancelling(id));
    }
}

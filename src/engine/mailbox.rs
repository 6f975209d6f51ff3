//! The only way in from another thread: a mailbox for each thread that waits.
//!
//! A wake for a coroutine of the calling thread goes straight to the scheduler. One for another
//! thread is a [`Message`] in that thread's [`Mailbox`]. A plain thread waits at a mailbox of the
//! same kind, so a waker need not know which world the sleeper lives in.
//!
//! The sender makes a system call only if the owner sleeps. The protocol has one flag on each side:
//!
//! 1. The sender pushes its message, sets `pending`, then swaps `sleeper` to `AWAKE`.
//! 2. The owner sets `sleeper`, then reads `pending`, and sleeps only if that is false.
//!
//! All four accesses are `SeqCst`. So at least one side sees the other: either the sender finds the
//! owner asleep and wakes it, or the owner finds the message and stays awake.
//!
//! Mailboxes are never freed, only passed on to the next thread. That makes their addresses plain
//! data, free to copy and to keep too long. Each wait has a number that no other wait at its
//! mailbox has or will have, so a wake that comes late finds nothing to wake.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::ptr;
use std::sync::{self, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::id::Id;
use super::scopes::Level;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use super::shared::{Condvar, Mutex, MutexGuard, thread_local};

thread_local! {
    // Neither has a destructor: they may be used at any time, in the last destructors of a thread
    // too.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static LATE: Cell<Option<&'static Mailbox>> = const { Cell::new(None) };
}

/// Tells the threads that live at one time apart: it is the address of the thread's mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ThreadId(usize);

// The low bits of the number are free for those that keep flags in the same word.
const _: () = assert!(align_of::<Mailbox>() >= 1 << ThreadId::FREE_BITS);

impl ThreadId {
    /// How many low bits of [`number`](Self::number) are always zero.
    pub(crate) const FREE_BITS: u32 = 6;
    /// No thread.
    pub(crate) const NONE: Self = Self(0);

    /// The calling thread; `NONE` when nothing has waited or run on it yet.
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

/// What one thread can ask of another.
pub(crate) enum Message {
    /// End this wait.
    Wake { slot: u32, wait: u64 },
    /// Give this coroutine its `park` token.
    Unpark { slot: u32, id: Id },
    /// Cancel a level of this coroutine.
    Cancel { slot: u32, id: Id, level: Level },
    /// Forget a descriptor that was closed elsewhere, if `reactor` is still your reactor's number.
    Deregister { reactor: u64, token: u64 },
    /// Check whether there is a job to start, or whether the run is closing.
    Check,
}

/// Where one thread takes its messages.
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    // Where the owner sleeps, or is about to.
    sleeper: AtomicU8,
    // The inbox may have messages: while it is awake, the owner reads this flag alone.
    pending: AtomicBool,
    // Whether `cancelling` has any, or all coroutines of the owner are being cancelled.
    any_cancelling: AtomicBool,
    arrived: Condvar,
    next_wait: CacheLine<AtomicU64>,
}

/// On a cache line of its own: the owner writes it with each wait, and others read the rest.
#[repr(align(64))]
struct CacheLine<T>(T);

struct Inbox {
    messages: Vec<Message>,
    // The coroutines that are being cancelled as a whole: from the request until the owner has
    // acted on it.
    cancelling: Vec<Id>,
    // So are all of them.
    cancelling_all: bool,
    // Ends the sleep of an owner that sleeps in its reactor.
    waker: Option<Waker>,
}

/// The owner reads `pending` by itself.
const AWAKE: u8 = 0;
/// The owner sleeps in its reactor: it is a worker.
const IN_REACTOR: u8 = 1;
/// The owner sleeps on `arrived`: it is a plain thread, or a worker before or after its run.
const ON_CONDVAR: u8 = 2;

/// Mailboxes whose threads have ended.
static FREE: sync::Mutex<Vec<&'static Mailbox>> = sync::Mutex::new(Vec::new());

fn free() -> sync::MutexGuard<'static, Vec<&'static Mailbox>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// A thread's use of a mailbox. It is passed on to another thread when this is dropped.
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
            inbox: Mutex::new(Inbox {
                messages: Vec::new(),
                cancelling: Vec::new(),
                cancelling_all: false,
                waker: None,
            }),
            sleeper: AtomicU8::new(AWAKE),
            pending: AtomicBool::new(false),
            any_cancelling: AtomicBool::new(false),
            arrived: Condvar::new(),
            next_wait: CacheLine(AtomicU64::new(1)),
        }
    }

    fn acquire() -> &'static Self {
        free().pop().unwrap_or_else(|| Box::leak(Box::new(Self::new())))
    }

    /// A mailbox for the calling thread, which must not have one.
    pub(crate) fn lease() -> Lease {
        let mailbox = Self::acquire();
        CURRENT.set(ptr::from_ref(mailbox).addr());
        Lease(mailbox)
    }

    /// A mailbox for the destructors of thread-locals that run after the lease has ended. Nothing
    /// says when the last of them has run, so it is never passed on.
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

    /// The thread that has this mailbox.
    #[inline]
    pub(crate) fn thread(&'static self) -> ThreadId {
        ThreadId(ptr::from_ref(self).addr())
    }

    /// From now on the owner sleeps in its reactor, and `waker` ends that.
    pub(crate) fn attach(&self, waker: Waker) {
        self.inbox().waker = Some(waker);
    }

    /// A number that no other wait at this mailbox has. Only the owner calls this.
    #[inline]
    pub(crate) fn next_wait(&self) -> u64 {
        // Only one thread writes, so this need not be one atomic operation.
        let number = self.next_wait.0.load(Ordering::Relaxed);
        self.next_wait.0.store(number + 1, Ordering::Relaxed);
        number
    }

    /// Puts a message in, and wakes the owner if it sleeps.
    pub(crate) fn send(&self, message: Message) {
        let mut inbox = self.inbox();
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

    /// Whether the owner has been asked to cancel this coroutine as a whole, and has not done so
    /// yet: nothing must be handed over to it any more.
    #[inline]
    pub(crate) fn is_cancelling(&self, id: Id) -> bool {
        self.any_cancelling.load(Ordering::Relaxed) && {
            let inbox = self.inbox();
            inbox.cancelling_all || inbox.cancelling.contains(&id)
        }
    }

    /// The owner is asked to cancel all of its coroutines, or has done so.
    pub(crate) fn set_cancelling_all(&self, cancelling: bool) {
        let mut inbox = self.inbox();
        inbox.cancelling_all = cancelling;
        self.any_cancelling.store(cancelling || !inbox.cancelling.is_empty(), Ordering::Relaxed);
    }

    /// The owner has acted on a request to cancel this coroutine as a whole.
    pub(crate) fn has_cancelled(&self, id: Id) {
        let mut inbox = self.inbox();
        if let Some(at) = inbox.cancelling.iter().position(|other| *other == id) {
            inbox.cancelling.swap_remove(at);
        }
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
        mem::swap(&mut inbox.messages, into);
    }

    /// Asks senders to wake the owner. Returns whether it may sleep; if not, there are messages.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.sleeper.store(IN_REACTOR, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            self.stay_awake();
            return false;
        }
        true
    }

    /// Says to senders that the owner is awake.
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
                // A wake with another number was meant for a wait that has ended; one for a
                // coroutine is for the loop, should a destructor that the loop runs wait here.
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

    /// The slot in wakes for the plain thread itself; no coroutine has it.
    pub(crate) const THREAD: u32 = u32::MAX;
}

#[cfg(all(test, plainsong_model))]
mod model {
    use super::*;
    use shuttle::thread;

    /// Sends wakes from two threads to one that sleeps as a worker does: its sleep ends when it
    /// is rung for, which only a sender does who finds it asleep.
    #[test]
    fn a_worker_never_sleeps_on_a_message() {
        let body = || {
            let mailbox = Mailbox::acquire();
            let senders: Vec<_> = (0..2)
                .map(|slot| {
                    thread::spawn(move || {
                        for wait in 0..2 {
                            mailbox.send(Message::Wake { slot, wait });
                        }
                    })
                })
                .collect();
            let (mut received, mut messages) = (0, Vec::new());
            while received < 4 {
                if mailbox.is_pending() {
                    mailbox.receive(&mut messages);
                    received += messages.drain(..).count();
                } else if mailbox.prepare_to_sleep() {
                    while mailbox.sleeper.load(Ordering::SeqCst) == IN_REACTOR {
                        thread::yield_now();
                    }
                    mailbox.stay_awake();
                }
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        };
        shuttle::check_random(body, 3000);
        shuttle::check_pct(body, 3000, 3);
    }
}

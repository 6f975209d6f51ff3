//! The only way in from another thread: a door for each thread that waits.
//!
//! A wake for a coroutine of this thread goes straight to the scheduler. One for another
//! thread is a [`Message`] put through that thread's [`Door`]; only when that thread
//! sleeps is it also rung for, with one system call. Plain threads wait at doors of the same
//! kind, so whoever wakes need not know which world the sleeper lives in.
//!
//! Doors are never freed, only passed on: that makes a [`Waiter`] plain data, free to copy
//! and to keep too long. Each wait has a number that no other wait at that door has or will
//! have, so a wake that comes late finds nothing to wake.

use std::fmt;
use std::mem;
use std::ptr;
use std::sync::{self, Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::Instant;

use super::cancel::ScopeId;
use super::reactor::{Port, SourceKey};
use super::shared::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use super::shared::{Condvar, Mutex, MutexGuard};
use super::task::{Id, Wake};

/// What one thread can ask of another.
pub(crate) enum Message {
    /// End this wait.
    Wake { slot: u32, wait: u64 },
    /// Give this coroutine its `park` token.
    Unpark { slot: u32, id: Id },
    /// Cancel a scope of this coroutine, or its root.
    Cancel { slot: u32, id: Id, scope: Option<ScopeId> },
    /// Forget a descriptor that was closed elsewhere, if this is still your reactor's port. Weak, as a
    /// message to a thread that has ended lies at its door until that has another owner.
    Deregister { port: Weak<Port>, key: SourceKey },
    /// Look whether there is something to start, or the run closes.
    Look,
}

/// Where one thread takes its messages.
pub(crate) struct Door {
    inbox: Mutex<Inbox>,
    // Where the owner sleeps, or is about to: a sender must ring there.
    asleep: AtomicU8,
    // The inbox may have messages: the owner looks at this alone while it is awake.
    pending: AtomicBool,
    rung: Condvar,
    next_wait: Apart<AtomicU64>,
}

/// On a cache line of its own: the owner writes it with each wait, and others look at the rest.
#[repr(align(64))]
struct Apart<T>(T);

struct Inbox {
    messages: Vec<Message>,
    // Of a future: its task.
    waker: Option<Waker>,
    // The owner's reactor, once it has one.
    port: Option<Arc<Port>>,
}

/// The owner looks at `pending` by itself.
const AWAKE: u8 = 0;
/// The owner sleeps in its reactor: it is a worker.
const IN_REACTOR: u8 = 1;
/// The owner sleeps on `rung`: it is a plain thread, or a worker before or after its run.
const ON_CONDVAR: u8 = 2;

/// Nobody sleeps here: it is a future's, whose task is to be woken.
const IN_TASK: u8 = 3;

/// Doors whose threads have ended.
static FREE: sync::Mutex<Vec<&'static Door>> = sync::Mutex::new(Vec::new());

fn free() -> sync::MutexGuard<'static, Vec<&'static Door>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks runs code that could panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

/// The door of nobody.
static NOWHERE: Door = Door::new();

impl Door {
    const fn new() -> Self {
        Self {
            inbox: Mutex::new(Inbox { messages: Vec::new(), waker: None, port: None }),
            asleep: AtomicU8::new(AWAKE),
            pending: AtomicBool::new(false),
            rung: Condvar::new(),
            next_wait: Apart(AtomicU64::new(1)),
        }
    }

    /// A door for the calling thread.
    pub(crate) fn acquire() -> &'static Self {
        free().pop().unwrap_or_else(|| Box::leak(Box::new(Self::new())))
    }

    /// A door that is no thread's.
    pub(crate) fn nowhere() -> &'static Self {
        &NOWHERE
    }

    /// Passes the door on: its thread ends.
    pub(crate) fn release(&'static self) {
        let mut inbox = lock(&self.inbox);
        inbox.port = None;
        let late = mem::take(&mut inbox.messages);
        drop(inbox);
        drop(late);
        free().push(self);
    }

    /// From now on the owner sleeps in its reactor.
    pub(crate) fn attach(&self, port: Arc<Port>) {
        lock(&self.inbox).port = Some(port);
    }

    /// A number that no other wait at this door has. Only the owner calls this.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        // Only one thread writes, so this need not be one atomic operation.
        let number = self.next_wait.0.load(Ordering::Relaxed);
        self.next_wait.0.store(number + 1, Ordering::Relaxed);
        number
    }

    /// Puts a message through, and wakes the owner if it sleeps.
    pub(crate) fn send(&self, message: Message) {
        let mut inbox = lock(&self.inbox);
        inbox.messages.push(message);
        self.pending.store(true, Ordering::SeqCst);
        // Either we see that the owner is asleep, or it sees `pending` before it sleeps.
        match self.asleep.swap(AWAKE, Ordering::SeqCst) {
            AWAKE => {}
            IN_REACTOR => {
                let port = inbox.port.clone();
                drop(inbox);
                port.inspect(|port| port.ring());
            }
            IN_TASK => {
                let waker = inbox.waker.take();
                // A waker may be any code.
                drop(inbox);
                waker.into_iter().for_each(Waker::wake);
            }
            _ => self.rung.notify_one(),
        }
    }

    /// Whether messages may be waiting.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// Whether the owner sleeps in its reactor, or is about to.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst) == IN_REACTOR
    }

    /// Takes all messages. Only the owner calls this.
    pub(crate) fn receive(&self, into: &mut Vec<Message>) {
        let mut inbox = lock(&self.inbox);
        self.pending.store(false, Ordering::SeqCst);
        mem::swap(&mut inbox.messages, into);
    }

    /// Tells senders to ring. Returns whether the owner may sleep; if not, messages wait.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(IN_REACTOR, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            self.wake_up();
            return false;
        }
        true
    }

    /// Tells senders that ringing is not needed.
    #[inline]
    pub(crate) fn wake_up(&self) {
        self.asleep.store(AWAKE, Ordering::Relaxed);
    }

    /// Blocks a plain thread until its wait is woken or `deadline` has passed.
    fn block(&self, wait: u64, deadline: Option<Instant>) -> Wake {
        let mut inbox = lock(&self.inbox);
        loop {
            let mut woken = false;
            inbox.messages.retain(|message| match message {
                // A wake with another number was meant for a wait that has ended; one for a coroutine
                // is for the loop to see, should it be a destructor of the loop's that waits.
                Message::Wake { slot: Waiter::THREAD, wait: number } => {
                    woken |= *number == wait;
                    false
                }
                _ => true,
            });
            self.pending.store(!inbox.messages.is_empty(), Ordering::SeqCst);
            if woken {
                return Wake::Ready;
            }
            self.asleep.store(ON_CONDVAR, Ordering::SeqCst);
            inbox = match deadline {
                None => self.rung.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.wake_up();
                        return Wake::TimedOut;
                    }
                    self.rung.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// A door for the waits of a future: whoever polls it, wherever, its task is woken.
#[derive(Debug)]
pub(crate) struct TaskDoor(&'static Door);

impl TaskDoor {
    pub(crate) fn acquire() -> Self {
        Self(Door::acquire())
    }

    /// A waiter for the next wait. What wakes it wakes the task last told.
    pub(crate) fn waiter(&mut self) -> Waiter {
        Waiter::thread(self.0)
    }

    /// Tells whom to wake. The caller looks at what it waits for after this, not before.
    pub(crate) fn watch(&mut self, waker: &Waker) {
        let waker = waker.clone();
        let mut inbox = lock(&self.0.inbox);
        let late = mem::take(&mut inbox.messages);
        let before = inbox.waker.replace(waker);
        self.0.asleep.store(IN_TASK, Ordering::SeqCst);
        drop(inbox);
        drop((late, before));
    }
}

impl Drop for TaskDoor {
    fn drop(&mut self) {
        let waker = lock(&self.0.inbox).waker.take();
        self.0.wake_up();
        self.0.release();
        drop(waker);
    }
}

/// One wait of one coroutine or plain thread: whoever holds this can end it, once.
#[derive(Clone, Copy)]
pub(crate) struct Waiter {
    door: &'static Door,
    wait: u64,
    // As wide as its neighbours, so that what copies this loads what was stored: a load that is wider than the
    // store before it waits for that store.
    slot: u64,
}

impl Waiter {
    /// The slot of a plain thread, which is no coroutine's.
    const THREAD: u32 = u32::MAX;

    #[inline]
    pub(crate) fn task(door: &'static Door, slot: u32, wait: u64) -> Self {
        Self { door, wait, slot: slot.into() }
    }

    #[inline]
    pub(crate) fn thread(door: &'static Door) -> Self {
        Self::task(door, Self::THREAD, door.number())
    }

    /// The coroutine's slot and the wait's number, if it is one of the thread with this door.
    #[inline]
    pub(crate) fn local_to(&self, door: &'static Door) -> Option<(u32, u64)> {
        (ptr::eq(self.door, door) && !self.is_thread()).then_some((self.slot as u32, self.wait))
    }

    #[inline]
    pub(crate) fn is_thread(&self) -> bool {
        self.slot == u64::from(Self::THREAD)
    }

    /// What [`context::here`](super::context::here) says on the waiter's thread.
    pub(crate) fn thread_number(&self) -> usize {
        ptr::from_ref(self.door).addr()
    }

    /// Ends the wait from another thread.
    #[inline]
    pub(crate) fn send(&self) {
        self.door.send(Message::Wake { slot: self.slot as u32, wait: self.wait });
    }

    /// Blocks the plain thread that this stands for.
    #[inline]
    pub(crate) fn block(&self, deadline: Option<Instant>) -> Wake {
        debug_assert!(self.is_thread());
        self.door.block(self.wait, deadline)
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.door, other.door) && self.wait == other.wait
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("slot", &self.slot).field("wait", &self.wait).finish()
    }
}

/// Those who wait for one thing, first come first. Almost always there is one at most.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    first: Option<Waiter>,
    // A word as long as there is none.
    #[expect(clippy::box_collection)]
    rest: Option<Box<Vec<Waiter>>>,
}

impl Waiters {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, waiter: Waiter) {
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.rest.get_or_insert_default().push(waiter);
        }
    }

    /// Removes a waiter that gave up; one that was taken already is not here.
    pub(crate) fn remove(&mut self, waiter: Waiter) {
        if self.first == Some(waiter) {
            let next = self.rest.as_mut().filter(|rest| !rest.is_empty());
            self.first = next.map(|rest| rest.remove(0));
        } else if let Some(rest) = &mut self.rest {
            rest.retain(|other| *other != waiter);
        }
    }

    /// Moves all of them to the end of `to`.
    #[inline]
    pub(crate) fn append_to(&mut self, to: &mut Vec<Waiter>) {
        if let Some(first) = self.first.take() {
            to.push(first);
            if let Some(rest) = &mut self.rest {
                to.append(rest);
            }
        }
    }

    /// Takes all of them.
    #[inline]
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        self.first.take().into_iter().chain(self.rest.take().into_iter().flat_map(|rest| *rest))
    }
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
            let door = Door::acquire();
            let senders: Vec<_> = (0..2)
                .map(|slot| {
                    thread::spawn(move || {
                        for wait in 0..2 {
                            door.send(Message::Wake { slot, wait });
                        }
                    })
                })
                .collect();
            let (mut received, mut messages) = (0, Vec::new());
            while received < 4 {
                if door.is_pending() {
                    door.receive(&mut messages);
                    received += messages.drain(..).count();
                } else if door.fall_asleep() {
                    while door.asleep.load(Ordering::SeqCst) == IN_REACTOR {
                        thread::yield_now();
                    }
                    door.wake_up();
                }
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        };
        shuttle::check_random(body, 3000);
        shuttle::check_pct(body, 3000, 3);
    }
}

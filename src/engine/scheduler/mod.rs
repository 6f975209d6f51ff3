//! One thread's scheduler: the ready queue, the loop, and how a coroutine is parked and woken.
//!
//! Read [`Scheduler::run`] first. There is one place for each step in the life of a coroutine:
//! [`add`](Scheduler::add), [`park`](Scheduler::park), [`wake_task`](Scheduler::wake_task),
//! [`resume`](Scheduler::resume) and [`retire`](Scheduler::retire).
//!
//! No borrow of scheduler state is held while a coroutine runs, and no user code runs in the loop.

#![allow(unsafe_code)]

mod calls;
mod clock;
mod deadlock;
mod idle;
mod table;
mod unwinding;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::time::Instant;

use super::coroutine::Suspended;
use super::current;
use super::id::Id;
use super::mailbox::{Lease, Mailbox};
use super::overflow::{self, AlternateStack};
use super::reactor::{EVENTS, Reactor};
use super::ready::ReadyQueue;
use super::scopes::ScopeId;
use super::stack::{self, Stack, StackPool};
use super::task::{CancelWait, Flag, Task, Wait, Wake};
use super::timer::Timers;
use super::waiter::{Parker, Waiter};
use super::workers::{Idle, WorkerHandle};

pub(crate) use self::calls::{Call, CallKey};

/// How many operations a coroutine may complete in one turn without waiting. Then it yields, so
/// that a socket that is always ready does not starve the other coroutines. (tokio's figure.)
const BUDGET: u32 = 128;
/// Turns between two ticks, while the ready queue is never empty.
const TURNS_PER_TICK: u32 = 128;
const _: () = assert!(EVENTS >= TURNS_PER_TICK as usize);

/// The action of a timer.
#[derive(Clone, Copy, Debug)]
enum Alarm {
    /// Ends the wait of the task in this slot.
    Wake(u32),
    /// Cancels a scope of the task in this slot.
    Cancel(u32, ScopeId),
    /// Makes a coroutine of the call in this slot.
    Call(u32),
}

/// Runs the coroutines of one thread.
pub(crate) struct Scheduler {
    mailbox: OnceCell<Lease>,
    ready: ReadyQueue,
    tasks: table::TaskTable,
    clock: clock::Clock,
    timers: RefCell<Timers<Alarm>>,
    calls: calls::Calls,
    reactor: OnceCell<Reactor>,
    stacks: StackPool,
    // Set when the first stack is taken.
    alternate: OnceCell<Option<AlternateStack>>,
    unwinding: unwinding::Unwinding,
    outside: deadlock::Outside,
    idle: idle::State,
    worker: RefCell<Option<WorkerHandle>>,
    // Turns since the last tick.
    turns: Cell<u32>,
    next_id: Cell<u64>,
    next_scope: Cell<u32>,
    ends: Cell<u64>,
    stack_size: Cell<usize>,
    running: Cell<bool>,
    closing: Cell<bool>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("tasks", &self.tasks.len())
            .field("timers", &self.timers.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    pub(super) const fn new() -> Self {
        Self {
            mailbox: OnceCell::new(),
            ready: ReadyQueue::new(),
            tasks: table::TaskTable::new(),
            clock: clock::Clock::new(),
            timers: RefCell::new(Timers::new()),
            calls: calls::Calls::new(),
            reactor: OnceCell::new(),
            stacks: StackPool::new(),
            alternate: OnceCell::new(),
            unwinding: unwinding::Unwinding::new(),
            outside: deadlock::Outside::new(),
            idle: idle::State::new(),
            worker: RefCell::new(None),
            turns: Cell::new(0),
            next_id: Cell::new(0),
            next_scope: Cell::new(0),
            ends: Cell::new(0),
            stack_size: Cell::new(stack::DEFAULT_SIZE),
            running: Cell::new(false),
            closing: Cell::new(false),
        }
    }

    // ---- a run, entered from the thread's own stack ----

    /// Prepares to run coroutines, as one worker of a run. Dropping the guard ends that.
    ///
    /// # Errors
    ///
    /// When this thread already runs a scheduler, or the kernel refuses the reactor.
    pub(super) fn start(
        &self,
        stack_size: usize,
        strict: bool,
        worker: WorkerHandle,
    ) -> io::Result<impl Drop + '_> {
        struct Stop<'a>(&'a Scheduler);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.running.set(false);
                drop(self.0.worker.take());
            }
        }
        if self.running.get() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a plainsong runtime runs on this thread already: call `spawn` instead, or \
                 start the other runtime on a thread of its own",
            ));
        }
        let mailbox = self.mailbox();
        if self.reactor.get().is_none() {
            let reactor = Reactor::new()?;
            mailbox.attach(reactor.waker());
            let _ = self.reactor.set(reactor);
        }
        // Deadlines count from here, so no deadline that matters is earlier.
        self.clock.start();
        self.stack_size.set(stack_size);
        self.outside.set_strict(strict);
        // Messages for an earlier run have no meaning any more.
        self.receive();
        mailbox.set_cancelling_all(false);
        self.closing.set(worker.workers.enter(worker.number, mailbox));
        self.worker.replace(Some(worker));
        self.unwinding.start();
        self.running.set(true);
        Ok(Stop(self))
    }

    /// The loop. Runs until no worker of the run has a coroutine, a call or a job left.
    pub(super) fn run(&self) {
        loop {
            while self.run_next() {
                self.turns.set(self.turns.get() + 1);
                if self.turns.get() >= TURNS_PER_TICK {
                    self.turns.set(0);
                    current::leave();
                    self.tick();
                }
            }
            current::leave();
            if self.start_job(false) || self.steal() {
                continue;
            }
            // A pending call counts, because it will become a coroutine.
            let idle = self.tasks.is_empty() && self.calls.is_empty();
            match self.with_worker(|worker| idle.then(|| worker.workers.idle(worker.number))) {
                Some(Idle::HasJobs) => continue,
                Some(Idle::Over) => break,
                Some(Idle::Counted) | None => self.sleep(),
            }
            if idle && self.with_worker(|worker| worker.workers.leave_idle(worker.number)) {
                break;
            }
        }
        debug_assert_eq!(
            self.timers.borrow().len(),
            0,
            "every wait and scope takes its timer back"
        );
    }

    /// Calls `f`, which must be short and run no user code, with this thread's place in its run.
    #[inline]
    pub(crate) fn with_worker<R: Default>(&self, f: impl FnOnce(&WorkerHandle) -> R) -> R {
        self.worker.borrow().as_ref().map(f).unwrap_or_default()
    }

    /// Gives the first ready coroutine its turn. Returns `false` when none is ready.
    #[inline]
    fn run_next(&self) -> bool {
        let Some(task) = self.ready.pop() else { return false };
        self.resume(task);
        true
    }

    /// One turn of one coroutine: every switch goes through here.
    #[inline]
    fn resume(&self, task: NonNull<Task>) {
        current::set_budget(BUDGET);
        // SAFETY: a task that was in the ready queue is alive, and only `retire` and `abandon` end
        // that, below. Both call `current::leave` first. This is a pointer and not a reference,
        // because the task may be freed before this function returns.
        //
        // The task is in no queue while it is here, and its coroutine is not running: a running
        // coroutine is put back only below, and a parked one only once, by `wake_task`.
        let (suspended, slot) = unsafe {
            let task = task.as_ptr();
            current::enter(task);
            ((*task).coroutine.resume(), (*task).slot.get())
        };
        match suspended {
            Some(Suspended::Ready) => self.push_ready(task),
            Some(Suspended::Parked) => {}
            Some(Suspended::Abandoned) => self.abandon(slot),
            None => self.retire(slot),
        }
    }

    #[inline]
    fn push_ready(&self, task: NonNull<Task>) {
        // SAFETY: the task is not in the queue: the caller has just added it, run it, or ended its
        // park.
        //
        // It lives until its coroutine has ended, because the table owns it. It stays where it is,
        // because it is boxed.
        unsafe { self.ready.push(task) };
    }

    /// Frees the task of a coroutine that has ended.
    #[inline]
    fn retire(&self, slot: u32) {
        current::leave();
        let Some(task) = self.tasks.remove(slot) else { return };
        // The coroutine has dropped all locals that it could. The destructors of the remaining ones
        // are user code, which must not run here.
        mem::forget(task.take_locals());
        if let Some(stack) = task.coroutine.into_stack() {
            self.stacks.put(stack);
        }
    }

    /// Forgets a coroutine that will never end, and leaks all of it.
    #[cold]
    fn abandon(&self, slot: u32) {
        current::leave();
        let timers = self.tasks.with(slot, |task| task.scopes.timers());
        for timer in timers.into_iter().flatten() {
            self.timers.borrow_mut().cancel(timer);
        }
        self.tasks.leak(slot);
    }

    // ---- what this thread has ----

    /// This thread's mailbox.
    #[inline]
    pub(crate) fn mailbox(&self) -> &'static Mailbox {
        self.mailbox.get_or_init(Mailbox::lease)
    }

    /// A stack of `size` bytes. Its overflow will be reported.
    #[inline]
    pub(crate) fn take_stack(&self, size: usize) -> io::Result<Stack> {
        self.alternate.get_or_init(overflow::protect_thread);
        self.stacks.take(size)
    }

    /// Takes back a stack that nothing runs on any more.
    pub(crate) fn put_stack(&self, stack: Stack) {
        self.stacks.put(stack);
    }

    /// The stack size of coroutines that do not ask for one.
    pub(crate) fn stack_size(&self) -> usize {
        self.stack_size.get()
    }

    /// This thread's reactor, once it has run coroutines.
    #[inline]
    pub(crate) fn reactor(&self) -> Option<&Reactor> {
        self.reactor.get()
    }

    /// Whether a run is under way on this thread, so that coroutines can be spawned.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// The time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// A number larger than all earlier ones of this thread. It orders the ends of coroutines.
    #[inline]
    pub(crate) fn next_end(&self) -> u64 {
        let end = self.ends.get() + 1;
        self.ends.set(end);
        end
    }

    /// An id for a new coroutine.
    #[inline]
    pub(crate) fn allocate_id(&self) -> Id {
        Id::allocate(&self.next_id)
    }

    // ---- what coroutines and their wakers call ----

    /// Adds a coroutine to the end of the ready queue.
    #[inline]
    pub(crate) fn add(&self, task: Task) -> u32 {
        self.tasks.insert(task, |task| {
            if self.closing.get() {
                task.scopes.request(super::scopes::Level::Root);
            }
            self.push_ready(task.into());
        })
    }

    /// Names the next wait of `task`, the running coroutine, which must park next.
    #[inline]
    pub(crate) fn prepare(&self, task: &Task) -> Parker {
        let mailbox = self.mailbox();
        let wait = mailbox.next_wait();
        task.wait.set(wait);
        Parker::coroutine(mailbox, task.slot.get(), wait)
    }

    /// Parks `task`, the running coroutine, until its wait is woken or `deadline` has passed.
    /// Returns at once if the wait was woken between [`prepare`](Self::prepare) and this call.
    #[inline(always)]
    pub(crate) fn park(&self, task: &Task, why: Wait, deadline: Option<Instant>) -> Wake {
        if task.wait.get() != 0 {
            if let Some(deadline) = deadline {
                let alarm = Alarm::Wake(task.slot.get());
                let key = self.timers.borrow_mut().add(self.clock.nanos_at(deadline), alarm);
                task.timer.set(Some(key));
            }
            task.waiting.set(why);
            task.since.set(self.clock.last_millis());
            task.parked.set(true);
            let counted = self.outside.enter(why);
            self.suspend(task, Suspended::Parked);
            self.outside.leave(counted);
            task.waiting.set(Wait::NONE);
        }
        task.wake.get()
    }

    /// [`park`](Self::park), with a place in a queue. A cancellation takes it out of the queue.
    #[inline(always)]
    pub(crate) fn park_in_queue(
        &self,
        task: &Task,
        why: Wait,
        deadline: Option<Instant>,
        place: &dyn CancelWait,
    ) -> Wake {
        // The lifetime of the place is erased. That is sound because the task forgets the place
        // below, before the lifetime ends. A coroutine is abandoned only while it unwinds, never
        // while it is parked here.
        task.place.set(Some(erase(place)));
        let wake = self.park(task, why, deadline);
        task.place.set(None);
        wake
    }

    /// Yields because the budget is spent.
    #[cold]
    pub(crate) fn overspent(&self, task: &Task) {
        if !task.scopes.are_waits_forbidden() {
            // The operations took time, so a tick is due.
            self.turns.set(TURNS_PER_TICK);
            self.yield_now(task);
        }
    }

    /// Lets the other ready coroutines run before `task`, the running one.
    #[inline]
    pub(crate) fn yield_now(&self, task: &Task) {
        self.check_cancelled(task);
        self.suspend(task, Suspended::Ready);
        self.check_cancelled(task);
    }

    /// Switches to the loop. `how` says when to resume `task`, the running coroutine.
    #[inline(always)]
    fn suspend(&self, task: &Task, how: Suspended) {
        if std::thread::panicking() {
            return self.suspend_unwinding(task, how);
        }
        // SAFETY: the callers pass the task that runs.
        unsafe { task.suspend(how) };
    }

    /// Ends a wait, wherever it is.
    #[inline]
    pub(crate) fn wake(&self, waiter: Waiter) {
        match waiter {
            Waiter::Parked(parker) => match parker.local_to(self.mailbox()) {
                Some((slot, wait)) => self.unpark(slot, wait),
                None => parker.send(),
            },
            Waiter::Future(cell) => cell.wake(),
        }
    }

    /// Ends a wait of a coroutine of this thread, if it is still the same wait.
    #[inline]
    pub(crate) fn unpark(&self, slot: u32, wait: u64) {
        self.tasks.with(slot, |task| {
            if wait != 0 && task.wait.get() == wait {
                self.wake_task(task, Wake::Ready);
            }
        });
    }

    /// Ends the wait of a task of this thread.
    #[inline]
    fn wake_task(&self, task: &Task, wake: Wake) {
        task.wait.set(0);
        task.wake.set(wake);
        if let Some(key) = task.timer.take() {
            self.timers.borrow_mut().cancel(key);
        }
        if task.parked.replace(false) {
            self.push_ready(task.into());
        }
    }

    /// `thread::unpark`, for a coroutine of this thread.
    pub(crate) fn give_park_token(&self, slot: u32, id: Id) {
        self.tasks.find(slot, id, |task| {
            task.flags.set(Flag::ParkToken, true);
            if task.flags.has(Flag::InPark) && task.wait.get() != 0 {
                self.wake_task(task, Wake::Ready);
            }
        });
    }

    /// Calls `f` with the coroutine in this slot, if it is still this one. `f` must run no user
    /// code.
    pub(crate) fn find<R>(&self, slot: u32, id: Id, f: impl FnOnce(&Task) -> R) -> Option<R> {
        self.tasks.find(slot, id, f)
    }

    /// Forgets a descriptor, if `reactor` is the number of this thread's reactor, and wakes its
    /// waiters.
    pub(crate) fn deregister(&self, reactor: u64, token: u64) {
        if let Some(ours) = self.reactor.get().filter(|ours| ours.number() == reactor) {
            for waiter in ours.deregister(token) {
                self.wake(waiter);
            }
        }
    }
}

fn erase<'a>(place: &'a (dyn CancelWait + 'a)) -> NonNull<dyn CancelWait> {
    // SAFETY: the two types differ only in a lifetime. Both are pointers, so only `unsafe` code can
    // dereference them, and that code argues that the place is still alive.
    unsafe { mem::transmute::<NonNull<dyn CancelWait + 'a>, NonNull<dyn CancelWait>>(place.into()) }
}

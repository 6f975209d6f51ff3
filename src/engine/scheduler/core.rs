//! One thread's scheduler: its parts, and how a coroutine is added, parked and woken.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::thread;
use std::time::Instant;

use super::super::cancel;
use super::super::coroutine::Suspended;
use super::super::current;
use super::super::id::Id;
use super::super::mailbox::{Lease, Mailbox};
use super::super::reactor::{EVENTS, Reactor};
use super::super::ready::ReadyQueue;
use super::super::scopes::Level;
use super::super::settings::{Hooks, Moment};
use super::super::stack::{self, Purpose, Stack, StackPool};
use super::super::task::{CancelWait, Flag, Task, Wait, Wake};
use super::super::waiter::{Parker, Waiter};
use super::super::workers::WorkerHandle;
use super::alarms::{Alarm, Alarms};
use super::calls::Calls;
use super::clock::Clock;
use super::host::Host;
use super::observer::Observer;
use super::outside::Outside;
use super::pace::Pace;
use super::refused::Refused;
use super::sleeps::{SleepKey, Sleeps};
use super::table::TaskTable;
use super::unwinding::Unwinding;

/// How many operations a coroutine may complete in one turn without waiting. Then it yields, so
/// that a socket that is always ready does not starve the other coroutines. (tokio's figure.)
pub(super) const BUDGET: u32 = 128;

/// Turns between two ticks, while the ready queue is never empty.
pub(super) const TURNS_PER_TICK: u32 = 128;
const _: () = assert!(EVENTS >= TURNS_PER_TICK as usize);

/// Runs the coroutines of one thread.
pub(crate) struct Scheduler {
    pub(super) mailbox: OnceCell<Lease>,
    pub(super) ready: ReadyQueue,
    pub(super) tasks: TaskTable,
    pub(super) clock: Clock,
    pub(super) alarms: Alarms,
    pub(super) calls: Calls,
    pub(super) refused: Refused,
    pub(super) sleeps: Sleeps,
    pub(super) reactor: OnceCell<Reactor>,
    pub(super) stacks: StackPool,
    pub(super) grown: StackPool,
    pub(super) lent: StackPool,
    pub(super) unwinding: Unwinding,
    pub(super) outside: Outside,
    pub(super) pace: Pace,
    pub(super) host: Host,
    pub(super) observer: Observer,
    pub(super) worker: RefCell<Option<WorkerHandle>>,
    pub(super) hooks: RefCell<Hooks>,
    // Whether there are hooks.
    pub(super) hooked: Cell<bool>,
    // Turns until the next tick.
    pub(super) turns_left: Cell<u32>,
    // How many turns there are between two ticks.
    pub(super) tick_after: Cell<u32>,
    pub(super) next_id: Cell<u64>,
    pub(super) next_scope: Cell<u32>,
    pub(super) ends: Cell<u64>,
    pub(super) stack_size: Cell<usize>,
    pub(super) running: Cell<bool>,
    pub(super) closing: Cell<bool>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("tasks", &self.tasks.len())
            .field("timers", &self.alarms.len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    pub(in super::super) const fn new() -> Self {
        Self {
            mailbox: OnceCell::new(),
            ready: ReadyQueue::new(),
            tasks: TaskTable::new(),
            clock: Clock::new(),
            alarms: Alarms::new(),
            calls: Calls::new(),
            refused: Refused::new(),
            sleeps: Sleeps::new(),
            reactor: OnceCell::new(),
            stacks: StackPool::new(Purpose::Own),
            grown: StackPool::new(Purpose::Grown),
            lent: StackPool::new(Purpose::Lent),
            unwinding: Unwinding::new(),
            outside: Outside::new(),
            pace: Pace::new(),
            host: Host::new(),
            observer: Observer::new(),
            worker: RefCell::new(None),
            hooks: RefCell::new(None),
            hooked: Cell::new(false),
            turns_left: Cell::new(TURNS_PER_TICK),
            tick_after: Cell::new(TURNS_PER_TICK),
            next_id: Cell::new(0),
            next_scope: Cell::new(0),
            ends: Cell::new(0),
            stack_size: Cell::new(stack::DEFAULT_SIZE),
            running: Cell::new(false),
            closing: Cell::new(false),
        }
    }

    // ---- what this thread has ----

    /// This thread's mailbox.
    #[inline]
    pub(crate) fn mailbox(&self) -> &'static Mailbox {
        self.mailbox.get_or_init(Mailbox::lease)
    }

    /// A stack of `size` bytes.
    #[inline]
    pub(crate) fn take_stack(&self, size: usize) -> io::Result<Stack> {
        self.stacks.take(size)
    }

    /// Takes back a stack that nothing runs on any more.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn put_stack(&self, stack: Stack) {
        if self.refused.is_full() {
            self.stacks.put(stack);
        } else {
            self.put_in_reserve(stack);
        }
    }

    #[cold]
    fn put_in_reserve(&self, stack: Stack) {
        if self.refused.lacks(&stack) {
            self.refused.fill(stack);
            self.end_refused();
        } else {
            self.stacks.put(stack);
        }
    }

    /// A stack of `size` bytes for a call that finds too little left on its own.
    pub(crate) fn take_grown_stack(&self, size: usize) -> io::Result<Stack> {
        self.grown.take(size)
    }

    /// Takes such a stack back, and gives most of its pages to the system.
    pub(crate) fn put_grown_stack(&self, stack: Stack) {
        self.grown.put(stack);
        while self.grown.trim() {}
    }

    /// A stack of `size` bytes for a short call: the one that was used last.
    #[inline]
    pub(crate) fn take_lent_stack(&self, size: usize) -> io::Result<Stack> {
        self.lent.take(size)
    }

    /// Takes such a stack back. It keeps its pages for the next call. Those of the others, which
    /// calls have needed that waited, go to the system.
    #[inline]
    pub(crate) fn put_lent_stack(&self, stack: Stack) {
        while self.lent.untrimmed() && self.lent.trim() {}
        self.lent.put(stack);
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

    /// Calls `f`, which must be short and run no user code, with this thread's place in its run.
    #[inline]
    pub(crate) fn with_worker<R: Default>(&self, f: impl FnOnce(&WorkerHandle) -> R) -> R {
        self.worker.borrow().as_ref().map(f).unwrap_or_default()
    }

    /// How many turns there were in this run.
    pub(super) fn turns(&self) -> u64 {
        self.observer.turns.get().wrapping_sub(self.turns_left.get().into())
    }

    /// Sets how many turns are left until the next tick.
    pub(super) fn set_turns_left(&self, turns: u32) {
        let before = self.turns_left.replace(turns);
        let counted = self.observer.turns.get().wrapping_add(turns.into());
        self.observer.turns.set(counted.wrapping_sub(before.into()));
    }

    // ---- a coroutine, from added to woken ----

    /// Adds a coroutine to the end of the ready queue.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn add(&self, task: Task) -> u32 {
        self.observer.spawned.set(self.observer.spawned.get() + 1);
        let slot = self.tasks.insert(task, |task| {
            if self.hooked.get() {
                task.scopes.set_hooked();
            }
            if self.observer.is_on() {
                self.observer.spawned(task);
            }
            if self.closing.get() {
                task.scopes.request(Level::Root, None);
            }
            self.push_ready(task);
        });
        self.host.notify();
        slot
    }

    #[inline]
    fn push_ready(&self, task: &Task) {
        // The task is not in the queue: the caller has just added it, run it, or ended its park.
        //
        // SAFETY: the reference is used until `run_next` has taken it out of the queue and given
        // the coroutine its turn. The task lives for longer than that, because the table owns it
        // until the coroutine has ended. It stays where it is, because it is boxed.
        self.ready.push(unsafe { &*ptr::from_ref(task) });
    }

    /// Gives the first ready coroutine its turn: every switch goes through here. Returns `false`
    /// when none is ready.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn run_next<const OBSERVED: bool>(&self) -> bool {
        // From `retire` and `abandon` on, the reference is not used any more.
        let Some(task) = self.ready.pop() else { return false };
        current::set_budget(BUDGET);
        // The task lives for as long as it is the current one: only `retire` and `abandon` end it,
        // and both call `current::leave` first.
        //
        // A closure that has got the task from `current` and suspends keeps the reference on the
        // coroutine's own stack. It is used again only when that coroutine runs, and a task is
        // freed only after its coroutine has ended. On a generator's stack, which another coroutine
        // may resume, only scopes keep one across user code, and `Yielder` refuses to yield while
        // one is open.
        current::enter(task);
        if OBSERVED {
            self.observer.turn_begins(task);
        }
        // SAFETY: the task has just been in the queue, so its coroutine is not running: a running
        // coroutine is put back only below, and a parked one only once, by `wake_task`.
        let suspended = unsafe { task.coroutine.resume() };
        if OBSERVED {
            self.observer.turn_ends(task, suspended);
        }
        match suspended {
            Some(Suspended::Ready) => self.push_ready(task),
            Some(Suspended::Parked) => {}
            Some(Suspended::Abandoned) => self.abandon(task.slot.get()),
            None => self.retire(task.slot.get()),
        }
        true
    }

    /// Frees the task of a coroutine that has ended.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn retire(&self, slot: u32) {
        current::leave();
        let stack = self.tasks.remove(slot, |task| {
            // The coroutine has dropped all locals that it could. The destructors of the remaining
            // ones are user code, which must not run here.
            task.forget_locals();
            task.coroutine.into_stack()
        });
        if let Some(stack) = stack.flatten() {
            self.put_stack(stack);
        }
    }

    /// Forgets a coroutine that will never end, and leaks all of it.
    #[cold]
    fn abandon(&self, slot: u32) {
        current::leave();
        let scopes = self.tasks.with(slot, |task| task.scopes.settings());
        scopes.iter().flatten().for_each(|settings| self.undo(settings));
        self.tasks.leak(slot);
        // It may have been dropping them.
        self.drop_unmade();
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
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn park(&self, task: &Task, why: Wait, deadline: Option<Instant>) -> Wake {
        self.park_until(task, why, deadline, |deadline| deadline)
    }

    /// [`park`](Self::park), until what `limit` makes of the deadline.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn park_until(
        &self,
        task: &Task,
        why: Wait,
        deadline: Option<Instant>,
        limit: impl FnOnce(Instant) -> Instant,
    ) -> Wake {
        if task.wait.get() != 0 {
            if let Some(deadline) = deadline.map(limit) {
                let alarm = Alarm::Wake(task.slot.get());
                let key = self.alarms.add(self.clock.nanos_at(deadline), alarm);
                task.timer.set(Some(key));
            }
            task.set_waiting(why);
            task.set_since(self.clock.last_millis());
            task.parked.set(true);
            let counted = self.outside.enter(why);
            if task.scopes.switches_slowly() {
                self.suspend_slowly(task, Suspended::Parked);
            } else {
                self.suspend(task, Suspended::Parked);
            }
            self.outside.leave(counted);
        }
        task.wake.get()
    }

    /// [`park`](Self::park), with a place in a queue. A cancellation takes it out of the queue. If
    /// there is a deadline, that of a `fail_after` around the caller counts, too.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn park_in_queue(
        &self,
        task: &Task,
        why: Wait,
        deadline: Option<Instant>,
        place: &dyn CancelWait,
    ) -> Wake {
        // SAFETY: the two types differ only in a lifetime. The task forgets the place below, before
        // that lifetime ends, and lends it to nobody for longer than a call. A coroutine is
        // abandoned only while it unwinds, never while it is parked here.
        let erased = unsafe { mem::transmute::<&dyn CancelWait, &'static dyn CancelWait>(place) };
        task.set_place(Some(erased));
        let limit = |deadline| task.scopes.limited(deadline);
        let wake = self.park_until(task, why, deadline, limit);
        task.set_place(None);
        wake
    }

    /// Switches to the loop. `how` says when to resume `task`, the running coroutine.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn suspend(&self, task: &Task, how: Suspended) {
        if thread::panicking() {
            return self.suspend_panicking(task, how);
        }
        self.switch_away(task, how);
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn switch_away(&self, task: &Task, how: Suspended) {
        // SAFETY: the callers of `suspend` pass the task that runs. So we are on the stack of its
        // coroutine, or on that of a generator which it has resumed.
        unsafe { task.coroutine.suspend(how) };
    }

    /// [`suspend`](Self::suspend), with the timers of scopes armed before, and the hooks of the run
    /// called before and after.
    #[cold]
    pub(super) fn suspend_slowly(&self, task: &Task, how: Suspended) {
        task.scopes.arm(|scope, deadline| {
            let alarm = Alarm::Cancel(task.slot.get(), scope);
            self.alarms.add(self.clock.nanos_at(deadline), alarm)
        });
        if thread::panicking() {
            // A hook may cancel the coroutine, which must not end a wait in a destructor.
            self.unwinding.before_suspend(task);
        } else if task.scopes.forget_panic() {
            // Not only at the next tick: another coroutine may panic before that.
            self.recount_unwinding();
        }
        self.call_hooks(task, Moment::Suspend);
        self.switch_away(task, how);
        self.unwinding.after_resume(task);
        self.call_hooks(task, Moment::Resume);
    }

    /// Calls the hooks of the run, if there are any, on the stack of `task`, the running coroutine.
    #[cold]
    pub(crate) fn call_hooks(&self, task: &Task, moment: Moment) {
        if !task.scopes.is_hooked() {
            return;
        }
        // Not borrowed while user code runs.
        let hooks = self.hooks.borrow().clone();
        for hook in hooks.iter().flat_map(|hooks| hooks.at(moment)) {
            current::while_hooked(|| cancel::catch_and_forget(|| hook(task.id)));
        }
        // The operations of a hook are not the coroutine's.
        current::set_budget(BUDGET);
    }

    #[cold]
    fn suspend_panicking(&self, task: &Task, how: Suspended) {
        self.unwinding.before_suspend(task);
        self.switch_away(task, how);
        self.unwinding.after_resume(task);
    }

    /// Ends a wait, wherever it is.
    #[inline(always)]
    pub(crate) fn wake(&self, waiter: Waiter) {
        match waiter {
            Waiter::Parked(parker) => match parker.local_to(self.mailbox()) {
                Some((slot, wait)) => self.unpark(slot, wait),
                None => parker.send(),
            },
            Waiter::Future(_) => wake_future(waiter),
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
        self.host.notify();
    }

    /// Ends the wait of a task of this thread.
    #[inline]
    pub(super) fn wake_task(&self, task: &Task, wake: Wake) {
        task.wait.set(0);
        task.wake.set(wake);
        if let Some(key) = task.timer.take() {
            self.alarms.cancel(key);
        }
        if task.parked.replace(false) {
            if self.observer.is_on() {
                self.observer.woken(task);
            }
            self.push_ready(task);
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
        self.host.notify();
    }

    /// Calls `f` with the coroutine in this slot, if it is still this one. `f` must run no user
    /// code.
    pub(crate) fn find<R>(&self, slot: u32, id: Id, f: impl FnOnce(&Task) -> R) -> Option<R> {
        self.tasks.find(slot, id, f)
    }

    /// Forgets a descriptor, if `reactor` is the number of this thread's reactor. Returns its
    /// waiters, which are to be woken.
    pub(crate) fn deregister(&self, reactor: u64, token: u64) -> Vec<Waiter> {
        let ours = self.reactor.get().filter(|ours| ours.number() == reactor);
        ours.map_or_else(Vec::new, |ours| ours.deregister(token).collect())
    }

    /// Takes the waiters of a descriptor, which are to be woken, if `reactor` is the number of this
    /// thread's reactor.
    pub(crate) fn recheck(&self, reactor: u64, token: u64) -> Vec<Waiter> {
        let ours = self.reactor.get().filter(|ours| ours.number() == reactor);
        ours.map_or_else(Vec::new, |ours| ours.take_waiters(token))
    }

    /// Wakes a future at `deadline`. `None` if no run is under way on this thread.
    pub(crate) fn arm_sleep(&self, deadline: Instant, waiter: Waiter) -> Option<SleepKey> {
        let at = self.clock.nanos_at(deadline);
        let arm = || self.sleeps.add(&self.alarms, at, waiter, self.mailbox());
        self.is_running().then(|| self.arming(at, arm))
    }

    /// Calls `arm`, which arms an alarm for `at`. A host that waits for a later one is woken.
    pub(super) fn arming<R>(&self, at: u64, arm: impl FnOnce() -> R) -> R {
        let is_first = self.alarms.next().is_none_or(|next| at < next);
        let key = arm();
        if is_first {
            self.host.notify();
        }
        key
    }

    /// Takes back a sleep of this thread. Returns whether it was armed, and its time has not come.
    pub(crate) fn disarm_sleep(&self, key: SleepKey) -> bool {
        self.sleeps.disarm(&self.alarms, key)
    }

    /// Whether a sleep of this thread is armed, and its time has not come.
    pub(crate) fn is_sleep_armed(&self, key: SleepKey) -> bool {
        self.sleeps.has(key)
    }

    /// Wakes all futures that wait for this thread, which will not wake them any more. They find no
    /// run at their next poll.
    pub(super) fn wake_futures(&self) {
        let ready = self.reactor.get().map(Reactor::take_futures);
        self.wake_all(ready.into_iter().flatten().chain(self.sleeps.take_all(&self.alarms)));
    }

    /// Ends waits, from the loop.
    pub(super) fn wake_all(&self, waiters: impl IntoIterator<Item = Waiter>) {
        waiters.into_iter().for_each(|waiter| self.wake(waiter));
    }

    /// Notes that the running coroutine panics. The panic hook calls this.
    pub(crate) fn note_panic(&self, task: &Task) {
        self.unwinding.note_panic(task);
    }

    /// Notes that the running coroutine unwinds because a generator is closed.
    pub(crate) fn note_unwind(&self, task: &Task) {
        self.unwinding.note_unwind(task);
    }

    /// Whether the running coroutine is known to unwind.
    #[inline]
    pub(crate) fn is_unwinding(&self, task: &Task) -> bool {
        self.unwinding.is_unwinding(task)
    }

    /// Whether the running coroutine is known to unwind from a panic of its own.
    pub(crate) fn is_panicking(&self, task: &Task) -> bool {
        self.unwinding.is_panicking(task)
    }

    /// Notes that this thread has pushed a job. A loop that is a guest may have to start it.
    pub(crate) fn note_job(&self) {
        self.host.notify();
    }
}

/// Calls a waker, which is user code. The loop outlives a panic of it, which the panic hook has
/// reported.
#[cold]
fn wake_future(waiter: Waiter) {
    if let Waiter::Future(cell) = waiter {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| cell.wake())) {
            // Its drop may panic too.
            mem::forget(payload);
        }
    }
}

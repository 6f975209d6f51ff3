//! One thread's scheduler: the ready queue, the loop, and how a coroutine is parked and woken.
//!
//! Read [`Scheduler::run`] first. No borrow of scheduler state is held while a coroutine runs.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::ptr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use slab::Slab;

use super::calls::Later;
use super::cancel::ScopeId;
use super::context::{self, Context};
use super::coroutine::Suspended;
use super::interrupt::raise;
use super::reactor::{EVENTS, Port, Reactor, SourceKey};
use super::ready::ReadyQueue;
use super::remote::{Door, Waiter};
use super::stack::StackPool;
use super::task::{Flag, Home, Id, Task, Wait, Wake};
use super::timer::Timers;
use super::workers::{Post, Rest};

/// Operations that need not wait a coroutine may do in one turn; then it yields, so that a socket
/// that is always ready does not starve the others. (tokio's figure.)
const BUDGET: u32 = 128;
/// Turns after which the loop looks up from a full ready queue.
const GLANCE: u32 = 128;
const _: () = assert!(EVENTS >= GLANCE as usize);
/// Homes of ended tasks that are kept for the next ones.
const VACANT_MAX: usize = 256;

/// What a timer does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// Ends the wait of the task in this slot.
    Wake(u32),
    /// Cancels a scope of the task in this slot.
    Cancel(u32, ScopeId),
    /// Makes a coroutine of the call in this slot.
    Call(u32),
}

/// Runs the coroutines of one thread.
pub(crate) struct Scheduler {
    pub(super) ready: ReadyQueue,
    pub(super) woken: RefCell<Vec<Waiter>>,
    pub(super) tasks: RefCell<Slab<Home>>,
    // Homes of tasks that have ended.
    vacant: RefCell<Vec<Home>>,
    pub(super) timers: RefCell<Timers<Alarm>>,
    pub(super) calls: RefCell<Slab<Later>>,
    pub(super) call_serial: Cell<u64>,
    pub(super) reactor: OnceCell<Reactor>,
    // Since the loop last looked up.
    pub(super) turns: Cell<u32>,
    pub(super) next_scope: Cell<u32>,
    // The clock is handed in, and counted in nanoseconds from the first time that is read.
    clock: Cell<fn() -> Instant>,
    origin: OnceCell<Instant>,
    stack_size: Cell<usize>,
    // The time when it was last asked for.
    pub(super) time: Cell<u64>,
    // The same in milliseconds, for those who note when they began to wait.
    millis: Cell<u32>,
    // Coroutines whose wait something else than a coroutine of this thread may end.
    pub(super) outside: Cell<u32>,
    // Nobody is outside: waits that only a plain thread could end are not ended from outside.
    pub(super) strict: Cell<bool>,
    post: RefCell<Option<Post>>,
    // A job has been started since the loop last looked up.
    pub(super) started: Cell<bool>,
    // Coroutines that were suspended while the thread panicked, and so may be unwinding.
    pub(super) unwinding: Cell<u32>,
    running: Cell<bool>,
    pub(super) closing: Cell<bool>,
    pub(super) next_oldest: Cell<u64>,
    // Above 0 when messages have come soon of late.
    pub(super) haste: Cell<i8>,
    pub(super) next_poll: Cell<u64>,
    pub(super) next_trim: Cell<u64>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("tasks", &self.tasks.borrow().len())
            .field("timers", &self.timers.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    pub(crate) const fn new() -> Self {
        Self {
            ready: ReadyQueue::new(),
            woken: RefCell::new(Vec::new()),
            tasks: RefCell::new(Slab::new()),
            vacant: RefCell::new(Vec::new()),
            timers: RefCell::new(Timers::new()),
            calls: RefCell::new(Slab::new()),
            call_serial: Cell::new(0),
            reactor: OnceCell::new(),
            turns: Cell::new(0),
            next_scope: Cell::new(0),
            clock: Cell::new(Instant::now),
            origin: OnceCell::new(),
            stack_size: Cell::new(super::stack::DEFAULT_SIZE),
            time: Cell::new(0),
            millis: Cell::new(0),
            outside: Cell::new(0),
            strict: Cell::new(false),
            post: RefCell::new(None),
            started: Cell::new(false),
            unwinding: Cell::new(0),
            running: Cell::new(false),
            closing: Cell::new(false),
            next_oldest: Cell::new(0),
            haste: Cell::new(0),
            next_poll: Cell::new(0),
            next_trim: Cell::new(0),
        }
    }

    // ---- what runs: entered from the thread's own stack ----

    /// Gets ready to run coroutines, as one worker of a run; the guard ends that.
    ///
    /// # Errors
    ///
    /// When a scheduler runs on this thread already, or the kernel refuses the reactor.
    pub(crate) fn start(
        &self,
        door: &'static Door,
        stack_size: usize,
        strict: bool,
        post: Post,
    ) -> io::Result<impl Drop + '_> {
        struct Stop<'a>(&'a Scheduler);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.running.set(false);
                drop(self.0.post.take());
            }
        }
        if self.running.get() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "a plainsong runtime runs on this thread already: call `spawn` instead, or \
                 start the other runtime on a thread of its own",
            ));
        }
        if self.reactor.get().is_none() {
            let reactor = Reactor::new()?;
            door.attach(reactor.port().clone());
            let _ = self.reactor.set(reactor);
        }
        // Deadlines count from here, so none that matters is clamped to it.
        self.origin.get_or_init(|| self.now());
        self.stack_size.set(stack_size);
        self.strict.set(strict);
        // What was meant for a run before this one is of no use.
        self.receive(door);
        self.closing.set(post.workers.enter(post.number, door));
        self.post.replace(Some(post));
        self.running.set(true);
        Ok(Stop(self))
    }

    /// Runs until no worker of the run has a coroutine left, or a call, or a job.
    pub(crate) fn run(&self, cx: &Context) {
        loop {
            while let Some(task) = self.ready.pop() {
                // SAFETY: a task that was in the ready queue is alive, and `turn` alone ends that.
                self.turn(unsafe { task.as_ref() }, &cx.stacks);
                self.turns.set(self.turns.get() + 1);
                if self.turns.get() >= GLANCE {
                    self.turns.set(0);
                    self.glance(cx);
                }
            }
            context::leave();
            if self.start_job(false) || self.steal() {
                continue;
            }
            // A call that is still to come will be a coroutine.
            let idle = self.tasks.borrow().is_empty() && self.calls.borrow().is_empty();
            match self.at_post(|post| idle.then(|| post.workers.rest(post.number))) {
                Some(Rest::HasJobs) => continue,
                Some(Rest::Over) => break,
                Some(Rest::Rests) | None => self.sleep(cx),
            }
            if idle && self.at_post(|post| post.workers.rise(post.number)) {
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
    pub(crate) fn at_post<R: Default>(&self, f: impl FnOnce(&Post) -> R) -> R {
        self.post.borrow().as_ref().map(f).unwrap_or_default()
    }

    /// One turn of one coroutine: every switch goes through here.
    #[inline]
    fn turn(&self, task: &Task, stacks: &StackPool) {
        context::set_budget(BUDGET);
        // SAFETY: a task is alive until `retire`, which leaves it; the loop leaves the last one.
        unsafe { context::enter(task) };
        // SAFETY: the task is in no queue while it is here, and not running: a coroutine that
        // runs is put back only below, and one that has parked only once, by `unpark`.
        match unsafe { task.coroutine.resume() } {
            Some(Suspended::Ready) => self.push_ready(task),
            Some(Suspended::Parked) => {}
            Some(Suspended::Abandoned) => self.abandon(task),
            None => self.retire(task.slot.get(), stacks),
        }
    }

    #[inline]
    fn push_ready(&self, task: &Task) {
        // SAFETY: whoever calls this has just taken the task out of the state that kept it from
        // the queue: it was new, it ran, or it was parked.
        //
        // It is in `tasks` until it has ended, and boxed, so it stays where it is.
        unsafe { self.ready.push(task) };
    }

    #[inline]
    fn retire(&self, slot: u32, stacks: &StackPool) {
        context::leave();
        let mut home = self.tasks.borrow_mut().remove(slot as usize);
        if let Some(stack) = home.move_out().and_then(|task| task.coroutine.into_stack()) {
            stacks.put(stack);
        }
        let mut vacant = self.vacant.borrow_mut();
        if vacant.len() < VACANT_MAX {
            vacant.push(home);
        }
    }

    /// Forgets a coroutine that will not end. Its drop leaks its stack.
    #[cold]
    fn abandon(&self, task: &Task) {
        context::leave();
        for timer in task.scope_timers() {
            self.timers.borrow_mut().cancel(timer);
        }
        let home = self.tasks.borrow_mut().remove(task.slot.get() as usize);
        // With it go the coroutine's locals, whose destructors may be any code.
        drop(home);
    }

    // ---- what coroutines and their wakers call ----

    /// Whether coroutines can be spawned here.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// The stack size of coroutines that do not ask for one.
    pub(crate) fn stack_size(&self) -> usize {
        self.stack_size.get()
    }

    /// The time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        (self.clock.get())()
    }

    pub(super) fn elapsed(&self) -> u64 {
        let time = self.nanos(self.now());
        self.time.set(time);
        self.millis.set((time / 1_000_000) as u32);
        time
    }

    pub(super) fn nanos(&self, time: Instant) -> u64 {
        let origin = self.origin.get_or_init(|| self.now());
        time.saturating_duration_since(*origin).as_nanos().try_into().unwrap_or(u64::MAX)
    }

    /// Adds a coroutine; it runs at the next turn.
    #[inline]
    pub(crate) fn add(&self, task: Task) -> u32 {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer than 2^32 coroutines");
        let mut home = self.vacant.borrow_mut().pop().unwrap_or_default();
        // Nothing has looked at the task where it was made, so it is made here.
        home.move_in(task);
        home.slot.set(slot);
        if self.closing.get() {
            home.request(None);
        }
        self.push_ready(entry.insert(home));
        slot
    }

    /// Makes a waiter for the running coroutine, which must wait next.
    #[inline]
    pub(crate) fn prepare(&self, task: &Task, door: &'static Door) -> Waiter {
        let wait = door.number();
        task.wait.set(wait);
        Waiter::task(door, task.slot.get(), wait)
    }

    /// Suspends the running coroutine until its wait is woken or `deadline` has passed.
    #[inline(always)]
    pub(crate) fn suspend_until_woken(
        &self,
        task: &Task,
        why: Wait,
        deadline: Option<Instant>,
    ) -> Wake {
        if task.wait.get() != 0 {
            if let Some(deadline) = deadline {
                let alarm = Alarm::Wake(task.slot.get());
                let key = self.timers.borrow_mut().add(self.nanos(deadline), alarm);
                task.timer.set(Some(key));
            }
            task.waiting.set(why);
            task.since.set(self.millis.get());
            task.parked.set(true);
            let outside = u32::from(self.is_ended_from_outside(why));
            self.outside.set(self.outside.get() + outside);
            suspend(task, Suspended::Parked);
            self.outside.set(self.outside.get() - outside);
            task.waiting.set(Wait::Nothing);
        }
        task.wake.get()
    }

    /// Yields after an operation too many that did not have to wait.
    pub(crate) fn overspent(&self, task: &Task) {
        if !task.must_not_wait() {
            // What has been done took time: time to look up.
            self.turns.set(GLANCE);
            yield_now(task);
        }
    }

    /// Ends a wait of a coroutine of this thread, if it is still the same wait.
    #[inline]
    pub(crate) fn unpark(&self, slot: u32, wait: u64, wake: Wake) {
        let tasks = self.tasks.borrow();
        let Some(task) = tasks.get(slot as usize) else { return };
        if wait != 0 && task.wait.get() == wait {
            self.wake_task(task, wake);
        }
    }

    #[inline]
    pub(super) fn wake_task(&self, task: &Task, wake: Wake) {
        task.wait.set(0);
        task.wake.set(wake);
        if let Some(key) = task.timer.take() {
            self.timers.borrow_mut().cancel(key);
        }
        if task.parked.replace(false) {
            self.push_ready(task);
        }
    }

    /// `thread::unpark`, for a coroutine of this thread.
    pub(crate) fn give_park_token(&self, slot: u32, id: Id) {
        let wait = self.find(slot, id, |task| {
            task.flags.set(Flag::ParkToken, true);
            if task.waiting.get() == Wait::Park { task.wait.get() } else { 0 }
        });
        self.unpark(slot, wait.unwrap_or(0), Wake::Ready);
    }

    /// Calls `f` with the coroutine in this slot, if it is still this one.
    pub(crate) fn find<R>(&self, slot: u32, id: Id, f: impl FnOnce(&Task) -> R) -> Option<R> {
        self.tasks.borrow().get(slot as usize).filter(|task| task.id == id).map(|task| f(task))
    }

    /// This thread's reactor, once it has run coroutines.
    #[inline]
    pub(crate) fn reactor(&self) -> Option<&Reactor> {
        self.reactor.get()
    }

    /// Forgets a descriptor, if it was registered with this reactor, and wakes who waits for it.
    pub(crate) fn deregister(&self, port: &Weak<Port>, key: SourceKey) {
        if let Some(reactor) = self.reactor.get()
            && ptr::eq(Arc::as_ptr(reactor.port()), port.as_ptr())
        {
            reactor.deregister(key).for_each(context::wake);
        }
    }
}

/// Lets the other coroutines that are ready run before this one, the running one.
#[inline]
pub(crate) fn yield_now(task: &Task) {
    if task.interrupt.get() {
        raise(task);
    }
    suspend(task, Suspended::Ready);
    if task.interrupt.get() {
        raise(task);
    }
}

#[inline(always)]
pub(super) fn suspend(task: &Task, how: Suspended) {
    if thread::panicking() {
        return context::with(|cx| cx.scheduler.suspend_unwinding(task, how));
    }
    // SAFETY: the callers of this have got the current task from theirs.
    unsafe { task.suspend(how) };
}

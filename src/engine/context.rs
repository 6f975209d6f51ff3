//! The only `thread_local!`: what this thread is running, and its scheduler.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::blocking;
use super::coroutine::Coroutine;
use super::interrupt;
use super::overflow::{self, AlternateStack};
use super::remote::{Door, Waiter};
use super::scheduler::Scheduler;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::stack::{Arenas, Stack, StackPool};
use super::task::{Id, Locals, Task, Wait, Wake};

thread_local! {
    // These have no destructor, so that a signal handler may read them at any time.
    static CURRENT: Cell<*const Task> = const { Cell::new(ptr::null()) };
    // This thread's door once it has one: a number that tells threads apart, for one load.
    static HERE: Cell<usize> = const { Cell::new(0) };
    static ARENAS: Arenas = const { Arenas::new() };
    // Operations that this turn may still do without waiting.
    static BUDGET: Cell<u32> = const { Cell::new(0) };
    static STARTING: Cell<*const Coroutine> = const { Cell::new(ptr::null()) };
    static POOLED: Cell<bool> = const { Cell::new(false) };
    static ME: Cell<u64> = const { Cell::new(0) };
    static LATE: Cell<Option<&'static Door>> = const { Cell::new(None) };

    static CONTEXT: Context = const { Context::new() };
    // Where that is, while it is there: to be found with one load.
    static PLACE: Cell<*const Context> = const { Cell::new(ptr::null()) };
    // Apart, because its values' destructors may use the context.
    static LOCALS: RefCell<Locals> = const { RefCell::new(Vec::new()) };
}

/// What a thread keeps for the coroutines it runs, and for itself when it waits.
pub(crate) struct Context {
    pub(crate) scheduler: Scheduler,
    pub(crate) stacks: StackPool,
    alternate: OnceCell<Option<AlternateStack>>,
    door: OnceCell<&'static Door>,
    next_id: Cell<u64>,
    ticks: Cell<u64>,
    buffers: RefCell<Vec<Box<[u8]>>>,
}

/// Buffers that a thread keeps when nobody uses them.
const BUFFERS_MAX: usize = 16;

impl Context {
    const fn new() -> Self {
        Self {
            scheduler: Scheduler::new(),
            stacks: StackPool::new(),
            alternate: OnceCell::new(),
            door: OnceCell::new(),
            next_id: Cell::new(0),
            ticks: Cell::new(0),
            buffers: RefCell::new(Vec::new()),
        }
    }

    /// This thread's door.
    #[inline]
    pub(crate) fn door(&self) -> &'static Door {
        self.door.get_or_init(|| {
            let door = Door::acquire();
            HERE.set(ptr::from_ref(door).addr());
            door
        })
    }

    /// A stack of `size` bytes, an overflow of which will be reported.
    #[inline]
    pub(crate) fn take_stack(&self, size: usize) -> io::Result<Stack> {
        self.alternate.get_or_init(overflow::protect_thread);
        self.stacks.take(size)
    }

    /// A number that is larger than any before it on this thread.
    #[inline]
    pub(crate) fn tick(&self) -> u64 {
        let tick = self.ticks.get() + 1;
        self.ticks.set(tick);
        tick
    }

    /// An id for a new coroutine.
    #[inline]
    pub(crate) fn allocate_id(&self) -> Id {
        Id::allocate(&self.next_id)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        PLACE.set(ptr::null());
        if let Some(door) = self.door.get() {
            HERE.set(0);
            door.release();
        }
    }
}

/// A buffer that somebody on this thread has put back.
pub(crate) fn take_buffer() -> Option<Box<[u8]>> {
    try_with(|cx| cx.buffers.borrow_mut().pop()).flatten()
}

/// Keeps a buffer for whoever on this thread needs one next.
pub(crate) fn put_buffer(buffer: Box<[u8]>) {
    let _ = try_with(|cx| {
        let mut buffers = cx.buffers.borrow_mut();
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    });
}

/// Calls `f` with this thread's context.
///
/// # Panics
///
/// In a destructor of a thread-local that runs after ours.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Context) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!(
            "this thread is ending, and what plainsong keeps for it has gone: a destructor of a \
             thread-local must not spawn or use coroutines any more"
        ),
    }
}

/// Calls `f` with this thread's context, unless the thread is ending and it is gone.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(&Context) -> R) -> Option<R> {
    let known = PLACE.try_with(Cell::get).unwrap_or(ptr::null());
    let place = if known.is_null() { find() } else { known };
    // SAFETY: where it is not null, the context is there: its drop sets `PLACE` to null. That comes with the
    // end of its thread, which does not come while `f` runs: a coroutine, too, runs on its own
    // thread only, and has ended before that does.
    unsafe { place.as_ref() }.map(f)
}

/// Notes where the context is, if it is there.
#[cold]
fn find() -> *const Context {
    let place = CONTEXT.try_with(ptr::from_ref).unwrap_or(ptr::null());
    PLACE.set(place);
    place
}

/// Calls `f` with the arenas of this thread's stacks.
pub(crate) fn with_arenas<R>(f: impl FnOnce(&Arenas) -> R) -> R {
    ARENAS.with(f)
}

/// Calls `f` with the coroutine that runs, if this is one.
#[inline]
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Task>) -> R) -> R {
    let current = CURRENT.get();
    // SAFETY: the caller of `enter` has promised that the task lives until `leave`.
    //
    // A closure that suspends keeps the reference on the coroutine's own stack: it is
    // used again only when that coroutine runs, and the scheduler keeps a task for as long as
    // its coroutine has not ended. On a generator's stack, which another coroutine may resume, only
    // scopes keep one across user code, and `Yielder` refuses to yield while one is open.
    f(unsafe { current.as_ref() })
}

/// A number that no other thread has that lives: 0 where nothing has waited or run yet.
#[inline]
pub(crate) fn here() -> usize {
    HERE.get()
}

/// Whether this is a coroutine, and the thread with this number one that runs those of its run.
pub(crate) fn shares_run_with(number: usize) -> bool {
    let shares = |cx: &Context| cx.scheduler.at_post(|post| post.workers.has_thread(number));
    in_coroutine() && (number == here() || with(shares))
}

/// Whether this code runs in a coroutine.
#[inline]
pub(crate) fn in_coroutine() -> bool {
    !CURRENT.get().is_null()
}

/// Makes `task` the current coroutine.
///
/// # Safety
///
/// The task must stay alive until [`leave`] or the next `enter`.
#[inline]
pub(crate) unsafe fn enter(task: &Task) {
    CURRENT.set(task);
}

/// Makes none the current coroutine.
#[inline]
pub(crate) fn leave() {
    CURRENT.set(ptr::null());
}

/// The coroutine that is being resumed for the first time, as its body begins.
pub(crate) fn starting() -> *const Coroutine {
    STARTING.get()
}

/// Tells a coroutine's body, which is about to begin, where the coroutine is.
pub(crate) fn set_starting(coroutine: &Coroutine) {
    STARTING.set(coroutine);
}

/// Says whether this thread is one of the blocking pool that is counted there. Returns what it was.
pub(crate) fn set_pooled(pooled: bool) -> bool {
    POOLED.replace(pooled)
}

/// A waiter for what calls this: the coroutine, or else the thread. It must [`block`] next.
#[inline]
pub(crate) fn waiter() -> Waiter {
    with_current(|task| match task {
        Some(task) => with(|cx| cx.scheduler.prepare(task, cx.door())),
        None => Waiter::thread(try_with(Context::door).unwrap_or_else(late_door)),
    })
}

/// Has what the running coroutine will look at first after its wait fetched ahead of that.
#[inline]
pub(crate) fn looks_next_at<T>(what: &T) {
    with_current(|task| {
        task.into_iter().for_each(|task| task.ahead.set(ptr::from_ref(what).cast()))
    });
}

/// A door for the destructors of thread-locals that run after ours. Nothing tells when the last has, so
/// it is never passed on.
#[cold]
fn late_door() -> &'static Door {
    let door = LATE.get().unwrap_or_else(Door::acquire);
    LATE.set(Some(door));
    door
}

/// Waits until `waiter`, made here just before, is woken, or `deadline` has passed.
///
/// Unwinds instead of returning when the coroutine has been cancelled and the wait has not happened: what
/// a wake has handed over is never lost.
#[inline(always)]
pub(crate) fn block(waiter: Waiter, why: Wait, deadline: Option<Instant>) -> Wake {
    if is_interrupted() {
        unwind();
    }
    let wake = block_until_woken(waiter, why, deadline);
    if wake == Wake::Cancelled {
        unwind();
    }
    wake
}

/// [`block`], for a wait that others must forget before its coroutine unwinds: it returns
/// `Wake::Cancelled` where that unwinds. Ask [`is_interrupted`] before, and [`unwind`] after.
///
/// It is part of its callers, down to the switch: each return that follows a switch is one that the
/// processor has predicted wrongly.
#[inline(always)]
pub(crate) fn block_until_woken(waiter: Waiter, why: Wait, deadline: Option<Instant>) -> Wake {
    if waiter.is_thread() {
        return blocking::waiting(|| waiter.block(deadline));
    }
    // A closure would be a function of its own.
    //
    // SAFETY: as in `try_with` and `with_current`.
    match unsafe { (PLACE.get().as_ref(), CURRENT.get().as_ref()) } {
        (Some(context), Some(task)) => context.scheduler.suspend_until_woken(task, why, deadline),
        // Whoever made this waiter runs here, so it is a coroutine, of a thread that has a context.
        _ => Wake::Ready,
    }
}

/// Whether a wait must unwind, or panic where none is allowed.
#[inline]
pub(crate) fn is_interrupted() -> bool {
    with_current(|task| {
        task.is_some_and(|task| task.interrupt.get() && !with(|cx| cx.scheduler.is_unwinding(task)))
    })
}

/// Unwinds the coroutine that calls this, which [`is_interrupted`] or whose wait was.
#[cold]
pub(crate) fn unwind() -> ! {
    with_current(|task| match task {
        // That it does not unwind already was known when its wait was ended.
        Some(task) => interrupt::interrupt(task),
        None => unreachable!("nobody interrupts a plain thread"),
    })
}

/// Ends the wait of `waiter`, wherever it is.
#[inline]
pub(crate) fn wake(waiter: Waiter) {
    let local = try_with(|cx| {
        waiter.local_to(cx.door()).map(|(slot, wait)| cx.scheduler.unpark(slot, wait, Wake::Ready))
    });
    if local.flatten().is_none() {
        waiter.send();
    }
}

/// The time, as the scheduler of this thread tells it.
#[inline]
pub(crate) fn now() -> Instant {
    try_with(|cx| cx.scheduler.now()).unwrap_or_else(Instant::now)
}

/// The time after `timeout`; `None`, which does not come, when the clock cannot hold it.
#[inline]
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}

/// A number that no other coroutine or thread has, or had, or will have: for the coroutine that calls
/// this, or else the thread.
pub(crate) fn me() -> u64 {
    with_current(|task| match task {
        Some(task) => task.id.get() << 1 | 1,
        None => {
            // Not an address, which the next thread may get.
            static THREADS: AtomicU64 = AtomicU64::new(0);
            if ME.get() == 0 {
                ME.set((THREADS.fetch_add(1, Ordering::Relaxed) + 1) << 1);
            }
            ME.get()
        }
    })
}

/// Calls `f` with the scopes that are open hidden from the waits inside of it.
pub(crate) fn shield<T>(f: impl FnOnce() -> T) -> T {
    struct Lower<'a>(&'a Task);
    impl Drop for Lower<'_> {
        fn drop(&mut self) {
            self.0.lower_shield();
        }
    }
    with_current(|task| {
        let _lower = task.map(|task| {
            task.raise_shield();
            Lower(task)
        });
        f()
    })
}

/// Calls `f`, which must be short and run no user code, with the `coroutine_local!` values of
/// this coroutine or else of this thread. `None` when the thread is ending and they are gone.
pub(crate) fn with_locals<R>(f: impl FnOnce(&mut Locals) -> R) -> Option<R> {
    with_current(|task| match task {
        Some(task) => Some(f(&mut task.locals().borrow_mut())),
        None => LOCALS.try_with(|locals| f(&mut locals.borrow_mut())).ok(),
    })
}

/// Notes an operation that did not have to wait, and yields if it was one too many.
#[inline]
pub(crate) fn spend() {
    match BUDGET.get().checked_sub(1) {
        Some(left) => BUDGET.set(left),
        None => overspent(),
    }
}

#[cold]
fn overspent() {
    with_current(|task| match task {
        Some(task) => with(|cx| cx.scheduler.overspent(task)),
        // Nobody waits for a plain thread's turn to end.
        None => set_budget(u32::MAX),
    });
}

/// Sets how many operations what runs next may do without waiting.
#[inline]
pub(crate) fn set_budget(operations: u32) {
    BUDGET.set(operations);
}

/// Whether a panic is unwinding what calls this, as far as is known; a cancellation is none.
#[inline]
pub(crate) fn is_panicking() -> bool {
    std::thread::panicking()
        && with_current(|task| task.is_none_or(|task| with(|cx| cx.scheduler.is_panicking(task))))
}

/// Whether the coroutine that calls this is known to unwind, from a panic or a cancellation.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking()
        && with_current(|task| task.is_some_and(|task| with(|cx| cx.scheduler.is_unwinding(task))))
}

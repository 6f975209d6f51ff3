//! The running coroutine of this thread, and the rest of its turn's budget.

use std::cell::Cell;

use super::defer::Defer;
use super::processor::stack_top;
#[cfg(plainsong_model)]
use super::shared::LocalCell;
use super::shared::thread_local;
use super::task::Task;

thread_local! {
    // None has a destructor, so that a signal handler may read them at any time.
    static CURRENT: Cell<Option<&'static Task>> = const { Cell::new(None) };
    // A coroutine of this thread has called `std::process::exit`.
    static ENDING: Cell<bool> = const { Cell::new(false) };
    // A hook runs in place of the coroutine that has called it.
    static IN_HOOK: Cell<bool> = const { Cell::new(false) };
    // The host of this thread's loop runs, between two slices of it.
    static HOSTED: Cell<bool> = const { Cell::new(false) };
    // How many runs have frames on this thread's stack.
    static RUNS: Cell<u32> = const { Cell::new(0) };
    // How many other frames are on it that no generator may be suspended with.
    static YIELDS_FORBIDDEN: Cell<u32> = const { Cell::new(0) };
    // How many operations this turn may still complete without waiting.
    static BUDGET: Cell<u32> = const { Cell::new(0) };
}

/// Makes `task` the current coroutine, until [`leave`] or the next `enter`. Nothing here has the
/// reference afterwards: [`with`] only lends it.
#[inline]
pub(super) fn enter(task: &'static Task) {
    CURRENT.set(Some(task));
}

/// Notes that no coroutine runs.
#[inline]
pub(super) fn leave() {
    CURRENT.set(None);
}

/// Counts a run whose frames are on this thread's stack, until the guard is dropped.
pub(super) fn enter_run() -> impl Drop {
    RUNS.set(RUNS.get() + 1);
    Defer::new(|| RUNS.set(RUNS.get() - 1))
}

/// How many runs have frames on this thread's stack.
pub(super) fn runs() -> u32 {
    RUNS.get()
}

/// Keeps generators from yielding through the caller's frame, until the guard is dropped. For code
/// that no coroutine runs: a coroutine has scopes for this.
pub(crate) fn forbid_yields() -> impl Drop {
    YIELDS_FORBIDDEN.set(YIELDS_FORBIDDEN.get() + 1);
    Defer::new(|| YIELDS_FORBIDDEN.set(YIELDS_FORBIDDEN.get() - 1))
}

/// How many frames are on this thread's stack that no generator may be suspended with: those of
/// runs, and those that [`forbid_yields`].
pub(crate) fn frames() -> u32 {
    RUNS.get() + YIELDS_FORBIDDEN.get()
}

/// Notes that this thread will never run a coroutine again, because its thread-locals are being
/// destroyed. From now on, waits in their destructors block the thread, as on a plain one.
pub(super) fn leave_for_good() {
    HOSTED.set(false);
    if in_coroutine() || in_hook() {
        ENDING.set(true);
        IN_HOOK.set(false);
        leave();
    }
}

/// Whether a coroutine of this thread has called `std::process::exit`.
pub(super) fn is_ending() -> bool {
    ENDING.get()
}

/// Whether a coroutine runs.
#[inline]
pub(crate) fn in_coroutine() -> bool {
    CURRENT.get().is_some()
}

fn in_hook() -> bool {
    IN_HOOK.get()
}

/// Notes whether the code of a host runs from now on.
pub(super) fn set_hosted(hosted: bool) {
    HOSTED.set(hosted);
}

/// Whether the code of a host runs.
pub(super) fn is_hosted() -> bool {
    HOSTED.get()
}

/// Panics in a hook and in the code of a host, because a wait would block the whole worker. A wait
/// that is listed somewhere calls this before, because it cannot unwind from there.
pub(super) fn refuse_to_block() {
    assert!(
        !in_hook(),
        "a hook of a runtime, or the clock of a host, waits, which would stop all coroutines of the \
         thread: let a hook hand over what takes time, to a coroutine or a thread of its own"
    );
    assert!(
        !HOSTED.get(),
        "a task on the thread of a plainsong worker waits as a plain thread does, which would \
         stop all coroutines of the thread: await a future instead, or call \
         `tokio::task::spawn_blocking`"
    );
}

/// Whether [`refuse_to_block`] panics.
pub(super) fn refuses_to_block() -> bool {
    in_hook() || is_hosted()
}

/// Calls `hook`, which must not unwind: a hook, or the clock of a host. Meanwhile no coroutine
/// counts as running, so that nothing that `hook` does can change the wait of the running one.
pub(super) fn while_hooked(hook: impl FnOnce()) {
    let _forbid = forbid_yields();
    let (task, in_hook) = (CURRENT.replace(None), IN_HOOK.replace(true));
    hook();
    IN_HOOK.set(in_hook);
    CURRENT.set(task);
}

/// Calls `f` with the running coroutine, if there is one.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn with<R>(f: impl FnOnce(Option<&Task>) -> R) -> R {
    f(CURRENT.get())
}

/// The size of the running coroutine's own stack, if the caller is on it. `None` on a plain thread,
/// and on the stack of a generator or of a call that was given another one.
pub(crate) fn own_stack_size() -> Option<usize> {
    let bounds = with(|task| task.and_then(|task| task.coroutine.bounds()))?;
    bounds.contains(stack_top().addr()).then(|| bounds.size())
}

/// Sets how many operations the next turn may complete without waiting.
#[inline]
pub(super) fn set_budget(operations: u32) {
    BUDGET.set(operations);
}

/// Takes one operation from the budget. Returns `false` if none is left.
#[inline]
pub(super) fn spend() -> bool {
    let left = BUDGET.get().checked_sub(1);
    if let Some(left) = left {
        BUDGET.set(left);
    }
    left.is_some()
}

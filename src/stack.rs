//! The stack of the calling coroutine or thread, and room for deep recursion.
//!
//! A coroutine's stack does not grow. A recursion whose depth the input decides, such as that of a
//! parser, calls [`grow`] at each step. When little is left, the step runs on a fresh stack.
//!
//! ```
//! fn depth(text: &mut std::str::Chars<'_>) -> usize {
//!     plainsong::stack::grow(1024 * 1024, || match text.next() {
//!         Some('(') => 1 + depth(text),
//!         _ => 0,
//!     })
//! }
//! plainsong::run(|| assert_eq!(depth(&mut "(".repeat(100_000).chars()), 100_000));
//! ```

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use crate::engine::coroutine;
use crate::engine::processor::stack_top;
use crate::engine::scheduler::Scheduler;
use crate::engine::stack::{self, Stack};
use crate::engine::{bounds, context, core_files, signals};

/// A call gets a fresh stack if fewer bytes than these are left. It is enough for a panic message
/// with its backtrace.
const RED_ZONE: usize = 32 * 1024;

thread_local! {
    // The bounds of this thread's own stack, once they are asked for. Empty if they are not known.
    static THREAD: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// How many bytes of its stack the caller may still use. `None` where the system does not say it:
/// on plain threads of other systems than Linux, and on stacks that other libraries have made.
///
/// ```
/// plainsong::run(|| assert!(plainsong::stack::remaining() <= Some(256 * 1024)));
/// ```
pub fn remaining() -> Option<usize> {
    let marker = 0u8;
    let top = stack_top();
    // The address of a local does where the register is not read.
    let here = if top.is_null() { (&raw const marker).addr() } else { top.addr() };
    if let Some(bounds) = stack::bounds_of(here) {
        return Some(here - bounds.bottom());
    }
    let (bottom, end) = THREAD.get().unwrap_or_else(|| {
        let bounds = bounds::of_thread().map_or((0, 0), |bounds| (bounds.start, bounds.end));
        THREAD.set(Some(bounds));
        bounds
    });
    (bottom..end).contains(&here).then(|| here - bottom)
}

/// Calls `f`: on the caller's stack, or on a fresh one of `size` bytes if fewer than 32 KiB are
/// left, or if it is not known how many are. It is for recursive functions, as in the
/// [example](self), and works in coroutines and on plain threads.
///
/// `f` may wait, be cancelled, panic, and call this again. It runs in the same coroutine. `size` is
/// rounded up to a power of two. A stack uses memory only as far as it is touched, and gives most
/// of it back when `f` has returned. A change of the stack takes some microseconds, because the
/// kernel is asked which pages were touched. So use a size that makes changes rare.
///
/// The body of a generator cannot yield inside of an `f` that runs on a fresh stack: that panics.
///
/// # Panics
///
/// When `f` panics, with its panic. When a fresh stack is needed, and `size` is below 16 KiB or
/// above 1 GiB, or the system has no room for it.
pub fn grow<T>(size: usize, f: impl FnOnce() -> T) -> T {
    if remaining().is_some_and(|left| left >= RED_ZONE) { f() } else { on_fresh_stack(size, f) }
}

#[cold]
#[inline(never)]
fn on_fresh_stack<T>(size: usize, f: impl FnOnce() -> T) -> T {
    signals::protect_thread();
    let stack = context::try_with(|scheduler| {
        let stack = stack::check_size(size).and_then(|size| scheduler.take_grown_stack(size));
        stack.unwrap_or_else(|error| panic!("cannot go on with a deep recursion: {error}"))
    });
    // At the end of a thread, no stacks are kept any more.
    let Some(stack) = stack else { return f() };
    call_on(stack, f, Scheduler::put_grown_stack)
}

/// Calls `f` on a stack of `size` bytes that the coroutines of this thread take in turns for short
/// calls, so that it is in the processor's cache. If there is none, calls `f` on the caller's.
pub(crate) fn on_lent_stack<T>(size: usize, f: impl FnOnce() -> T) -> T {
    match context::try_with(|scheduler| scheduler.take_lent_stack(size)) {
        Some(Ok(stack)) => call_on(stack, f, Scheduler::put_lent_stack),
        _ => f(),
    }
}

/// Calls `f` on `stack`, and `put` with the stack afterwards.
#[inline(always)]
fn call_on<T>(stack: Stack, f: impl FnOnce() -> T, put: impl FnOnce(&Scheduler, Stack)) -> T {
    let mut result = None;
    let mut f = Some(f);
    let mut body = || result = f.take().map(|f| panic::catch_unwind(AssertUnwindSafe(f)));
    if let Some(stack) = coroutine::call_on(stack, &mut body) {
        context::try_with(|scheduler| put(scheduler, stack));
    }
    match result {
        Some(Ok(value)) => value,
        Some(Err(payload)) => panic::resume_unwind(payload),
        None => unreachable!("the body has returned"),
    }
}

/// Has core files contain the stacks of coroutines. Call it before the first run: it is for the
/// stacks that are made after it.
///
/// Without it they have none, since a program reserves gigabytes of address space for them. With
/// it, each stack takes two mappings, of which Linux allows a process 65,530
/// (`vm.max_map_count`). `docs/debugging.md` of the repository shows how a debugger lists the
/// coroutines of a core file.
pub fn keep_in_core_files() {
    core_files::keep_stacks();
}

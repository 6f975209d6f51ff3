//! The first coroutine of a run, which may borrow from the caller.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::panic::Location;
use std::process;

use super::context::Context;
use super::coroutine::Coroutine;
use super::task::{Flag, Task};

/// Runs `body` as a coroutine, and whatever it spawns, until none is left.
///
/// `body` must not unwind.
///
/// # Errors
///
/// When this thread runs coroutines already, or the kernel refuses what that takes.
pub(crate) fn run<'a>(
    cx: &Context,
    stack_size: usize,
    strict: bool,
    spawned: &'static Location<'static>,
    body: Box<dyn FnOnce() + 'a>,
) -> io::Result<()> {
    /// Ends the process if the loop itself unwinds: coroutines would be left that borrow.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            process::abort();
        }
    }
    let scheduler = &cx.scheduler;
    let _running = scheduler.start(cx.door(), stack_size, strict)?;
    let stack = cx.take_stack(stack_size)?;
    // SAFETY: nothing calls `body` or looks at what it borrows after this function returns: the
    // scheduler returns only when no coroutine is left, and this one is then at its end.
    //
    // It cannot be left otherwise: a panic of the loop ends the process (`Bomb`), and a
    // coroutine that cannot be ended does too, when it borrows (`Flag::Borrows`).
    let body = unsafe { mem::transmute::<Box<dyn FnOnce() + 'a>, Box<dyn FnOnce()>>(body) };
    let bomb = Bomb;
    let main =
        Task::new(Coroutine::new(stack, body), cx.allocate_id(), Some("main".into()), spawned);
    main.flags.set(Flag::Borrows, true);
    scheduler.add(main);
    scheduler.run(cx);
    mem::forget(bomb);
    Ok(())
}

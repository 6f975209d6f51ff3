//! How a thread becomes a worker, and the first coroutine of a run, which may borrow from the caller.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::panic::Location;
use std::process;

use super::blocking;
use super::context::Context;
use super::coroutine::Coroutine;
use super::task::{Flag, Task};
use super::workers::Post;

/// How a worker's coroutines are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) stack_size: usize,
    pub(crate) strict: bool,
}

/// Ends the process if the loop itself unwinds: coroutines would be left that borrow.
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        process::abort();
    }
}

/// Runs `body` as a coroutine, and whatever comes to this worker, until the run is over; calls `ready` when
/// nothing can go wrong any more.
///
/// `body` must not unwind.
///
/// # Errors
///
/// When this thread runs coroutines already, or the kernel refuses what that takes.
pub(crate) fn run<'a>(
    cx: &Context,
    settings: Settings,
    post: Post,
    spawned: &'static Location<'static>,
    ready: impl FnOnce(),
    body: Box<dyn FnOnce() + 'a>,
) -> io::Result<()> {
    let Settings { stack_size, strict } = settings;
    let _running = cx.scheduler.start(cx.door(), stack_size, strict, post)?;
    let stack = cx.take_stack(stack_size)?;
    ready();
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
    cx.scheduler.add(main);
    // On a thread of the blocking pool, a run counts as a wait: it is one most of the time.
    blocking::waiting(|| cx.scheduler.run(cx));
    mem::forget(bomb);
    Ok(())
}

/// Runs whatever comes to this worker, until the run is over; says before whether it can.
pub(crate) fn work(
    cx: &Context,
    settings: Settings,
    post: Post,
    ready: impl FnOnce(io::Result<()>),
) {
    let (workers, number) = (post.workers.clone(), post.number);
    let Settings { stack_size, strict } = settings;
    match cx.scheduler.start(cx.door(), stack_size, strict, post) {
        Ok(_running) => {
            ready(Ok(()));
            let bomb = Bomb;
            cx.scheduler.run(cx);
            mem::forget(bomb);
        }
        Err(error) => {
            workers.rest(number);
            ready(Err(error));
        }
    }
}

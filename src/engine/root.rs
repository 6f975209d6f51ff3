//! How a run begins and ends: the worker threads, and the first coroutine, which may borrow from the caller.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::{Arc, mpsc};
use std::thread;

use super::abort::AbortOnUnwind;
use super::blocking_pool as pool;
use super::cancel;
use super::context::{self, Running};
use super::coroutine::Coroutine;
use super::defer::Defer;
use super::panic_hook;
use super::pin::Pinned;
use super::scheduler::Scheduler;
use super::stack;
use super::task::{Flag, Task};
use super::workers::{Injector, WorkerHandle, Workers};

/// How the workers of a run are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Bytes of the stack of each coroutine that does not ask for another size.
    pub(crate) stack_size: usize,
    /// No plain thread takes part: waits that only one could end count for deadlocks.
    pub(crate) strict: bool,
    pub(crate) workers: usize,
    /// Each worker on a processor of its own.
    pub(crate) pin: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { stack_size: stack::DEFAULT_SIZE, strict: false, workers: 1, pin: false }
    }
}

/// [`start`] with the default settings: for calls of a plain thread that only a coroutine can make.
#[track_caller]
pub(crate) fn start_default<F: FnOnce() -> T, T>(f: F) -> T {
    start(Settings::default(), &Arc::default(), true, f)
}

/// Runs `f` as a coroutine on this thread, and all that comes of it on all workers, and returns its value.
/// When `f` has ended, the coroutines that are left are cancelled if `cancel_rest`, and awaited.
///
/// # Panics
///
/// With the panic of `f`, with the report of a deadlock, and when the system refuses what a run needs.
#[track_caller]
pub(crate) fn start<F: FnOnce() -> T, T>(
    settings: Settings,
    injector: &Arc<Injector>,
    cancel_rest: bool,
    f: F,
) -> T {
    let spawned = Location::caller();
    let result = Cell::new(None);
    let main = || {
        result.set(Some(panic::catch_unwind(AssertUnwindSafe(f))));
        context::running(|main| {
            let Some(Running { scheduler, task }) = main else {
                unreachable!("the first coroutine runs")
            };
            cancel::drop_locals(task);
            if cancel_rest {
                for call in scheduler.close(task) {
                    cancel::catch_and_forget(|| drop(call));
                }
            }
        });
    };
    panic_hook::install();
    let workers = Workers::new(settings.workers, injector);
    let outcome = start_workers(settings, &workers, spawned, Box::new(main));
    if let Some(waits) = workers.deadlock() {
        panic!("deadlock: every coroutine that is left waits for another of them{waits}");
    }
    match (outcome, result.into_inner()) {
        (Ok(()), Some(Ok(value))) => value,
        (Ok(()), Some(Err(payload))) => panic::resume_unwind(payload),
        (Ok(()), None) => unreachable!("the main coroutine has ended"),
        (Err(error), _) => panic!("cannot run coroutines on this thread: {error}"),
    }
}

/// Runs `main` on the first worker, this thread, and what comes of it on all.
fn start_workers(
    settings: Settings,
    workers: &Arc<Workers>,
    spawned: &'static Location<'static>,
    main: Box<dyn FnOnce() + '_>,
) -> io::Result<()> {
    let handle = |number| WorkerHandle { workers: Arc::clone(workers), number };
    thread::scope(|s| {
        // However this is left before the first worker runs, the others find nothing to do and end.
        let never_ran = Defer::new(|| workers.idle(0));
        let (sender, ready) = mpsc::channel();
        let mut threads = Vec::new();
        for number in 1..workers.len() {
            let (theirs, worker) = (sender.clone(), handle(number));
            let body = move || {
                let _pinned = settings.pin.then(|| Pinned::new(number));
                let report = |outcome| theirs.send(outcome).unwrap_or_default();
                context::with(|scheduler| work(scheduler, settings, worker, report));
            };
            let name = format!("plainsong-worker-{number}");
            match thread::Builder::new().name(name).spawn_scoped(s, body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    workers.idle(number);
                    let _ = sender.send(Err(error));
                }
            }
        }
        drop(sender);
        let started: io::Result<()> = ready.iter().take(workers.len() - 1).collect();
        let outcome = started.and_then(|()| {
            // Last: threads inherit where they may run.
            let _pinned = if settings.pin { Some(Pinned::new(0)?) } else { None };
            context::with(|scheduler| {
                let ready = || {
                    never_ran.disarm();
                    workers.injector().begin(workers);
                };
                run(scheduler, settings, handle(0), spawned, ready, main)
            })
        });
        workers.injector().end(workers);
        for thread in threads {
            // The scope would wait for what it runs only, and not for its thread-locals, which
            // hold descriptors and stacks. It cannot panic: that would have ended the process.
            let _ = thread.join();
        }
        outcome
    })
}

/// Runs `main` as a coroutine, and whatever comes to this worker, until the run is over; calls `ready` when
/// nothing can go wrong any more.
///
/// `main` must not unwind.
///
/// # Errors
///
/// When this thread runs coroutines already, or the kernel refuses what that takes.
fn run<'a>(
    scheduler: &Scheduler,
    settings: Settings,
    worker: WorkerHandle,
    spawned: &'static Location<'static>,
    ready: impl FnOnce(),
    main: Box<dyn FnOnce() + 'a>,
) -> io::Result<()> {
    let _running = scheduler.start(settings.stack_size, settings.strict, worker)?;
    let stack = scheduler.take_stack(settings.stack_size)?;
    ready();
    // SAFETY: nothing calls `main` or looks at what it borrows after this function returns: the
    // scheduler returns only when no coroutine is left, and this one is then at its end.
    //
    // It cannot be left otherwise: a panic of the loop ends the process (`AbortOnUnwind`), and a
    // coroutine that cannot be ended does too, when it borrows (`Flag::Borrows`).
    let main = unsafe { mem::transmute::<Box<dyn FnOnce() + 'a>, Box<dyn FnOnce()>>(main) };
    // Coroutines would be left that borrow.
    let abort = AbortOnUnwind::new();
    let coroutine = Coroutine::new(stack, main);
    let task = Task::new(coroutine, scheduler.allocate_id(), Some("main".into()), spawned);
    task.flags.set(Flag::Borrows, true);
    task.flags.set(Flag::Main, true);
    scheduler.add(task);
    // On a thread of the blocking pool, a run counts as a wait: it is one most of the time.
    pool::while_blocked(|| scheduler.run());
    abort.disarm();
    Ok(())
}

/// Runs whatever comes to this worker, until the run is over; says before whether it can.
fn work(
    scheduler: &Scheduler,
    settings: Settings,
    worker: WorkerHandle,
    ready: impl FnOnce(io::Result<()>),
) {
    let (workers, number) = (worker.workers.clone(), worker.number);
    match scheduler.start(settings.stack_size, settings.strict, worker) {
        Ok(_running) => {
            ready(Ok(()));
            let abort = AbortOnUnwind::new();
            scheduler.run();
            abort.disarm();
        }
        Err(error) => {
            workers.idle(number);
            ready(Err(error));
        }
    }
}

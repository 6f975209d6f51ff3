//! How a run begins and ends: the worker threads, and the main coroutine, which may borrow from the
//! caller.

use std::cell::Cell;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::Arc;

use super::abort::AbortOnUnwind;
use super::blocking_pool as pool;
use super::cancel;
use super::context::{self, Running};
use super::coroutine::{Coroutine, lending};
use super::current;
use super::defer::Defer;
use super::mutex::{Condvar, Mutex};
use super::panic_hook;
use super::pin::Pinned;
use super::scheduler::{Guest, Scheduler};
use super::settings::{Moment, Settings};
use super::shared::thread;
#[cfg(all(plainsong_model, not(plainsong_loom)))]
use super::shared::thread::SpawnScoped;
use super::signals;
use super::task::{Flag, Task};
use super::workers::{Injector, WorkerHandle, Workers};

/// Another loop, which drives the loop of each worker on the worker's thread. It must not unwind.
pub(crate) type Host<'a> = dyn Fn(Guest<'_>) + Sync + 'a;

/// [`start`] with the default settings, for an operation that a plain thread calls and only a
/// coroutine can do.
#[track_caller]
pub(crate) fn start_default<F: FnOnce() -> T, T>(f: F) -> T {
    start(&Settings::default(), &Arc::default(), true, None, f)
}

/// Runs `f` as the main coroutine on this thread, with all workers, and returns its value. When `f`
/// has ended, waits for the coroutines that are left, after cancelling them if `cancel_rest`.
///
/// # Panics
///
/// With the panic of `f`, with the report of a deadlock, and when the system refuses what a run
/// needs.
#[track_caller]
pub(crate) fn start<F: FnOnce() -> T, T>(
    settings: &Settings,
    injector: &Arc<Injector>,
    cancel_rest: bool,
    host: Option<&Host<'_>>,
    f: F,
) -> T {
    let spawned = Location::caller();
    let result = Cell::new(None);
    let main = || {
        current::with(|main| main.map(|main| context::call_hooks(main, Moment::Resume)));
        let returned = panic::catch_unwind(AssertUnwindSafe(f));
        let has_panicked = returned.is_err();
        result.set(Some(returned));
        context::running(|main| {
            let Some(Running { scheduler, task }) = main else {
                unreachable!("the first coroutine runs")
            };
            // No unwind is left, whatever has been caught.
            task.clear_raised();
            cancel::drop_locals(task);
            if cancel_rest {
                if !has_panicked {
                    scheduler.report_unstarted();
                }
                for call in scheduler.close(task) {
                    cancel::catch_and_forget(|| drop(call));
                }
                // These may have made new locals.
                cancel::drop_locals(task);
            }
            context::call_hooks(task, Moment::End);
        });
    };
    let _place = context::prepare_run();
    panic_hook::install();
    let workers = Workers::new(settings.workers);
    let outcome = start_workers(settings, &workers, injector, host, spawned, Box::new(main));
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

/// Starts the other workers, and runs `main` on the first one, which is this thread.
fn start_workers(
    settings: &Settings,
    workers: &Arc<Workers>,
    injector: &Arc<Injector>,
    host: Option<&Host<'_>>,
    spawned: &'static Location<'static>,
    main: Box<dyn FnOnce() + '_>,
) -> io::Result<()> {
    let handle = |number| WorkerHandle {
        workers: Arc::clone(workers),
        injector: Arc::clone(injector),
        number,
    };
    let starts = &Starts::new(workers.len() - 1);
    thread::scope(|s| {
        // If this is left before the first worker runs, the first worker counts as idle. So the
        // others find the run over, and end.
        let never_ran = Defer::new(|| workers.idle(0));
        let mut threads = Vec::new();
        for number in 1..workers.len() {
            let worker = handle(number);
            // In a box, so that std's part of it is compiled once for all threads.
            let body: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                let _pinned = settings.pin.then(|| Pinned::new(number));
                let report = |outcome| starts.report(outcome);
                context::with(|scheduler| work(scheduler, settings, worker, host, report));
            });
            let name = format!("plainsong-worker-{number}");
            match thread::Builder::new().name(name).spawn_scoped(s, body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    workers.idle(number);
                    starts.report(Err(error));
                }
            }
        }
        let outcome = starts.wait().and_then(|()| {
            // After the other threads were started, because threads inherit the set of processors.
            let _pinned = if settings.pin { Some(Pinned::new(0)?) } else { None };
            context::with(|scheduler| {
                let ready = || {
                    never_ran.disarm();
                    injector.begin(workers);
                };
                run(scheduler, settings, handle(0), host, spawned, ready, main)
            })
        });
        injector.end(workers);
        for thread in threads {
            // The scope waits only until the closure has returned. `join` also waits for the
            // destructors of the thread-locals, which hold descriptors and stacks. The thread
            // cannot have panicked: that would have ended the process.
            let _ = thread.join();
        }
        outcome
    })
}

/// Runs `main` as a coroutine, and this worker's loop until the run is over. Calls `ready` when
/// nothing can fail any more.
///
/// `main` must not unwind.
///
/// # Errors
///
/// When this thread already runs coroutines, or the kernel refuses a reactor or a stack.
fn run(
    scheduler: &Scheduler,
    settings: &Settings,
    worker: WorkerHandle,
    host: Option<&Host<'_>>,
    spawned: &'static Location<'static>,
    ready: impl FnOnce(),
    main: Box<dyn FnOnce() + '_>,
) -> io::Result<()> {
    signals::protect_thread();
    // Dropped last. Until then, our frames use the scheduler.
    let _frames = current::enter_run();
    let _running = scheduler.start(settings, worker)?;
    let stack = scheduler.take_stack(settings.stack_size)?;
    ready();
    let mut main = Some(main);
    let mut main = || main.take().map_or((), |main| main());
    // The scheduler's loop returns only when no coroutine is left, so `main` has ended then.
    //
    // There is no other way out of it: a panic of the loop ends the process (`AbortOnUnwind`), and
    // so does abandoning a coroutine that borrows (`Flag::Borrows`).
    lending(|loan| {
        // An unwind would leave coroutines behind that borrow.
        let abort = AbortOnUnwind::new();
        let coroutine = Coroutine::new(stack, loan.lend(&mut main));
        let id = scheduler.allocate_id();
        let task = Task::new(coroutine, id, Some("main".into()), spawned, None);
        task.flags.set(Flag::Borrows, true);
        task.flags.set(Flag::Main, true);
        scheduler.add(task);
        // On a thread of the blocking pool, a run counts as a wait, because it mostly waits.
        pool::while_blocked(|| drive(scheduler, host));
        abort.disarm();
    });
    Ok(())
}

/// Runs this worker's loop until the run is over, as the guest of a host if there is one.
fn drive(scheduler: &Scheduler, host: Option<&Host<'_>>) {
    if let Some(host) = host {
        host(Guest::new(scheduler));
        scheduler.leave_host();
    }
    // No coroutine may be left, whatever the host has done.
    scheduler.run();
}

/// The starts of the worker threads.
struct Starts {
    // How many have not reported yet, and the first error.
    state: Mutex<(usize, io::Result<()>)>,
    done: Condvar,
}

impl Starts {
    fn new(threads: usize) -> Self {
        Self { state: Mutex::new((threads, Ok(()))), done: Condvar::new() }
    }

    fn report(&self, outcome: io::Result<()>) {
        let (left, all) = &mut *self.state.lock();
        *left -= 1;
        if all.is_ok() {
            *all = outcome;
        }
        self.done.notify_one();
    }

    /// Waits until all threads have reported.
    fn wait(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        while state.0 > 0 {
            state = self.done.wait(state);
        }
        mem::replace(&mut state.1, Ok(()))
    }
}

/// Runs this worker's loop until the run is over. First reports through `ready` whether it can.
fn work(
    scheduler: &Scheduler,
    settings: &Settings,
    worker: WorkerHandle,
    host: Option<&Host<'_>>,
    ready: impl FnOnce(io::Result<()>),
) {
    let (workers, number) = (worker.workers.clone(), worker.number);
    signals::protect_thread();
    match scheduler.start(settings, worker) {
        Ok(_running) => {
            ready(Ok(()));
            let abort = AbortOnUnwind::new();
            drive(scheduler, host);
            abort.disarm();
        }
        Err(error) => {
            workers.idle(number);
            ready(Err(error));
        }
    }
}

//! How coroutines are made, from a [`Spec`] and a closure. [`here`] makes a task of the calling
//! thread. [`anywhere`] makes a job that any worker may start.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::panic::Location;
use std::sync::Arc;

use super::address::Address;
use super::cancel::{self, Failure};
use super::context;
use super::coroutine::{Coroutine, Lent};
use super::current;
use super::error::explained;
use super::id::Id;
use super::job::{Job, PendingTask, Refusal};
use super::mailbox::ThreadId;
use super::packet::{Home, Receiver, Sender, packet};
use super::scheduler::Scheduler;
use super::scopes::{CancelReason, Level};
use super::settings::Moment;
use super::stack::{self, Stack};
use super::task::{Flag, Task};

/// The settings of one coroutine.
pub(crate) struct Spec {
    pub(crate) name: Option<Arc<str>>,
    /// In bytes. `None` for the runtime's default. [`stack::check_size`] checks it.
    pub(crate) stack_size: Option<usize>,
    pub(crate) spawned: &'static Location<'static>,
    /// The coroutine that spawns it.
    pub(crate) parent: Option<Id>,
    /// It borrows from other stacks, so it must not be abandoned.
    pub(crate) borrows: bool,
}

impl Spec {
    /// The default settings, with the place of the spawn.
    #[inline]
    pub(crate) fn at(spawned: &'static Location<'static>) -> Self {
        let parent = current::with(|task| task.map(|task| task.id));
        Self { name: None, stack_size: None, spawned, parent, borrows: false }
    }
}

/// The parts of a new coroutine's handle.
pub(crate) struct Spawned<T> {
    pub(crate) receiver: Receiver<T>,
    pub(crate) address: Address,
    pub(crate) name: Option<Arc<str>>,
}

/// Closures and results above this many bytes get special care: a closure is boxed, and a result
/// gets a larger stack.
const LARGE: usize = 2048;

/// The stack size for a coroutine that returns a `T`, if `size` is requested. In a debug build,
/// about ten of our frames hold a copy each of the result that they pass on.
fn size_for<T>(scheduler: &Scheduler, size: Option<usize>) -> Option<usize> {
    if size_of::<T>() <= LARGE {
        return size;
    }
    let size = size.unwrap_or_else(|| scheduler.stack_size());
    Some(size.saturating_add(10 * size_of::<T>()).min(stack::MAX_SIZE))
}

/// A stack for a coroutine of this thread that returns a `T`.
///
/// # Errors
///
/// Outside of a run, for an impossible size, and when the system has no room for a stack.
#[inline]
pub(crate) fn take_stack<T>(scheduler: &Scheduler, size: Option<usize>) -> io::Result<Stack> {
    check_running(scheduler)?;
    let size = match size_for::<T>(scheduler, size) {
        None => scheduler.stack_size(),
        Some(size) => stack::check_size(size)?,
    };
    scheduler.take_stack(size)
}

/// # Errors
///
/// Outside of a run.
#[inline]
pub(crate) fn check_running(scheduler: &Scheduler) -> io::Result<()> {
    if scheduler.is_running() { Ok(()) } else { Err(not_running()) }
}

#[cold]
fn not_running() -> io::Error {
    explained(
        io::ErrorKind::Other,
        "no plainsong runtime runs on this thread; wrap the program in `plainsong::run(|| …)`, or \
         spawn through the runtime's `Handle`",
    )
}

/// The error of a thread-local's destructor that spawns when the scheduler has been dropped.
#[cold]
pub(crate) fn is_ending() -> io::Error {
    explained(
        io::ErrorKind::Other,
        "the thread is ending, and its plainsong scheduler has been dropped; do not spawn in a \
         destructor of a thread-local that is older than the scheduler",
    )
}

/// Starts a coroutine of this thread on `stack`. It calls `last` at its very end, when it no longer
/// uses `f` or its result. `last` must not unwind. If there was no stack for the coroutine, so that
/// `f` was not called, `last` gets the reason.
#[inline]
pub(crate) fn here<F, T, L>(
    scheduler: &Scheduler,
    stack: Stack,
    spec: Spec,
    f: Lent<F>,
    last: L,
) -> Spawned<T>
where
    F: FnOnce() -> T,
    L: FnOnce(Option<Refusal>) + 'static,
{
    let mailbox = scheduler.mailbox();
    let (sender, receiver) = packet(Home::Thread(mailbox.thread()));
    let (id, name) = (scheduler.allocate_id(), spec.name.clone());
    let task = if size_of::<F>() > LARGE {
        make_task(stack, id, spec, f.boxed(), sender, last)
    } else {
        make_task(stack, id, spec, f, sender, last)
    };
    let slot = scheduler.add(task);
    Spawned { receiver, address: Address::known(mailbox, slot, id), name }
}

/// [`anywhere`], for a coroutine that borrows nothing.
pub(crate) fn owned_anywhere<F, T>(
    scheduler: &Scheduler,
    home: Home,
    spec: Spec,
    f: F,
) -> (Job, Spawned<T>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    anywhere(scheduler, home, spec, Lent::nothing(f), |_| ())
}

/// A task for `f` on `stack`, with no handle.
#[inline]
pub(crate) fn detached<F>(stack: Stack, id: Id, thread: ThreadId, spec: Spec, f: F) -> Task
where
    F: FnOnce() + 'static,
{
    if size_of::<F>() > LARGE {
        let f: Box<dyn FnOnce()> = Box::new(f);
        return detached(stack, id, thread, spec, f);
    }
    let (sender, _) = packet(Home::Thread(thread));
    make_task(stack, id, spec, Lent::nothing(f), sender, |_| ())
}

/// Makes a job for a coroutine of `home`. The coroutine calls `last` at its very end, as [`here`]
/// does. So does the drop of an unstarted job. `last` must not unwind.
pub(crate) fn anywhere<'a, F, T, L>(
    scheduler: &Scheduler,
    home: Home,
    spec: Spec,
    f: Lent<F>,
    last: L,
) -> (Job, Spawned<T>)
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
    L: FnOnce(Option<Refusal>) + Send + 'static,
{
    debug_assert!(!matches!(home, Home::Thread(_)), "any worker may start it");
    let (sender, receiver) = packet(home);
    let (id, name) = (scheduler.allocate_id(), spec.name.clone());
    let stack_size = size_for::<T>(scheduler, spec.stack_size).and_then(NonZero::new);
    // SAFETY: a pending task that has started or ended no longer has its parts. By the promise of
    // a `Lent`, what `f` borrows lives until then.
    let job = unsafe {
        if size_of::<F>() > LARGE {
            let f = f.boxed_send();
            Job::new(Pending { parts: Some((id, spec, f, sender, last)), stack_size })
        } else {
            Job::new(Pending { parts: Some((id, spec, f, sender, last)), stack_size })
        }
    };
    let address = Address::pending(Arc::clone(job.slot()), id);
    (job, Spawned { receiver, address, name })
}

#[inline]
fn make_task<F, T, L>(
    stack: Stack,
    id: Id,
    spec: Spec,
    f: Lent<F>,
    sender: Sender<T>,
    last: L,
) -> Task
where
    F: FnOnce() -> T,
    L: FnOnce(Option<Refusal>) + 'static,
{
    let (completion, f) = (sender.completion(), f.into_inner());
    let whole = move || {
        body(f, sender);
        last(None);
    };
    // SAFETY: only `f` and its result borrow. `body` uses them up, and the promise that `f` came
    // with lasts until then. If `whole` is dropped, so is `f`.
    let coroutine = Coroutine::new(stack, unsafe { Lent::new(whole) });
    let task = Task::new(coroutine, id, spec.name, spec.spawned, spec.parent);
    task.completion.set(Some(completion));
    task.flags.set(Flag::Borrows, spec.borrows);
    task
}

/// The body of a coroutine: runs `f`, then the destructors of its locals and of its result.
#[inline]
fn body<F: FnOnce() -> T, T>(f: F, sender: Sender<T>) {
    current::with(|task| {
        let Some(task) = task else { unreachable!("a coroutine runs as the current task") };
        let cancelled = task.scopes.yields_slowly() && {
            context::call_hooks(task, Moment::Resume);
            task.scopes.is_pending()
        };
        let result = if cancelled {
            // It was cancelled before it began, so `f` is not called.
            cancel::catch_and_forget(|| drop(f));
            Err(Failure::Cancelled(task.scopes.reason(Level::Root)))
        } else {
            cancel::catch(task, Level::Root, f)
        };
        // No unwind is left, whatever the body or the library has caught.
        task.clear_raised();
        cancel::drop_locals(task);
        // From here on, `abandon` must not complete the packet: `finish` does, and it runs user
        // code.
        task.completion.set(None);
        cancel::catch_and_forget(|| sender.finish(result));
        // The user code may have made new locals.
        cancel::drop_locals(task);
        if task.scopes.is_hooked() {
            context::call_hooks(task, Moment::End);
        }
    });
}

/// Ends a coroutine that is not started, as cancelled or with an error, which it returns.
fn end<F, T>(
    f: F,
    sender: Sender<T>,
    why: Result<Option<CancelReason>, Refusal>,
) -> Option<Refusal> {
    let (failure, refusal) = match why {
        Ok(reason) => (Failure::Cancelled(reason), None),
        Err(refusal) => (Failure::Panicked(Box::new(Box::new(refusal.clone()))), Some(refusal)),
    };
    // Both are user code.
    cancel::catch_and_forget(|| drop(f));
    cancel::catch_and_forget(|| sender.finish(Err(failure)));
    refusal
}

type Parts<F, T, L> = (Id, Spec, Lent<F>, Sender<T>, L);

/// A coroutine that has not started.
struct Pending<F: FnOnce() -> T, T, L: FnOnce(Option<Refusal>)> {
    // `None` once it has started or ended.
    parts: Option<Parts<F, T, L>>,
    // One word, to keep the allocation small.
    stack_size: Option<NonZero<usize>>,
}

impl<F, T, L> PendingTask for Pending<F, T, L>
where
    F: FnOnce() -> T + Send,
    T: Send,
    L: FnOnce(Option<Refusal>) + Send + 'static,
{
    fn stack_size(&self) -> Option<usize> {
        self.stack_size.map(NonZero::get)
    }

    fn spawned(&self) -> Option<&'static Location<'static>> {
        self.parts.as_ref().map(|(_, spec, ..)| spec.spawned)
    }

    fn make_task(&mut self, stack: Stack) -> Option<Task> {
        let (id, spec, f, sender, last) = self.parts.take()?;
        Some(make_task(stack, id, spec, f, sender, last))
    }

    fn make_end(
        &mut self,
        stack: Stack,
        why: Result<Option<CancelReason>, Refusal>,
    ) -> Option<Task> {
        let (id, spec, f, sender, last) = self.parts.take()?;
        let f = f.into_inner();
        let whole = move || {
            let refusal = end(f, sender, why);
            current::with(|task| {
                let Some(task) = task else { unreachable!("a coroutine runs as the current task") };
                task.clear_raised();
                cancel::drop_locals(task);
            });
            last(refusal);
        };
        // SAFETY: as in `make_task`, with `end` in the place of `body`.
        let coroutine = Coroutine::new(stack, unsafe { Lent::new(whole) });
        let task = Task::new(coroutine, id, spec.name, spec.spawned, spec.parent);
        // Others wait for its stack, so it must not be abandoned.
        task.flags.set(Flag::Borrows, true);
        Some(task)
    }

    fn end(&mut self, reason: Option<CancelReason>) {
        let Some((_, _, f, sender, last)) = self.parts.take() else { return };
        last(end(f, sender, Ok(reason)));
    }
}

/// The home of a coroutine that any worker of this thread's run may start.
pub(crate) fn this_run(scheduler: &Scheduler) -> Home {
    let run = scheduler.with_worker(|worker| Some(Home::Run(worker.workers.id())));
    run.unwrap_or(Home::Unknown)
}

/// Pushes a job to the worker with this `number` of the calling worker's run, or else to any.
pub(crate) fn place(job: Job, number: Option<usize>) {
    let refused = context::with(|scheduler| {
        let refused = scheduler.with_worker(|worker| match number {
            Some(number) => worker.workers.push_to(number, job).err(),
            None => worker.workers.push(Some(worker.number), job).err(),
        });
        scheduler.note_job();
        refused
    });
    // The run is over only if a host of its loop calls this. Then the coroutine counts as
    // cancelled.
    drop(refused);
}

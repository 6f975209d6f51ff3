//! The one way in which coroutines are made: a [`Spec`], a closure, and two ends. [`here`] makes a task of
//! the calling thread; [`anywhere`] makes a job that any worker may start.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::panic::Location;
use std::sync::Arc;

use super::address::Address;
use super::cancel::{self, Failure};
use super::context;
use super::coroutine::Coroutine;
use super::current;
use super::id::Id;
use super::job::{Job, PendingTask};
use super::packet::{Home, Receiver, Sender, packet};
use super::scheduler::Scheduler;
use super::scopes::Level;
use super::stack::{self, Stack};
use super::task::{Flag, Task};

/// What is asked for when a coroutine is spawned.
pub(crate) struct Spec {
    pub(crate) name: Option<Arc<str>>,
    /// In bytes; the runtime's without one. Checked by [`stack::check_size`].
    pub(crate) stack_size: Option<usize>,
    pub(crate) spawned: &'static Location<'static>,
    /// Others have lent it what is on their stacks, so it must not be given up.
    pub(crate) borrows: bool,
}

impl Spec {
    /// Nothing but where it is spawned.
    #[inline]
    pub(crate) fn at(spawned: &'static Location<'static>) -> Self {
        Self { name: None, stack_size: None, spawned, borrows: false }
    }
}

/// A coroutine that has been spawned, as its handle sees it.
pub(crate) struct Spawned<T> {
    pub(crate) receiver: Receiver<T>,
    pub(crate) address: Address,
    pub(crate) name: Option<Arc<str>>,
}

/// Bytes of a closure or a result above which it does not go on a stack as it is.
const LARGE: usize = 2048;

/// The size of stack for a coroutine that returns a `T`, where `size` is asked for: in a debug build, some
/// ten frames of ours have a copy each of what they pass on.
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
/// Outside of a run, for a size that is not possible, and when the system has no room for a stack.
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
    io::Error::other(
        "no plainsong runtime runs on this thread; wrap the program in `plainsong::run(|| …)`, or \
         spawn through the runtime's `Handle`",
    )
}

/// Starts a coroutine of this thread on `stack`. The last thing it does is to call `last`, which must not
/// unwind.
///
/// # Safety
///
/// What `f` and its result borrow must live until `last` has been called, and the result must be
/// dropped or forgotten while they live.
#[inline]
pub(crate) unsafe fn here<F, T, L>(
    scheduler: &Scheduler,
    stack: Stack,
    spec: Spec,
    f: F,
    last: L,
) -> Spawned<T>
where
    F: FnOnce() -> T,
    L: FnOnce(),
{
    let mailbox = scheduler.mailbox();
    let (sender, receiver) = packet(Home::Thread(mailbox.thread()));
    let (id, name) = (scheduler.allocate_id(), spec.name.clone());
    // SAFETY: by the caller's promise. (A large closure stays where it is until it is called.)
    let task = unsafe {
        if size_of::<F>() > LARGE {
            let f: Box<dyn FnOnce() -> T + '_> = Box::new(f);
            make_task(stack, id, spec, f, sender, last)
        } else {
            make_task(stack, id, spec, f, sender, last)
        }
    };
    let slot = scheduler.add(task);
    Spawned { receiver, address: Address::known(mailbox, slot, id), name }
}

/// Starts a coroutine of this thread that borrows nothing.
///
/// # Errors
///
/// Those of [`take_stack`].
#[inline]
pub(crate) fn owned_here<F, T>(scheduler: &Scheduler, spec: Spec, f: F) -> io::Result<Spawned<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let stack = take_stack::<T>(scheduler, spec.stack_size)?;
    // SAFETY: nothing is borrowed.
    Ok(unsafe { here(scheduler, stack, spec, f, || ()) })
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
    // SAFETY: nothing is borrowed.
    unsafe { anywhere(scheduler, home, spec, f, || ()) }
}

/// A task for `f` on `stack`, with no handle.
#[inline]
pub(crate) fn detached<F>(scheduler: &Scheduler, stack: Stack, spec: Spec, f: F) -> Task
where
    F: FnOnce() + 'static,
{
    if size_of::<F>() > LARGE {
        let f: Box<dyn FnOnce()> = Box::new(f);
        return detached(scheduler, stack, spec, f);
    }
    let (sender, _) = packet(Home::Thread(scheduler.mailbox().thread()));
    // SAFETY: `f` borrows nothing that could end.
    unsafe { make_task(stack, scheduler.allocate_id(), spec, f, sender, || ()) }
}

/// Makes a job of what will be a coroutine of `home`. The last thing that the coroutine does, or the drop of
/// an unstarted job, is to call `last`, which must not unwind.
///
/// # Safety
///
/// As for [`here`]; and the job must be started or dropped.
pub(crate) unsafe fn anywhere<'a, F, T, L>(
    scheduler: &Scheduler,
    home: Home,
    spec: Spec,
    f: F,
    last: L,
) -> (Job, Spawned<T>)
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
    L: FnOnce() + Send + 'a,
{
    debug_assert!(!matches!(home, Home::Thread(_)), "any worker may start it");
    let (sender, receiver) = packet(home);
    let (id, name) = (scheduler.allocate_id(), spec.name.clone());
    let stack_size = size_for::<T>(scheduler, spec.stack_size).and_then(NonZero::new);
    // SAFETY: started or ended, it has none of its parts any more; and what they borrow lives until
    // `last` has been called, by the caller's promise, which is after that.
    let job = unsafe {
        if size_of::<F>() > LARGE {
            let f: Box<dyn FnOnce() -> T + Send + 'a> = Box::new(f);
            Job::new(Pending { parts: Some((id, spec, f, sender, last)), stack_size })
        } else {
            Job::new(Pending { parts: Some((id, spec, f, sender, last)), stack_size })
        }
    };
    let address = Address::pending(Arc::clone(job.slot()), id);
    (job, Spawned { receiver, address, name })
}

/// # Safety
///
/// As for [`here`].
#[inline]
unsafe fn make_task<F, T, L>(
    stack: Stack,
    id: Id,
    spec: Spec,
    f: F,
    sender: Sender<T>,
    last: L,
) -> Task
where
    F: FnOnce() -> T,
    L: FnOnce(),
{
    let completion = sender.completion();
    // SAFETY: by the caller's promise.
    let coroutine = unsafe {
        Coroutine::new_unchecked(stack, move || {
            body(f, sender);
            last();
        })
    };
    let task = Task::new(coroutine, id, spec.name, spec.spawned);
    task.completion.set(Some(completion));
    task.flags.set(Flag::Borrows, spec.borrows);
    task
}

/// What runs on a coroutine's stack: `f`, then the destructors of its locals and of its result.
#[inline]
fn body<F: FnOnce() -> T, T>(f: F, sender: Sender<T>) {
    current::with(|task| {
        let Some(task) = task else { unreachable!("a coroutine runs as the current task") };
        let result = if task.scopes.is_pending() {
            // Cancelled before it began: it never does.
            cancel::catch_and_forget(|| drop(f));
            Err(Failure::Cancelled)
        } else {
            cancel::catch(task, Level::Root, f)
        };
        cancel::drop_locals(task);
        // From here on the packet is no longer ours to complete: code of users runs while it is finished.
        task.completion.set(None);
        cancel::catch_and_forget(|| sender.finish(result));
        // That code may have made locals again.
        cancel::drop_locals(task);
    });
}

/// A coroutine that has not started.
struct Pending<F: FnOnce() -> T, T, L: FnOnce()> {
    // `None` once it has started, or ended.
    parts: Option<(Id, Spec, F, Sender<T>, L)>,
    // A word: allocators are quickest with what is small.
    stack_size: Option<NonZero<usize>>,
}

impl<F, T, L> PendingTask for Pending<F, T, L>
where
    F: FnOnce() -> T + Send,
    T: Send,
    L: FnOnce() + Send,
{
    fn stack_size(&self) -> Option<usize> {
        self.stack_size.map(NonZero::get)
    }

    fn make_task(&mut self, stack: Stack) -> Option<Task> {
        let (id, spec, f, sender, last) = self.parts.take()?;
        // SAFETY: what `f` borrows lives until `last` has been called, which is the end of the
        // coroutine, by the promise to `anywhere`.
        Some(unsafe { make_task(stack, id, spec, f, sender, last) })
    }

    fn end(&mut self, error: Option<io::Error>) {
        let Some((_, _, f, sender, last)) = self.parts.take() else { return };
        let failure = match error {
            None => Failure::Cancelled,
            Some(error) => {
                let message =
                    format!("cannot start a coroutine that was spawned anywhere: {error}");
                Failure::Panicked(Box::new(Box::new(message)))
            }
        };
        // Both are code of users.
        cancel::catch_and_forget(|| drop(f));
        cancel::catch_and_forget(|| sender.finish(Err(failure)));
        last();
    }
}

/// The home of a coroutine that any worker of this thread's run may start.
pub(crate) fn this_run(scheduler: &Scheduler) -> Home {
    let run = scheduler.with_worker(|worker| Some(Home::Run(worker.workers.id())));
    run.unwrap_or(Home::Unknown)
}

/// Gives a job to a worker of the run of the calling thread, which is one: to the worker with this `number`,
/// or to any.
pub(crate) fn place(job: Job, number: Option<usize>) {
    let refused = context::with(|scheduler| {
        scheduler.with_worker(|worker| match number {
            Some(number) => worker.workers.push_to(number, job).err(),
            None => worker.workers.push(Some(worker.number), job).err(),
        })
    });
    // A run is not over while a coroutine of it calls this.
    debug_assert!(refused.is_none());
}

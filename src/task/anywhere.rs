//! Coroutines that any worker may start.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::panic::Location;
use std::sync::Arc;

use super::join::JoinHandle;
use super::spawn::{Origin, check_running, refuse, start};
use crate::engine::address::Address;
use crate::engine::cancel::{self, Failure};
use crate::engine::context;
use crate::engine::job::{self, Job};
use crate::engine::packet::{Sender, packet};
use crate::engine::remote::Door;
use crate::engine::task::Id;
use crate::engine::workers::Injector;
use crate::thread::Thread;

/// Starts a coroutine on any worker of the runtime: on this one, unless another sleeps or has far less
/// to do, or on one that has nothing to do and takes it before it has started. From then on it stays there.
///
/// What a worker starts first is what was spawned there last, so that a program which branches like a
/// tree needs few stacks; no one waits for ever. With one worker it is [`spawn`](crate::spawn), but
/// for that order.
///
/// # Panics
///
/// Outside of a runtime; a plain thread spawns through a [`Handle`](crate::Handle).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = plainsong::Runtime::builder().workers(2).build()?;
/// let sum: u64 = runtime.run(|| {
///     let halves = [0..500, 500..1000].map(|half| plainsong::spawn_anywhere(|| half.sum::<u64>()));
///     halves.into_iter().map(|half| half.join().unwrap()).sum()
/// });
/// assert_eq!(sum, 499_500);
/// # Ok(())
/// # }
/// ```
#[track_caller]
#[inline]
pub fn spawn_anywhere<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let spawned = Location::caller();
    if let Err(error) = context::with(check_running) {
        refuse(&error);
    }
    let (job, handle) = job(home(), None, None, spawned, f);
    place(job);
    handle
}

/// Where what this thread's run may start anywhere is at home.
pub(super) fn home() -> &'static Door {
    let home = context::with(|cx| cx.scheduler.at_post(|post| Some(post.workers.home)));
    home.unwrap_or_else(Door::nowhere)
}

/// Starts a coroutine on the run that `injector` knows, or on its next one.
pub(crate) fn inject<F, T>(
    injector: &Arc<Injector>,
    spawned: &'static Location<'static>,
    f: F,
) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let ours = context::with(|cx| {
        cx.scheduler.at_post(|post| Arc::ptr_eq(&post.workers.injector, injector))
    });
    // From outside, it is not known which run will start it.
    let home = if ours { home() } else { Door::nowhere() };
    let (job, handle) = job(home, None, None, spawned, f);
    if ours {
        place(job)
    } else {
        injector.push(job)
    }
    handle
}

/// What will be a coroutine, `home` is for its packet: a job that makes one of it, and the handle.
pub(super) fn job<F, T>(
    home: &'static Door,
    name: Option<Arc<str>>,
    stack_size: Option<usize>,
    spawned: &'static Location<'static>,
    f: F,
) -> (Job, JoinHandle<T>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: `f` and its result borrow nothing that could end.
    unsafe { job_unchecked(home, name, stack_size, spawned, false, f, || ()) }
}

/// [`job`], for a coroutine that may borrow: `borrows` says whether it does. `home` is that of the run that
/// will start it, or nowhere. `last` is the last thing that the coroutine does, or the drop of an
/// unstarted one; it must not unwind.
///
/// # Safety
///
/// What `f` and its result borrow must live until `last` has been called, and the handle must be
/// dropped or forgotten while they live.
pub(super) unsafe fn job_unchecked<'a, F, T, L>(
    home: &'static Door,
    name: Option<Arc<str>>,
    stack_size: Option<usize>,
    spawned: &'static Location<'static>,
    borrows: bool,
    f: F,
    last: L,
) -> (Job, JoinHandle<T>)
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
    L: FnOnce() + Send + 'a,
{
    let (sender, receiver) = packet(home);
    let id = context::with(|cx| cx.allocate_id());
    let parts = Some((Origin { id, name: name.clone(), spawned, borrows }, f, sender, last));
    // SAFETY: started or ended, it has none of its parts any more; and what they borrow lives until
    // `last` has been called, by the caller's promise, which is after that.
    let job = unsafe { Job::new(Seed { parts, stack_size: stack_size.and_then(NonZero::new) }) };
    let address = Address::open(Arc::clone(job.placement()), id);
    (job, JoinHandle { receiver, thread: Thread::coroutine(address, name), id })
}

/// Gives a job to a worker; the calling thread is one, and runs.
pub(super) fn place(job: Job) {
    let refused = context::with(|cx| {
        cx.scheduler.at_post(|post| post.workers.push(Some(post.number), job).err())
    });
    // A run is not over while somebody in it calls this.
    debug_assert!(refused.is_none());
}

/// Gives a job to one worker of the run of the calling thread.
pub(super) fn place_on(number: usize, job: Job) {
    let refused =
        context::with(|cx| cx.scheduler.at_post(|post| post.workers.push_to(number, job).err()));
    debug_assert!(refused.is_none());
}

/// A coroutine that has not started.
struct Seed<F: FnOnce() -> T, T, L: FnOnce()> {
    // `None` once it has started, or ended.
    parts: Option<(Origin, F, Sender<T>, L)>,
    // A word: allocators are quickest with what is small.
    stack_size: Option<NonZero<usize>>,
}

impl<F, T, L> job::Seed for Seed<F, T, L>
where
    F: FnOnce() -> T + Send,
    T: Send,
    L: FnOnce() + Send,
{
    fn start(&mut self) -> Option<(Id, &'static Door, u32)> {
        context::with(|cx| {
            let size = self.stack_size.map_or_else(|| cx.scheduler.stack_size(), NonZero::get);
            let stack = match cx.take_stack(size) {
                Ok(stack) => stack,
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            };
            let (origin, f, sender, last) = self.parts.take()?;
            let id = origin.id;
            // SAFETY: what `f` borrows lives until `last` has been called, which is the end of the
            // coroutine, by the promise to `job_unchecked`.
            let slot = unsafe { start(cx, stack, origin, f, sender, last) };
            Some((id, cx.door(), slot))
        })
    }

    fn end(&mut self) {
        self.end_with(Failure::Cancelled);
    }
}

impl<F: FnOnce() -> T, T, L: FnOnce()> Seed<F, T, L> {
    /// Ends it unstarted: nobody but its handle can be told.
    #[cold]
    fn fail(&mut self, error: &io::Error) {
        let message = format!("cannot start a coroutine that was spawned anywhere: {error}");
        self.end_with(Failure::Panicked(Box::new(Box::new(message))));
    }

    fn end_with(&mut self, failure: Failure) {
        let Some((_, f, sender, last)) = self.parts.take() else { return };
        // What is dropped may be any code.
        cancel::quietly(|| drop(f));
        cancel::quietly(|| sender.finish(Err(failure)));
        last();
    }
}

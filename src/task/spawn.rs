//! Starting coroutines.

#![allow(unsafe_code)]

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::anywhere;
use super::join::JoinHandle;
use super::scope::{Scope, ScopedJoinHandle};
use crate::engine::address::Address;
use crate::engine::cancel::{self, Failure};
use crate::engine::context::{self, Context};
use crate::engine::coroutine::Coroutine;
use crate::engine::packet::{Sender, packet};
use crate::engine::scheduler;
use crate::engine::stack::{self, Stack};
use crate::engine::task::{Flag, Id, Task};
use crate::thread::Thread;

/// Starts a coroutine on this thread; it runs at the next turn.
///
/// `f` need not be `Send`: a coroutine never leaves the thread that it was spawned on.
///
/// # Panics
///
/// Outside of a runtime (there is no scheduler to run it), and when no stack can be
/// made for it; [`Builder::spawn`] returns that as an error.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// plainsong::run(|| {
///     let count = Rc::new(Cell::new(0));
///     let theirs = count.clone();
///     let child = plainsong::spawn(move || theirs.set(1));
///     assert_eq!(count.get(), 0);
///     child.join().unwrap();
///     assert_eq!(count.get(), 1);
/// });
/// ```
#[track_caller]
#[inline]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // Not in the closure: it would be its caller.
    let spawned = Location::caller();
    match context::with(|cx| spawn_default(cx, spawned, f)) {
        Ok(handle) => handle,
        Err(error) => refuse(&error),
    }
}

#[cold]
#[track_caller]
pub(super) fn refuse(error: &io::Error) -> ! {
    panic!("cannot spawn a coroutine: {error}")
}

#[inline]
fn spawn_default<F, T>(
    cx: &Context,
    spawned: &'static Location<'static>,
    f: F,
) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let stack = take_stack(cx, cx.scheduler.stack_size())?;
    Ok(spawn_on(cx, stack, None, spawned, f))
}

pub(super) fn take_stack(cx: &Context, size: usize) -> io::Result<Stack> {
    check_running(cx)?;
    cx.take_stack(size)
}

pub(super) fn check_running(cx: &Context) -> io::Result<()> {
    if cx.scheduler.is_running() {
        return Ok(());
    }
    Err(io::Error::other(
        "no plainsong runtime runs on this thread; wrap the program in `plainsong::run(|| …)`, or \
         spawn through the runtime's `Handle`",
    ))
}

/// Starts a coroutine on `stack`.
#[inline]
pub(crate) fn spawn_on<F, T>(
    cx: &Context,
    stack: Stack,
    name: Option<Arc<str>>,
    spawned: &'static Location<'static>,
    f: F,
) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    // SAFETY: `f` borrows nothing that could end.
    unsafe { spawn_unchecked(cx, stack, name, spawned, false, f, || ()) }
}

/// Starts a coroutine on `stack` that may borrow: `borrows` says whether it does. The last thing it
/// does is call `last`, which must not unwind.
///
/// # Safety
///
/// What `f` and its result borrow must live until the coroutine has ended, and the result must be
/// dropped or forgotten before that ends.
#[inline]
pub(super) unsafe fn spawn_unchecked<F, T, L>(
    cx: &Context,
    stack: Stack,
    name: Option<Arc<str>>,
    spawned: &'static Location<'static>,
    borrows: bool,
    f: F,
    last: L,
) -> JoinHandle<T>
where
    F: FnOnce() -> T,
    L: FnOnce(),
{
    let (sender, receiver) = packet(cx.door());
    let origin = Origin { id: cx.allocate_id(), name, spawned, borrows };
    let (id, name) = (origin.id, origin.name.clone());
    // SAFETY: by the caller's promise.
    let slot = unsafe { start(cx, stack, origin, f, sender, last) };
    let thread = Thread::coroutine(Address::known(cx.door(), slot, id), name);
    JoinHandle { receiver, thread, id }
}

/// What is known of a coroutine before it starts.
pub(super) struct Origin {
    pub(super) id: Id,
    pub(super) name: Option<Arc<str>>,
    pub(super) spawned: &'static Location<'static>,
    pub(super) borrows: bool,
}

/// Makes a coroutine of this thread and returns its slot.
///
/// # Safety
///
/// As for [`spawn_unchecked`].
#[inline]
pub(super) unsafe fn start<F, T, L>(
    cx: &Context,
    stack: Stack,
    origin: Origin,
    f: F,
    sender: Sender<T>,
    last: L,
) -> u32
where
    F: FnOnce() -> T,
    L: FnOnce(),
{
    let header = sender.header();
    // SAFETY: by the caller's promise.
    let coroutine = unsafe {
        Coroutine::new_unchecked(stack, move || {
            body(f, sender);
            last();
        })
    };
    let task = Task::new(coroutine, origin.id, origin.name, origin.spawned);
    task.packet.set(Some(header));
    task.flags.set(Flag::Borrows, origin.borrows);
    cx.scheduler.add(task)
}

/// What runs on a coroutine's stack: `f`, then the destructors of its locals.
#[inline]
fn body<F: FnOnce() -> T, T>(f: F, sender: Sender<T>) {
    context::with_current(|task| {
        let Some(task) = task else { unreachable!("a coroutine runs as the current task") };
        let result = if task.interrupt.get() {
            // Cancelled before it began: it never does.
            cancel::quietly(|| drop(f));
            Err(Failure::Cancelled)
        } else {
            cancel::catch(task, None, f)
        };
        cancel::drop_locals(task);
        // Dropping a result that nobody wants may be any code.
        cancel::quietly(|| sender.finish(result));
    });
}

/// Names a coroutine or gives it a stack of another size.
///
/// ```
/// plainsong::run(|| {
///     let deep = plainsong::Builder::new().name("deep").stack_size(8 << 20).spawn(|| {
///         plainsong::current().name().map(str::to_owned)
///     });
///     assert_eq!(deep.unwrap().join().unwrap().as_deref(), Some("deep"));
/// });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    name: Option<Arc<str>>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A builder with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the coroutine, for reports and messages.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into());
        self
    }

    /// Sets the size of the coroutine's stack in bytes, which is rounded up to a power of two.
    /// Memory is used only as far as it is touched.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Starts the coroutine.
    ///
    /// # Errors
    ///
    /// Outside of a runtime; `InvalidInput` for a stack size below 16 KiB or above 1 GiB; and when the
    /// system has no room for another stack.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let spawned = Location::caller();
        let stack = self.take_stack()?;
        Ok(context::with(|cx| spawn_on(cx, stack, self.name, spawned, f)))
    }

    /// Starts the coroutine in a [`scope`](crate::scope), where it may borrow.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB; and when the system has no room for
    /// another stack.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let text = String::from("plain song");
    ///     let len = plainsong::scope(|s| {
    ///         let counts = plainsong::Builder::new().name("counts").spawn_scoped(s, || text.len());
    ///         counts.unwrap().join().unwrap()
    ///     });
    ///     assert_eq!(len, 10);
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let spawned = Location::caller();
        let stack = self.take_stack()?;
        Ok(scope.spawn_named(stack, self.name, spawned, f))
    }

    fn take_stack(&self) -> io::Result<Stack> {
        context::with(|cx| {
            let size = match self.stack_size {
                Some(size) => stack::check_size(size)?,
                None => cx.scheduler.stack_size(),
            };
            take_stack(cx, size)
        })
    }

    /// Starts the coroutine on any worker: see [`spawn_anywhere`](crate::spawn_anywhere).
    ///
    /// # Errors
    ///
    /// Outside of a runtime, and `InvalidInput` for a stack size below 16 KiB or above 1 GiB.
    #[track_caller]
    pub fn spawn_anywhere<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let spawned = Location::caller();
        let stack_size = self.stack_size.map(stack::check_size).transpose()?;
        context::with(check_running)?;
        let (job, handle) = anywhere::job(anywhere::home(), self.name, stack_size, spawned, f);
        anywhere::place(job);
        Ok(handle)
    }
}

/// Lets the other coroutines of this thread that are ready run first.
///
/// On a plain thread, yields to the other threads of the system.
///
/// # Cancellation
///
/// Unwinds when the coroutine has been cancelled.
///
/// ```
/// plainsong::run(|| {
///     let child = plainsong::spawn(|| ());
///     plainsong::yield_now();
///     assert!(child.is_finished());
/// });
/// ```
#[inline]
pub fn yield_now() {
    context::with_current(|task| match task {
        Some(task) => scheduler::yield_now(task),
        None => std::thread::yield_now(),
    });
}

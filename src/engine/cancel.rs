//! Cancellation is an unwind: the coroutine's next wait raises a payload that no user code can
//! make, destructors run, and the owner of the cancelled scope catches it.
//!
//! A coroutine's scopes nest. The outermost, its root, belongs to its `JoinHandle`; the others
//! to time-outs and the like. A request names one scope, and its payload stops at that one only.
//! A shield hides the scopes outside of it from the waits inside.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;

use super::context;
use super::task::{Flag, Id, Task};
use super::timer::TimerKey;

/// Names one scope among all that this thread has ever opened. The root scope has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScopeId(u32);

impl ScopeId {
    /// The next id, from this thread's counter.
    pub(crate) fn next(counter: &Cell<u32>) -> Self {
        let id = counter.get();
        counter.set(id.wrapping_add(1));
        Self(id)
    }
}

#[derive(Debug)]
struct Scope {
    id: ScopeId,
    requested: bool,
    timer: Option<TimerKey>,
}

/// The scopes that a coroutine has open, and its shields. Few coroutines have any.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    open: RefCell<Vec<Scope>>,
    // For each shield, how many scopes were open when it was raised: those are hidden.
    shields: RefCell<Vec<usize>>,
    // How many `no_wait`s are under way.
    no_wait: Cell<u32>,
}

/// What a cancelled coroutine unwinds with.
struct Unwind {
    task: Id,
    /// The scope that it stops at; the root without one.
    scope: Option<ScopeId>,
}

/// How a body ended, when not by returning.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its scope was cancelled, and it has unwound.
    Cancelled,
    /// It panicked with this payload, or an outer scope was cancelled.
    // In a box of its own, so that the place for a result needs room for no more than a word of it.
    Panicked(Box<Box<dyn Any + Send>>),
}

impl Task {
    /// Opens a scope inside of those that are open.
    pub(crate) fn open_scope(&self, id: ScopeId, timer: Option<TimerKey>) {
        self.scopes().open.borrow_mut().push(Scope { id, requested: false, timer });
    }

    /// Closes the innermost scope. Returns its timer, if that has not fired.
    pub(crate) fn close_scope(&self, id: ScopeId) -> Option<TimerKey> {
        let scope = self.scopes().open.borrow_mut().pop();
        debug_assert_eq!(scope.as_ref().map(|scope| scope.id), Some(id), "scopes nest");
        self.look_again();
        scope.and_then(|scope| scope.timer)
    }

    /// Requests that a scope, if it is open, or the root be cancelled.
    pub(crate) fn request(&self, scope: Option<ScopeId>) {
        match scope {
            None => {
                self.flags.set(Flag::RootCancelled, true);
            }
            Some(id) => self.with_open(id, |scope| scope.requested = true),
        }
        self.look_again();
    }

    /// Notes that a scope's timer has fired.
    pub(crate) fn forget_timer(&self, id: ScopeId) {
        self.with_open(id, |scope| scope.timer = None);
    }

    fn with_open(&self, id: ScopeId, f: impl FnOnce(&mut Scope)) {
        self.scopes().open.borrow_mut().iter_mut().find(|scope| scope.id == id).map(f);
    }

    /// Hides the scopes that are open now, until [`lower_shield`](Self::lower_shield).
    pub(crate) fn raise_shield(&self) {
        let scopes = self.scopes();
        scopes.shields.borrow_mut().push(scopes.open.borrow().len());
        self.look_again();
    }

    /// Takes the innermost shield away.
    pub(crate) fn lower_shield(&self) {
        self.scopes().shields.borrow_mut().pop();
        self.look_again();
    }

    /// How many scopes, shields and `no_wait`s are open.
    pub(crate) fn depth(&self) -> usize {
        self.scopes_if_any().map_or(0, |scopes| {
            let (open, shields) = (scopes.open.borrow().len(), scopes.shields.borrow().len());
            open + shields + scopes.no_wait.get() as usize
        })
    }

    /// The timers of the open scopes, for a coroutine that will never close them.
    pub(crate) fn scope_timers(&self) -> Vec<TimerKey> {
        self.scopes().open.borrow().iter().filter_map(|scope| scope.timer).collect()
    }

    /// Makes waits panic, until [`allow_waits`](Self::allow_waits).
    pub(crate) fn forbid_waits(&self) {
        let no_wait = &self.scopes().no_wait;
        no_wait.set(no_wait.get() + 1);
        self.look_again();
    }

    /// Takes back a [`forbid_waits`](Self::forbid_waits).
    pub(crate) fn allow_waits(&self) {
        let no_wait = &self.scopes().no_wait;
        no_wait.set(no_wait.get() - 1);
        self.look_again();
    }

    /// Lets waits happen in spite of all, for what must not be left before it has been waited for.
    /// Returns what [`restore`](Self::restore) needs.
    pub(crate) fn override_all(&self) -> u32 {
        self.raise_shield();
        let forbidden = self.scopes().no_wait.take();
        self.look_again();
        forbidden
    }

    /// Takes back an [`override_all`](Self::override_all).
    pub(crate) fn restore(&self, forbidden: u32) {
        self.scopes().no_wait.set(forbidden);
        self.lower_shield();
    }

    /// Whether waits panic.
    pub(crate) fn must_not_wait(&self) -> bool {
        self.scopes_if_any().is_some_and(|scopes| scopes.no_wait.get() > 0)
    }

    /// Sets `interrupt`: whether a wait must not just wait.
    fn look_again(&self) {
        self.interrupt.set(self.target().is_some() || self.must_not_wait());
    }

    /// The outermost cancelled scope that no shield hides: `Some(None)` is the root.
    fn target(&self) -> Option<Option<ScopeId>> {
        let Some(scopes) = self.scopes_if_any() else {
            return self.flags.has(Flag::RootCancelled).then_some(None);
        };
        let hidden = scopes.shields.borrow().last().copied();
        if hidden.is_none() && self.flags.has(Flag::RootCancelled) {
            return Some(None);
        }
        let open = scopes.open.borrow();
        let mut visible = open[hidden.unwrap_or(0)..].iter();
        visible.find(|scope| scope.requested).map(|scope| Some(scope.id))
    }
}

/// Unwinds the running coroutine to the scope that is cancelled. Says nothing: this is no panic.
pub(crate) fn raise(task: &Task) -> ! {
    let scope = task.target().flatten();
    unwind_with(Unwind { task: task.id, scope })
}

/// Unwinds with this payload; where the program cannot unwind, says so and ends the process.
pub(crate) fn unwind_with(payload: impl Any + Send) -> ! {
    if cfg!(panic = "abort") {
        let _ = writeln!(
            io::stderr(),
            "plainsong: a coroutine or generator had to be unwound (it was cancelled, its time was up, or \
             its runtime ended before it), and this program is built with panic = \"abort\". Build it \
             with panic = \"unwind\", or see to it that coroutines end by themselves: join them, \
             use `run_all`, and use the sockets' own time-outs."
        );
        process::abort();
    }
    panic::resume_unwind(Box::new(payload))
}

/// Runs `body` and catches what it ends with: a panic, or the cancellation of `scope`.
#[inline]
pub(crate) fn catch<T>(
    task: &Task,
    scope: Option<ScopeId>,
    body: impl FnOnce() -> T,
) -> Result<T, Failure> {
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| classify(task, scope, payload))
}

/// Calls `f`, which drops what is any code: what it ends with is forgotten, as the drop of that may
/// panic, too.
#[inline]
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        forget(payload);
    }
}

#[cold]
fn forget(payload: Box<dyn Any + Send>) {
    mem::forget(context::with_current(|task| match task {
        Some(task) => classify(task, None, payload),
        None => Failure::Panicked(Box::new(payload)),
    }));
}

/// Drops the locals of `task`, which runs, and those that their destructors make, within reason.
pub(crate) fn drop_locals(task: &Task) {
    for _ in 0..16 {
        let locals = task.take_locals();
        if locals.is_empty() {
            return;
        }
        quietly(|| drop(locals));
    }
}

#[cold]
fn classify(task: &Task, scope: Option<ScopeId>, payload: Box<dyn Any + Send>) -> Failure {
    let ours = payload
        .downcast_ref::<Unwind>()
        // A payload that user code has carried here from another coroutine is just a panic.
        .is_some_and(|unwind| unwind.task == task.id && unwind.scope == scope);
    if ours {
        task.obeyed();
        return Failure::Cancelled;
    }
    Failure::Panicked(Box::new(payload))
}

/// Whether a panic's payload is a cancellation on its way to its scope.
pub(crate) fn is_unwind(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Unwind>()
}

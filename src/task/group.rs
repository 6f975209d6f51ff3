//! Coroutines that are cancelled and waited for together: what is behind a scope and a server.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{self, AssertUnwindSafe, Location};
use std::process;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use slab::Slab;

use super::anywhere::{home, job_unchecked};
use super::cancel::Target;
use super::join::JoinHandle;
use super::spawn::spawn_unchecked;
use crate::engine::cancel::is_unwind;
use crate::engine::context;
use crate::engine::job::Job;
use crate::engine::remote::Waiter;
use crate::engine::stack::Stack;
use crate::engine::task::{Wait, Wake};

type Payload = Box<dyn Any + Send>;

/// Coroutines of one thread that are cancelled and waited for together.
#[derive(Default)]
pub(crate) struct Group {
    members: RefCell<Slab<Option<Target>>>,
    cancelled: Cell<bool>,
    // The body of the scope, to be cancelled when a member panics.
    body: Cell<Option<Target>>,
    // The first panic of a member, unless the body's came first.
    panic: Cell<Option<Payload>>,
    failed: Cell<bool>,
    waiter: Cell<Option<Waiter>>,
    away: OnceCell<Arc<Away>>,
}

/// Members of a group that may be on any thread.
#[derive(Default)]
struct Away(Mutex<AwayMembers>);

#[derive(Default)]
struct AwayMembers {
    members: Slab<Option<Target>>,
    body: Option<Target>,
    panic: Option<Payload>,
    // A member has panicked, or the body has.
    failed: bool,
    waiter: Option<Waiter>,
}

impl Away {
    fn lock(&self) -> MutexGuard<'_, AwayMembers> {
        // No user code runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Group::attend`]. The members at home are cancelled by whoever waits for them.
    fn attend<T>(&self, f: impl FnOnce() -> T) -> T {
        attend(f, |payload| {
            let mut away = self.lock();
            if !std::mem::replace(&mut away.failed, true) {
                away.panic = Some(payload);
                let (body, waiter) = (away.body.take(), away.waiter.take());
                drop(away);
                self.cancel();
                body.into_iter().for_each(Target::cancel);
                waiter.into_iter().for_each(context::wake);
            }
        })
    }

    fn cancel(&self) {
        let away = self.lock();
        let targets: Vec<Target> = away.members.iter().filter_map(|(_, m)| m.clone()).collect();
        drop(away);
        targets.into_iter().for_each(Target::cancel);
    }

    fn leave(&self, member: usize) {
        let mut away = self.lock();
        away.members.remove(member);
        let waiter = if away.members.is_empty() { away.waiter.take() } else { None };
        drop(away);
        waiter.into_iter().for_each(context::wake);
    }
}

/// Runs what a member does; a panic, but not a cancellation, goes to `fail`.
fn attend<T>(f: impl FnOnce() -> T, fail: impl FnOnce(Payload)) -> T {
    panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        if is_unwind(&*payload) {
            panic::resume_unwind(payload);
        }
        fail(payload);
        panic::resume_unwind(Box::new("the panic is resumed by the coroutine's scope"))
    })
}

impl Group {
    /// Runs what a member does, and tells the others if it panics.
    pub(super) fn attend<T>(&self, f: impl FnOnce() -> T) -> T {
        attend(f, |payload| {
            if !self.failed.replace(true) {
                self.panic.set(Some(payload));
                self.cancel();
                self.body.take().into_iter().for_each(Target::cancel);
            }
        })
    }

    /// Cancels the members, and those that are still to come.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        let members = self.members.borrow();
        let targets: Vec<Target> =
            members.iter().filter_map(|(_, member)| member.clone()).collect();
        drop(members);
        targets.into_iter().for_each(Target::cancel);
        self.away.get().inspect(|away| away.cancel());
    }

    /// The body runs, and is to be cancelled when a member panics; or it has ended.
    pub(super) fn set_body(&self, body: Option<Target>) {
        self.body.set(body);
    }

    /// The body has panicked: a panic of a member is the lesser news from now on.
    pub(super) fn fail(&self) {
        self.failed.set(true);
        self.away.get().inspect(|away| away.lock().failed = true);
    }

    /// The first panic of a member, unless the body's came first.
    pub(super) fn take_panic(&self) -> Option<Payload> {
        self.panic.take().or_else(|| self.away.get()?.lock().panic.take())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// How many members have not ended.
    pub(crate) fn len(&self) -> usize {
        let away = self.away.get().map_or(0, |away| away.lock().members.len());
        self.members.borrow().len() + away
    }

    fn leave(&self, member: usize) {
        let mut members = self.members.borrow_mut();
        members.remove(member);
        if members.is_empty() {
            self.waiter.take().into_iter().for_each(context::wake);
        }
    }

    /// Waits until all members have ended, or `deadline` has passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        while self.len() > 0 {
            let waiter = context::waiter();
            self.waiter.set(Some(waiter));
            if let Some(away) = self.away.get() {
                let mut away = away.lock();
                if away.failed && !self.cancelled.get() {
                    drop(away);
                    self.cancel();
                    continue;
                }
                if away.members.is_empty() && self.members.borrow().is_empty() {
                    return;
                }
                away.waiter = Some(waiter);
            }
            if context::block(waiter, Wait::Children, deadline) == Wake::TimedOut {
                return;
            }
        }
    }

    /// Waits until all members have ended, whatever happens.
    pub(crate) fn wait_for_all(&self) {
        /// Ends the process if the wait unwinds after all: the members may borrow.
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                process::abort();
            }
        }
        let bomb = Bomb;
        context::with_current(|task| {
            let forbidden = task.map(|task| task.override_all());
            self.wait(None);
            task.zip(forbidden).inspect(|(task, forbidden)| task.restore(*forbidden));
        });
        std::mem::forget(bomb);
    }

    /// Starts a coroutine as a member, whose panic is its own, and which may be given up.
    pub(crate) fn spawn<F, T>(
        self: &Rc<Self>,
        stack: Stack,
        spawned: &'static Location<'static>,
        f: F,
    ) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: it borrows nothing that could end.
        let (handle, member) = unsafe { self.spawn_unchecked(stack, None, spawned, false, f) };
        let group = Rc::clone(self);
        if let Some(address) = handle.thread().address() {
            address.inspect(|task| task.on_abandon(Box::new(move || group.leave(member))));
        }
        handle
    }

    /// Starts a coroutine as a member that may borrow: `borrows` says whether it does.
    ///
    /// # Safety
    ///
    /// What `f` and its result borrow must live until the group is empty; and the handle must be
    /// dropped or forgotten while they live.
    pub(super) unsafe fn spawn_unchecked<F, T>(
        self: &Rc<Self>,
        stack: Stack,
        name: Option<Arc<str>>,
        spawned: &'static Location<'static>,
        borrows: bool,
        f: F,
    ) -> (JoinHandle<T>, usize)
    where
        F: FnOnce() -> T,
    {
        let member = self.members.borrow_mut().insert(None);
        let last = Rc::clone(self);
        // The last thing that a member does is to leave, so that nothing of it is left to run
        // when the group is empty.
        let leave = move || last.leave(member);
        // SAFETY: by the caller's promise, as the coroutine has ended when it has left.
        let handle = context::with(|cx| unsafe {
            spawn_unchecked(cx, stack, name, spawned, borrows, f, leave)
        });
        let target = handle.thread().address().cloned().map(Target::root);
        self.members.borrow_mut()[member].clone_from(&target);
        if self.cancelled.get() {
            target.into_iter().for_each(Target::cancel);
        }
        (handle, member)
    }

    /// Makes a job of what will be a member on any thread, and may borrow.
    ///
    /// # Safety
    ///
    /// As for [`spawn_unchecked`](Self::spawn_unchecked), and the job must be started or dropped.
    pub(super) unsafe fn job<'a, F, T>(
        &self,
        spawned: &'static Location<'static>,
        f: F,
    ) -> (Job, JoinHandle<T>)
    where
        F: FnOnce() -> T + Send + 'a,
        T: Send + 'a,
    {
        let away = Arc::clone(self.away.get_or_init(|| {
            let body = self.body.take();
            self.body.set(body.clone());
            let failed = self.failed.get();
            Arc::new(Away(Mutex::new(AwayMembers { body, failed, ..AwayMembers::default() })))
        }));
        let member = {
            let mut away = away.lock();
            // Who waits already must hear of a panic.
            away.waiter = away.waiter.or(self.waiter.get());
            away.members.insert(None)
        };
        let (theirs, last) = (Arc::clone(&away), Arc::clone(&away));
        let (attend, leave) = (move || theirs.attend(f), move || last.leave(member));
        // SAFETY: by the caller's promise, as the coroutine has ended when it has left.
        let (job, handle) =
            unsafe { job_unchecked(home(), None, None, spawned, true, attend, leave) };
        let target = handle.thread().address().cloned().map(Target::root);
        away.lock().members[member].clone_from(&target);
        if self.cancelled.get() {
            target.into_iter().for_each(Target::cancel);
        }
        (job, handle)
    }
}

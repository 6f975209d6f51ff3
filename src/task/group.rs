//! `Group`: coroutines that are cancelled and waited for together. Scopes and servers use it.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::join::JoinHandle;
use crate::engine::abort::AbortOnUnwind;
use crate::engine::address::Target;
use crate::engine::cancel::is_cancellation;
use crate::engine::coroutine::Lent;
use crate::engine::facts::SCOPE_ENDS;
use crate::engine::job::Refusal;
use crate::engine::mutex::Mutex;
use crate::engine::scheduler::Scheduler;
use crate::engine::scopes::CancelReason;
use crate::engine::spawn::{self, Spec};
use crate::engine::stack::Stack;
use crate::engine::task::{Wait, Wake};
use crate::engine::waiter::Parker;
use crate::engine::{current, park};

type Payload = Box<dyn Any + Send>;

const WAIT: Wait = Wait::new(&Wait::for_run(SCOPE_ENDS));

/// Coroutines of any threads that are cancelled and waited for together.
#[derive(Clone, Default)]
pub(crate) struct Group(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    // `None` only while the member is being spawned.
    members: Slab<Option<Target>>,
    cancelled: bool,
    reason: Option<CancelReason>,
    // The body of the scope, to be cancelled when a member panics.
    body: Option<Target>,
    // The first panic of a member, unless the body's came first.
    panic: Option<Payload>,
    // A member or the body has panicked.
    failed: bool,
    waiter: Option<Parker>,
}

impl Group {
    /// Runs the closure of a member. If it panics, cancels the other members and the body. A
    /// cancellation just passes through.
    pub(super) fn attend<T>(&self, f: impl FnOnce() -> T) -> T {
        panic::catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
            if is_cancellation(&*payload) {
                panic::resume_unwind(payload);
            }
            self.member_panicked(payload);
            panic::resume_unwind(Box::new("the panic is resumed by the coroutine's scope"))
        })
    }

    fn member_panicked(&self, payload: Payload) {
        let mut state = self.0.lock();
        if mem::replace(&mut state.failed, true) {
            drop(state);
            // Its destructor is user code, which must not run under the lock.
            return drop(payload);
        }
        state.panic = Some(payload);
        let body = state.body.take();
        drop(state);
        self.cancel(None);
        if let Some(body) = body {
            body.cancel(None);
        }
    }

    /// Cancels all members, and those that are added from now on.
    pub(crate) fn cancel(&self, reason: Option<CancelReason>) {
        let mut state = self.0.lock();
        if !mem::replace(&mut state.cancelled, true) {
            state.reason = reason.clone();
        }
        let targets: Vec<Target> =
            state.members.iter().filter_map(|(_, member)| member.clone()).collect();
        drop(state);
        Target::cancel_all(&targets, reason.as_ref());
    }

    /// Sets the body, which is cancelled when a member panics. `None` when the body has ended.
    pub(super) fn set_body(&self, body: Option<Target>) {
        self.0.lock().body = body;
    }

    /// Notes that the body has panicked, so that a later panic of a member is dropped.
    pub(super) fn body_panicked(&self) {
        self.0.lock().failed = true;
    }

    /// The first panic of a member, unless the body's came first.
    pub(super) fn take_panic(&self) -> Option<Payload> {
        self.0.lock().panic.take()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.lock().cancelled
    }

    /// How many members have not ended.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().members.len()
    }

    /// Adds a member. [`set_target`](Self::set_target) follows.
    fn enter(&self) -> usize {
        self.0.lock().members.insert(None)
    }

    /// Sets the target that cancels a member, and cancels it at once if the group is cancelled.
    fn set_target(&self, member: usize, target: Target) {
        let mut state = self.0.lock();
        state.members[member] = Some(target.clone());
        let (cancelled, reason) = (state.cancelled, state.reason.clone());
        drop(state);
        if cancelled {
            target.cancel(reason.as_ref());
        }
    }

    fn leave(&self, member: usize) {
        let mut state = self.0.lock();
        state.members.remove(member);
        let waiter = if state.members.is_empty() { state.waiter.take() } else { None };
        drop(state);
        if let Some(waiter) = waiter {
            park::wake(waiter.into());
        }
    }

    /// Waits until all members have ended, or `deadline` has passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        loop {
            let mut state = self.0.lock();
            if state.members.is_empty() {
                return;
            }
            let parker = park::waiter();
            state.waiter = Some(parker);
            drop(state);
            if park::block(parker, WAIT, deadline) == Wake::TimedOut {
                return;
            }
        }
    }

    /// Waits until all members have ended, even if the calling coroutine is cancelled.
    pub(crate) fn wait_for_all(&self) {
        // The members may borrow.
        let abort = AbortOnUnwind::new();
        current::with(|task| {
            let _allow = task.map(|task| task.scopes.allow_waits());
            self.wait(None);
        });
        abort.disarm();
    }

    /// Starts a coroutine of this thread as a member. Its panic does not affect the others, and it
    /// may be abandoned.
    pub(crate) fn spawn<F, T>(
        &self,
        scheduler: &Scheduler,
        stack: Stack,
        spec: Spec,
        f: F,
    ) -> JoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let (handle, member) = self.spawn_lent(scheduler, stack, spec, Lent::nothing(f));
        let group = self.clone();
        handle.on_abandon(move || group.leave(member));
        handle
    }

    /// Starts a coroutine of this thread as a member that may borrow. It leaves the group when it
    /// no longer uses `f` or its result.
    pub(super) fn spawn_lent<F, T>(
        &self,
        scheduler: &Scheduler,
        stack: Stack,
        spec: Spec,
        f: Lent<F>,
    ) -> (JoinHandle<T>, usize)
    where
        F: FnOnce() -> T,
    {
        let (member, group) = (self.enter(), self.clone());
        // A member leaves at its very end, so that no code of it is left to run when the group is
        // empty.
        let leave = move |_| group.leave(member);
        let handle = JoinHandle::new(spawn::here(scheduler, stack, spec, f, leave));
        self.set_target(member, Target::root(handle.address().clone()));
        (handle, member)
    }

    /// [`spawn_lent`](Self::spawn_lent), on the worker with this `number`, or on any.
    pub(super) fn spawn_anywhere<'a, F, T>(
        &self,
        scheduler: &Scheduler,
        number: Option<usize>,
        spec: Spec,
        f: Lent<F>,
    ) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'a,
        T: Send + 'a,
    {
        let (member, group) = (self.enter(), self.clone());
        let leave = move |refusal: Option<Refusal>| {
            if let Some(refusal) = refusal {
                group.member_panicked(Box::new(refusal));
            }
            group.leave(member);
        };
        let home = spawn::this_run(scheduler);
        let (job, spawned) = spawn::anywhere(scheduler, home, spec, f, leave);
        let handle = JoinHandle::new(spawned);
        self.set_target(member, Target::root(handle.address().clone()));
        spawn::place(job, number);
        handle
    }
}

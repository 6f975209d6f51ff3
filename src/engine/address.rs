//! Addresses of coroutines: how any thread cancels or unparks one.

use std::ptr;
use std::sync::Arc;

use super::context;
use super::id::Id;
use super::job::{Asked, Slot};
use super::mailbox::{Mailbox, Message, ThreadId};
use super::scheduler::Scheduler;
use super::scopes::{CancelReason, Level, ScopeId};
use super::task::Task;

/// The address of one coroutine. It may have ended: then nothing is found there. It may not have
/// started: then requests are noted for its start.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    id: Id,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Known {
        mailbox: &'static Mailbox,
        slot: u32,
    },
    /// Of a coroutine that any worker may start.
    Pending(Arc<Slot>),
}

impl Address {
    /// The address of a coroutine of the thread with this mailbox.
    #[inline]
    pub(crate) fn known(mailbox: &'static Mailbox, slot: u32, id: Id) -> Self {
        Self { id, place: Place::Known { mailbox, slot } }
    }

    /// The address of a coroutine that any worker may start.
    pub(crate) fn pending(slot: Arc<Slot>, id: Id) -> Self {
        Self { id, place: Place::Pending(slot) }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// Where the coroutine is. If it has not started, `ask` notes the request for its start.
    fn find(&self, ask: impl FnOnce(&mut Asked)) -> Option<(&'static Mailbox, u32)> {
        match &self.place {
            Place::Known { mailbox, slot } => Some((mailbox, *slot)),
            Place::Pending(slot) => slot.place_or(ask),
        }
    }

    /// Announces that all of it will be cancelled, if it runs on another thread.
    fn announce_cancel(&self) {
        let Some((mailbox, _)) = self.find(|_| ()) else { return };
        if mailbox.thread() != ThreadId::current() {
            mailbox.announce_cancel(self.id);
        }
    }

    /// Cancels a level of the coroutine.
    pub(crate) fn cancel(&self, level: Level, reason: Option<&CancelReason>) {
        let id = self.id;
        let Some((mailbox, slot)) = self.find(|asked| asked.cancel(reason)) else { return };
        if here(mailbox, |scheduler| scheduler.cancel(slot, id, level, reason)).is_none() {
            mailbox.send(Message::Cancel { slot, id, level, reason: reason.cloned() });
        }
    }

    /// Gives the coroutine the token that ends a `thread::park`.
    pub(crate) fn unpark(&self) {
        let id = self.id;
        let Some((mailbox, slot)) = self.find(|asked| asked.unparked = true) else { return };
        if here(mailbox, |scheduler| scheduler.give_park_token(slot, id)).is_none() {
            mailbox.send(Message::Unpark { slot, id });
        }
    }

    /// Calls `f` with the coroutine, if it belongs to this thread. `f` must run no user code.
    pub(crate) fn inspect<R>(&self, f: impl FnOnce(&Task) -> R) -> Option<R> {
        let (mailbox, slot) = self.find(|_| ())?;
        here(mailbox, |scheduler| scheduler.find(slot, self.id, f))?
    }
}

/// Calls `f` if `mailbox` is this thread's.
fn here<R>(mailbox: &'static Mailbox, f: impl FnOnce(&Scheduler) -> R) -> Option<R> {
    context::try_with(|scheduler| ptr::eq(scheduler.mailbox(), mailbox).then(|| f(scheduler)))?
}

/// The target of a cancellation: one level of one coroutine.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: Address,
    level: Level,
}

impl Target {
    /// The whole coroutine.
    pub(crate) fn root(address: Address) -> Self {
        Self { address, level: Level::Root }
    }

    /// A scope of the coroutine `task`, which runs on this thread.
    pub(crate) fn scope(scheduler: &Scheduler, task: &Task, scope: ScopeId) -> Self {
        let address = Address::known(scheduler.mailbox(), task.slot.get(), task.id);
        Self { address, level: Level::Scope(scope) }
    }

    /// Cancels the level, if it is still open.
    pub(crate) fn cancel(&self, reason: Option<&CancelReason>) {
        self.address.cancel(self.level, reason);
    }

    /// Cancels all of these, so that nothing is handed over to any of them from the moment at which
    /// the first may unwind.
    pub(crate) fn cancel_all(targets: &[Self], reason: Option<&CancelReason>) {
        for target in targets {
            if target.level == Level::Root {
                target.address.announce_cancel();
            }
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            targets.iter().partition(|target| target.address.inspect(|_| ()).is_some());
        here.into_iter().chain(elsewhere).for_each(|target| target.cancel(reason));
    }
}

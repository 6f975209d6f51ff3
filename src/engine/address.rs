//! Where a coroutine is, for those who want something of it from anywhere.

use std::sync::Arc;

use super::cancel::ScopeId;
use super::context::{self, Context};
use super::job::{Placed, Placement};
use super::remote::{Door, Message};
use super::task::{Id, Task};

/// Finds one coroutine. It may have ended, or not have started: then nothing is found.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) id: Id,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Known {
        door: &'static Door,
        slot: u32,
    },
    /// Of a coroutine that any worker may start.
    Open(Arc<Placement>),
}

impl Address {
    #[inline]
    pub(crate) fn known(door: &'static Door, slot: u32, id: Id) -> Self {
        Self { id, place: Place::Known { door, slot } }
    }

    pub(crate) fn open(placement: Arc<Placement>, id: Id) -> Self {
        Self { id, place: Place::Open(placement) }
    }

    /// Where it is; if it is nowhere yet, notes what it will be asked then.
    fn at(&self, ask: impl FnOnce(&mut Placed)) -> Option<(&'static Door, u32)> {
        match &self.place {
            Place::Known { door, slot } => Some((door, *slot)),
            Place::Open(placement) => {
                let mut placed = placement.lock();
                if placed.at().is_none() {
                    ask(&mut placed);
                }
                placed.at()
            }
        }
    }

    /// Cancels a scope of it, or its root.
    pub(crate) fn cancel(&self, scope: Option<ScopeId>) {
        let id = self.id;
        let Some((door, slot)) = self.at(|placed| placed.cancelled = true) else { return };
        if here(door, |cx| cx.scheduler.cancel(slot, id, scope)).is_none() {
            door.send(Message::Cancel { slot, id, scope });
        }
    }

    /// Gives it the token that ends a `thread::park`.
    pub(crate) fn unpark(&self) {
        let id = self.id;
        let Some((door, slot)) = self.at(|placed| placed.unparked = true) else { return };
        if here(door, |cx| cx.scheduler.give_park_token(slot, id)).is_none() {
            door.send(Message::Unpark { slot, id });
        }
    }

    /// Calls `f` with the coroutine, if it is one of this thread.
    pub(crate) fn inspect<R>(&self, f: impl FnOnce(&Task) -> R) -> Option<R> {
        let (door, slot) = self.at(|_| ())?;
        here(door, |cx| cx.scheduler.find(slot, self.id, f))?
    }
}

/// Calls `f` if `door` is this thread's.
fn here<R>(door: &'static Door, f: impl FnOnce(&Context) -> R) -> Option<R> {
    context::try_with(|cx| std::ptr::eq(cx.door(), door).then(|| f(cx)))?
}

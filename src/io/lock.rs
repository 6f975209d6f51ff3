//! Who may use a standard stream: one coroutine or thread at a time.

use std::marker::PhantomData;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::engine::context;
use crate::engine::remote::{Waiter, Waiters};
use crate::engine::task::{Id, Wait};

/// A lock that its holder may take again.
#[derive(Debug)]
pub(super) struct Lock(LazyLock<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    owner: Option<Owner>,
    times: usize,
    waiters: Waiters,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Coroutine(Id),
    Thread(ThreadId),
}

impl Owner {
    fn current() -> Self {
        context::with_current(|task| match task {
            Some(task) => Self::Coroutine(task.id),
            None => Self::Thread(thread::current().id()),
        })
    }
}

/// A hold on a [`Lock`].
#[derive(Debug)]
pub(super) struct Hold {
    lock: &'static Lock,
    // As std's: it belongs to whoever took it.
    local: PhantomData<*const ()>,
}

impl Lock {
    pub(super) const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // No user code runs under this.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else holds it.
    pub(super) fn hold(&'static self) -> Hold {
        struct Waiting(&'static Lock, Waiter);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.held().waiters.remove(self.1);
            }
        }
        let me = Owner::current();
        loop {
            let mut held = self.held();
            if held.owner.is_none_or(|owner| owner == me) {
                held.owner = Some(me);
                held.times += 1;
                return Hold { lock: self, local: PhantomData };
            }
            let waiting = Waiting(self, context::waiter());
            held.waiters.push(waiting.1);
            drop(held);
            context::block(waiting.1, Wait::Stream, None);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.lock.held();
        held.times -= 1;
        if held.times > 0 {
            return;
        }
        held.owner = None;
        // All of them, as the one who is woken may be cancelled before it looks.
        let waiters: Vec<Waiter> = held.waiters.take().collect();
        drop(held);
        waiters.into_iter().for_each(context::wake);
    }
}

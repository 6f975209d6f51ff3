//! `Thread`: the handle of a coroutine or a plain thread, and `park`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::address::Address;
use crate::engine::id::Id;
use crate::engine::park::{self, Running};
use crate::engine::task::{Flag, Wait, Wake};
use crate::engine::{blocking_pool as pool, current};

const WAIT: Wait = Wait::new(&Wait::for_any_thread("unpark"));

/// A handle to a coroutine or a plain thread: its identity, and a way to wake it from [`park`].
#[derive(Clone)]
pub struct Thread(Kind);

#[derive(Clone)]
enum Kind {
    Coroutine { address: Address, name: Option<Arc<str>> },
    Plain(std::thread::Thread),
}

/// Identifies a coroutine or a plain thread of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(Which);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Which {
    Coroutine(Id),
    Plain(std::thread::ThreadId),
}

impl Thread {
    #[inline]
    pub(crate) fn coroutine(address: Address, name: Option<Arc<str>>) -> Self {
        Self(Kind::Coroutine { address, name })
    }

    /// The id of the coroutine or thread.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        match &self.0 {
            Kind::Coroutine { address, .. } => ThreadId(Which::Coroutine(address.id())),
            Kind::Plain(thread) => ThreadId(Which::Plain(thread.id())),
        }
    }

    /// The name, if there is one. The first coroutine of a runtime is called `main`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Kind::Coroutine { name, .. } => name.as_deref(),
            Kind::Plain(thread) => thread.name(),
        }
    }

    /// Ends the current [`park`] of the coroutine or thread, or makes its next one return at once.
    /// Works from any thread.
    pub fn unpark(&self) {
        match &self.0 {
            Kind::Plain(thread) => thread.unpark(),
            Kind::Coroutine { address, .. } => address.unpark(),
        }
    }

    /// Where the coroutine is. This must not be a plain thread.
    pub(crate) fn address(&self) -> &Address {
        match &self.0 {
            Kind::Coroutine { address, .. } => address,
            Kind::Plain(_) => unreachable!("the thread of a join handle is a coroutine"),
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The handle of the calling coroutine, or else of the calling thread.
#[must_use]
pub fn current() -> Thread {
    park::running(|running| match running {
        None => Thread(Kind::Plain(std::thread::current())),
        Some(Running { scheduler, task }) => {
            let address = Address::known(scheduler.mailbox(), task.slot.get(), task.id);
            Thread::coroutine(address, task.name().cloned())
        }
    })
}

/// Whether the calling coroutine unwinds, from a panic or because it was cancelled. On a plain
/// thread, whether the thread does.
///
/// [`std::thread::panicking`] speaks for the whole thread: it is true in all coroutines while one
/// of them is suspended in the middle of an unwind. At such a time, this function does not
/// recognise a panic that user code resumed with `resume_unwind`, nor any panic if the program has
/// replaced the panic hook. Conversely, a coroutine that catches a panic of its own at such a time
/// counts as unwinding until it waits or yields when no coroutine unwinds.
#[must_use]
pub fn panicking() -> bool {
    park::unwinds() || park::cleans_up(false)
}

/// Goes on with a panic that was caught. For plainsong-std only.
#[doc(hidden)]
pub fn __resume_unwind(payload: Box<dyn std::any::Any + Send>) -> ! {
    park::resume_unwind(payload)
}

/// Whether a wait panics here, as in `no_wait` and in a hook. For plainsong-std only.
#[doc(hidden)]
#[must_use]
pub fn __are_waits_refused() -> bool {
    park::are_waits_refused()
}

/// Waits until [`Thread::unpark`] is called. Returns at once if it was called before. Like std's,
/// it may also return without a reason.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
///
/// ```
/// use plainsong::thread;
///
/// plainsong::run(|| {
///     let sleeper = thread::spawn(|| thread::park());
///     sleeper.thread().unpark();
///     sleeper.join().unwrap();
/// });
/// ```
pub fn park() {
    park_until(None);
}

/// [`park`], for `timeout` at most.
///
/// # Cancellation
///
/// Unwinds when the coroutine is cancelled.
pub fn park_timeout(timeout: Duration) {
    park_until(Some(timeout));
}

fn park_until(timeout: Option<Duration>) {
    current::with(|task| {
        let Some(task) = task else {
            let wait = || timeout.map_or_else(std::thread::park, std::thread::park_timeout);
            return pool::while_blocked(wait);
        };
        if task.flags.has(Flag::ParkToken) {
            park::spend();
        } else {
            // An unpark ends whatever wait the coroutine makes while the flag is set. So no code of
            // users runs meanwhile, such as a panic hook.
            let until = timeout.and_then(park::deadline);
            park::check_cancelled();
            let parker = park::waiter();
            task.flags.set(Flag::InPark, true);
            let wake = park::block_unless_cancelled(parker, WAIT, until);
            task.flags.set(Flag::InPark, false);
            if wake == Wake::Cancelled {
                park::raise();
            }
        }
        task.flags.set(Flag::ParkToken, false);
    });
}

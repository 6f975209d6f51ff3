//! `scope`: threads that borrow, with the rules of std. They differ from those of plainsong's own
//! scope: a thread may spawn into the scope of its parent from another worker, and the panic of one
//! cancels no other.

#![allow(unsafe_code)]

use ::std::any::Any;
use ::std::fmt;
use ::std::io;
use ::std::marker::PhantomData;
use ::std::mem;
use ::std::panic::{AssertUnwindSafe, catch_unwind};
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use ::std::sync::{Arc, Mutex, PoisonError};

use ::plainsong::thread::{__are_waits_refused, __resume_unwind, park};
use ::plainsong::{CancellationToken, shield};

use super::{Builder, Result, Thread, current, runtime};
use crate::must_return::{WHERE, must_return};

/// A scope for threads that borrow: [`std::thread::Scope`](::std::thread::Scope).
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<Data>,
    // As in std: invariant in both, so that neither can be shrunk.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A scope from the side of its threads.
struct Data {
    /// Threads that have not ended.
    running: AtomicUsize,
    /// A thread has panicked whose result nobody has taken.
    panicked: AtomicBool,
    /// The waiter for the end of the threads. It names itself when it begins to wait, because a
    /// generator may end a scope in another coroutine than it has opened it in.
    waiter: Mutex<Option<Thread>>,
    /// The scope was opened where it could not wait, so it lends nothing.
    refuses: bool,
    /// Cancelled when the waiter is.
    token: CancellationToken,
}

/// Where a thread leaves its result for its handle.
struct Packet<T> {
    data: Arc<Data>,
    result: Mutex<Option<Result<T>>>,
}

impl<T> Packet<T> {
    fn put(&self, result: Option<Result<T>>) -> Option<Result<T>> {
        let mut place = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *place, result)
    }
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        let result = self.put(None);
        let panicked = matches!(result, Some(Err(_)));
        // A panic in here must not leave the thread before it has left its scope.
        let dropped = catch_unwind(AssertUnwindSafe(|| shield(|| drop(result))));
        let panicked_again = dropped.map_err(mem::forget).is_err();
        if panicked || panicked_again {
            self.data.panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// The body of a thread. The fields are dropped in this order if it never starts.
struct Child<F, T> {
    f: F,
    packet: Arc<Packet<T>>,
    ending: Ending,
}

/// Notes, when it is dropped, that a thread has ended and holds nothing that it has borrowed.
struct Ending(Arc<Data>);

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // No wake-up is lost. The waiter sets its name under the lock, and then looks at
            // `running`. If it had the lock first, it is unparked here. If it has the lock later,
            // it sees the decrement.
            let waiter = self.0.waiter.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(waiter) = waiter {
                waiter.unpark();
            }
        }
    }
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(self) {
        // The last to be dropped.
        let _ending = self.ending;
        let packet = self.packet;
        let f = self.f;
        let cancelled =
            || Box::new("the parent of the thread was cancelled") as Box<dyn Any + Send>;
        let result = catch_unwind(AssertUnwindSafe(|| packet.data.token.run_until_cancelled(f)));
        packet.put(Some(result.and_then(|value| value.ok_or_else(cancelled))));
    }
}

/// Runs `f`, which may start threads that borrow from the caller, and waits for all of them:
/// [`std::thread::scope`](::std::thread::scope).
///
/// # Panics
///
/// When `f` does, with its panic; and when a thread has panicked that was not joined. Where waits
/// are forbidden, such as in [`no_wait`](::plainsong::no_wait), no thread can be started in the
/// scope. If a generator opens the scope and starts threads in it, and reaches its end where waits
/// are forbidden, the process ends.
///
/// # Cancellation
///
/// When the calling coroutine is cancelled, so are the threads. It unwinds when they have ended.
/// The end of a run waits for them, also where they cannot unwind, as in [`park`](super::park).
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let data = Arc::new(Data {
        running: AtomicUsize::new(0),
        panicked: AtomicBool::new(false),
        waiter: Mutex::new(None),
        refuses: __are_waits_refused(),
        token: CancellationToken::new(),
    });
    let scope = Scope { data: Arc::clone(&data), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let wait = || {
        // `Ending` has the reason for this order.
        *data.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(current());
        while data.running.load(Ordering::Acquire) > 0 {
            park();
        }
    };
    // A cancellation unwinds out of it, and a refused wait.
    let waited = catch_unwind(wait);
    if waited.is_err() {
        // Nothing may leave this function while a thread is running that may borrow from its
        // caller.
        must_return("thread::scope", || {
            data.token.cancel();
            shield(wait);
        });
    }
    match (result, waited) {
        (Err(payload), _) | (_, Err(payload)) => __resume_unwind(payload),
        (Ok(_), Ok(())) if data.panicked.load(Ordering::Relaxed) => {
            panic!("a scoped thread panicked")
        }
        (Ok(value), Ok(())) => value,
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Starts a thread that may borrow what outlives the scope.
    ///
    /// # Panics
    ///
    /// When the thread cannot be started, and in a scope that was opened where waits are forbidden;
    /// [`Builder::spawn_scoped`] returns both as errors.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        match self.spawn_with(Builder::new(), f) {
            Ok(handle) => handle,
            Err(error) => panic!("failed to spawn thread: {error}"),
        }
    }

    #[track_caller]
    pub(super) fn spawn_with<F, T>(
        &'scope self,
        builder: Builder,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        if self.data.refuses {
            return Err(io::Error::other(format!(
                "this scope could not wait for its threads, because waits are forbidden where it \
                 was opened ({WHERE}): open the scope in a coroutine or a thread of its own, or \
                 outside of `no_wait`"
            )));
        }
        // Nothing abandons a thread that borrows: it would never drop its `Ending`.
        let (runtime, settings) = (runtime()?, builder.settings().__borrows());
        let packet = Arc::new(Packet { data: Arc::clone(&self.data), result: Mutex::new(None) });
        let _before = self.data.running.fetch_add(1, Ordering::Relaxed);
        let ending = Ending(Arc::clone(&self.data));
        let child = Child { f, packet: Arc::clone(&packet), ending };
        let main: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || child.run());
        // SAFETY: the two types differ only in the lifetime of the borrows, which are alive until
        // `'scope` ends. That is not before `scope` is left, and `scope` is left, by a return or an
        // unwind, only when no `Ending` is there any more. The child drops its own last, after `f`
        // and, if it has the last reference, its value; whether it has run or not. The rest of it
        // borrows nothing.
        //
        // The handle also has the value, and its type says that it does not outlive `'scope`.
        let main = unsafe {
            mem::transmute::<Box<dyn FnOnce() + Send + 'scope>, Box<dyn FnOnce() + Send>>(main)
        };
        let native = runtime.spawn_with(settings, main)?;
        Ok(ScopedJoinHandle { native, packet, scope: PhantomData })
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("num_running_threads", &self.data.running.load(Ordering::Relaxed))
            .field("a_thread_panicked", &self.data.panicked.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// The handle of a thread of a [`scope`]:
/// [`std::thread::ScopedJoinHandle`](::std::thread::ScopedJoinHandle).
pub struct ScopedJoinHandle<'scope, T> {
    native: ::plainsong::JoinHandle<()>,
    packet: Arc<Packet<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// The handle of the thread.
    pub fn thread(&self) -> &Thread {
        self.native.thread()
    }

    /// Waits for the thread to end and returns its result.
    ///
    /// # Errors
    ///
    /// The payload of its panic.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    pub fn join(self) -> Result<T> {
        let ended = self.native.join();
        // It has no result if it was cancelled before it began.
        self.packet.put(None).unwrap_or_else(|| match ended {
            Err(error) => Err(Box::new(error)),
            Ok(()) => unreachable!("a thread that has ended has left its result"),
        })
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.native.is_finished()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}

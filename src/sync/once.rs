//! `OnceLock` and `LazyLock`.

use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::OnceLock as Value;
use std::time::Instant;

use super::event::Event;
use super::lock::Lock;
use super::raw_mutex::RawMutex;
use super::reentrant::owner_number;
use crate::engine::defer::Defer;
use crate::engine::park;
use crate::engine::shared::atomic::{AtomicU64, Ordering};
use crate::engine::task::Wait;

const WAIT: Wait =
    Wait::new(&Wait::for_any_thread("a value to be initialised").of("wait", "OnceLock"));

/// Waits for another caller's initialiser: of the run, or elsewhere.
const INITIALISE: [Wait; 2] = [
    Wait::new(
        &Wait::for_run("a value that a coroutine of the same run initialises")
            .of("initialise", "OnceLock"),
    ),
    Wait::new(
        &Wait::for_any_thread("a value that is initialised elsewhere").of("initialise", "OnceLock"),
    ),
];

/// A value that is set once, as [`std::sync::OnceLock`], by an initialiser that may wait.
///
/// Others that need the value wait meanwhile. When the initialiser panics or is cancelled, the next
/// tries its own.
///
/// ```
/// use plainsong::sync::OnceLock;
///
/// static GREETING: OnceLock<String> = OnceLock::new();
///
/// plainsong::run(|| {
///     let greeting = GREETING.get_or_init(|| {
///         plainsong::yield_now();
///         "hello".to_owned()
///     });
///     assert_eq!(greeting, "hello");
/// });
/// assert_eq!(GREETING.get().map(String::as_str), Some("hello"));
/// ```
pub struct OnceLock<T> {
    // Held by the caller that initialises.
    turn: RawMutex,
    // The number of that caller, or zero. Only the caller itself finds its own number here.
    initialiser: AtomicU64,
    // Set when there is a value, for good.
    done: Event,
    // Set by the caller that has the turn, so that none waits here.
    value: Value<T>,
}

// A value is complete when it is set, and never changes while it is shared.
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe + RefUnwindSafe> RefUnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    /// One without a value.
    #[must_use]
    #[track_caller]
    pub const fn new() -> Self {
        Self {
            turn: RawMutex::new(),
            initialiser: AtomicU64::new(0),
            done: Event::new(),
            value: Value::new(),
        }
    }

    /// The value, if it is there.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, to change it.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Waits until the value has been set.
    ///
    /// # Panics
    ///
    /// In an initialiser of this value.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn wait(&self) -> &T {
        match self.wait_for(WAIT, None) {
            Some(value) => value,
            None => unreachable!("a wait without a deadline"),
        }
    }

    /// [`wait`](Self::wait) until `deadline`, for a reason `why`.
    #[track_caller]
    pub(super) fn wait_for(&self, why: Wait, deadline: Option<Instant>) -> Option<&T> {
        self.refuse_initialiser();
        self.done.wait_for(why, deadline);
        self.get()
    }

    /// Sets the value, if there is none. Waits for an initialiser that is under way.
    ///
    /// # Errors
    ///
    /// When there is a value already, with the new one.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits.
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| match value.take() {
            Some(value) => value,
            None => unreachable!("an initialiser is called once"),
        });
        value.map_or(Ok(()), Err)
    }

    /// [`set`](Self::set) for an owner whose value has no initialiser, which other callers would
    /// have to wait for. So this does not wait.
    pub(super) fn put(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.done.set();
        Ok(())
    }

    /// The value, which `f` makes if it is not there. Other callers wait meanwhile.
    ///
    /// # Panics
    ///
    /// When `f` does; there is no value then, and the next tries its own. And when `f` itself asks
    /// for this value, or sets it.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits, here or in `f`.
    #[inline]
    #[track_caller]
    pub fn get_or_init<F>(&self, f: F) -> &T
    where
        F: FnOnce() -> T,
    {
        match self.get_or_try_init(|| Ok::<T, Infallible>(f())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The value, which `f` makes if it is not there. (std's, which is unstable.)
    ///
    /// # Errors
    ///
    /// The error that `f` returns. There is no value then, and the next caller tries its own `f`.
    ///
    /// # Panics
    ///
    /// As [`get_or_init`](Self::get_or_init).
    ///
    /// # Cancellation
    ///
    /// As [`get_or_init`](Self::get_or_init).
    #[inline]
    #[track_caller]
    pub fn get_or_try_init<E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.initialise(f),
        }
    }

    #[cold]
    #[track_caller]
    fn initialise<E>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let me = self.refuse_initialiser();
        self.turn.lock_for(&INITIALISE, None);
        self.initialiser.store(me, Ordering::Relaxed);
        let _turn = Defer::new(|| {
            self.initialiser.store(0, Ordering::Relaxed);
            self.turn.unlock();
        });
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let value = f()?;
        let value = self.value.get_or_init(|| value);
        self.done.set();
        Ok(value)
    }

    /// Panics if the caller is the one that initialises. Returns its number.
    #[track_caller]
    fn refuse_initialiser(&self) -> u64 {
        let me = owner_number();
        assert!(
            self.initialiser.load(Ordering::Relaxed) != me,
            "the initialiser of a value waits for that value itself: it must do without"
        );
        me
    }

    /// The value, if there is one.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out, so that another can be set.
    pub fn take(&mut self) -> Option<T> {
        mem::take(self).into_inner()
    }
}

impl<T> Default for OnceLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    #[track_caller]
    fn clone(&self) -> Self {
        self.get().cloned().map_or_else(Self::new, Self::from)
    }
}

impl<T> From<T> for OnceLock<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        let once = Self { value: value.into(), ..Self::new() };
        once.done.set();
        once
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}

/// A value that its first use makes, as [`std::sync::LazyLock`], with an initialiser that may wait.
///
/// The initialiser works for all, so it is [shielded](crate::shield) from the cancellation of the
/// coroutine that happens to be first. If it panics, so does every further use.
///
/// ```
/// use plainsong::sync::LazyLock;
///
/// static PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| vec![2, 3, 5]);
///
/// plainsong::run(|| assert_eq!(PRIMES.iter().sum::<u32>(), 10));
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    once: OnceLock<T>,
    init: Lock<Option<F>>,
}

impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe + RefUnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// A value that `f` will make.
    #[track_caller]
    pub const fn new(f: F) -> Self {
        Self { once: OnceLock::new(), init: Lock::new(Some(f)) }
    }

    /// Makes the value, if it is not there, and returns it. Other callers wait meanwhile.
    ///
    /// # Panics
    ///
    /// When the initialiser does, or has. And when it uses this value itself.
    ///
    /// # Cancellation
    ///
    /// Unwinds when the coroutine is cancelled while it waits for another caller to make the value.
    #[inline]
    #[track_caller]
    pub fn force(this: &Self) -> &T {
        this.once.get_or_init(|| {
            let init = this.init.lock().take();
            let init = init.expect("LazyLock instance has previously been poisoned");
            park::shield(init)
        })
    }

    /// [`force`](Self::force), to change the value.
    ///
    /// # Panics
    ///
    /// As [`force`](Self::force).
    #[track_caller]
    pub fn force_mut(this: &mut Self) -> &mut T {
        Self::force(this);
        match Self::get_mut(this) {
            Some(value) => value,
            None => unreachable!("the value has been made"),
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it has been made.
    pub fn get(this: &Self) -> Option<&T> {
        this.once.get()
    }

    /// The value, if it has been made, to change it.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        this.once.get_mut()
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        Self::force(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("LazyLock");
        match self.once.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}

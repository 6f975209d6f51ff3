//! `coroutine_local!`: one value for each coroutine.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use crate::engine::current;
use crate::engine::task::Locals;

thread_local! {
    // The values of this thread, when it is a plain one.
    static LOCALS: RefCell<Locals> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with the values of this coroutine, or else of this thread. `None` if the thread is
/// ending and they are destroyed. `f` must be short and run no user code.
fn with_locals<R>(f: impl FnOnce(&mut Locals) -> R) -> Option<R> {
    current::with(|task| match task {
        Some(task) => Some(f(&mut task.locals().borrow_mut())),
        None => LOCALS.try_with(|locals| f(&mut locals.borrow_mut())).ok(),
    })
}

/// A key for values of which each coroutine has its own. Made by
/// [`coroutine_local!`](crate::coroutine_local).
///
/// A coroutine's value is made at its first use. It is dropped when the coroutine has ended, in no
/// particular order. On a plain thread, the value belongs to the thread.
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

/// Declares values of which each coroutine has its own, with the syntax of
/// [`thread_local!`](std::thread_local).
///
/// ```
/// use std::cell::Cell;
///
/// plainsong::coroutine_local! {
///     static REQUEST: Cell<u32> = Cell::new(0);
/// }
///
/// plainsong::run(|| {
///     REQUEST.with(|request| request.set(7));
///     let child = plainsong::spawn(|| REQUEST.with(Cell::get));
///     assert_eq!(child.join().unwrap(), 0);
///     assert_eq!(REQUEST.with(Cell::get), 7);
/// });
/// ```
#[macro_export]
macro_rules! coroutine_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr);* $(;)?) => {
        $($(#[$attribute])* $visibility static $name: $crate::LocalKey<$type> =
            $crate::LocalKey::__new(|| $init);)*
    };
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `f` with this coroutine's value.
    ///
    /// # Panics
    ///
    /// On a plain thread that is ending, when the value was already destroyed.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// Calls `f` with this coroutine's value.
    ///
    /// # Errors
    ///
    /// On a plain thread that is ending, when the value was already destroyed.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let key = ptr::from_ref(self).addr();
        let find = |locals: &mut Locals| {
            let found = locals.iter().find(|(other, _)| *other == key);
            found.map(|(_, value)| Rc::clone(value))
        };
        let value = match with_locals(find).ok_or(AccessError(()))? {
            Some(value) => value,
            None => {
                // The initialiser is user code, which may use this key or wait. So no borrow is
                // held.
                let made: Rc<dyn Any> = Rc::new((self.init)());
                let keep = |locals: &mut Locals| {
                    // If the initialiser itself has made a value, user code has seen that one, so
                    // it stays.
                    find(locals).unwrap_or_else(|| {
                        locals.push((key, Rc::clone(&made)));
                        Rc::clone(&made)
                    })
                };
                with_locals(keep).ok_or(AccessError(()))?
            }
        };
        match value.downcast::<T>() {
            Ok(value) => Ok(f(&value)),
            Err(_) => unreachable!("a key's address leads to a value of its type"),
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets this coroutine's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    pub fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }

    /// A copy of this coroutine's value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes this coroutine's value, and leaves the default.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets this coroutine's value, and returns the old one.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with this coroutine's value, borrowed.
    ///
    /// # Panics
    ///
    /// When the value is mutably borrowed, and as [`with`](Self::with).
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with this coroutine's value, mutably borrowed.
    ///
    /// # Panics
    ///
    /// When the value is borrowed, and as [`with`](Self::with).
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// plainsong::coroutine_local! {
    ///     static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// }
    ///
    /// SEEN.with_borrow_mut(|seen| seen.push(7));
    /// assert_eq!(SEEN.take(), [7]);
    /// ```
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets this coroutine's value.
    ///
    /// # Panics
    ///
    /// When the value is borrowed, and as [`with`](Self::with).
    pub fn set(&'static self, value: T) {
        self.replace(value);
    }

    /// Takes this coroutine's value, and leaves the default.
    ///
    /// # Panics
    ///
    /// When the value is borrowed, and as [`with`](Self::with).
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets this coroutine's value, and returns the old one.
    ///
    /// # Panics
    ///
    /// When the value is borrowed, and as [`with`](Self::with).
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The error of [`LocalKey::try_with`]: the thread is ending, and the value was destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError(());

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a coroutine_local! value was used while its thread was ending")
    }
}

impl Error for AccessError {}

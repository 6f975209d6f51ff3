//! Values that each coroutine has its own of.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::ptr;
use std::rc::Rc;

use crate::engine::current;
use crate::engine::task::Locals;

thread_local! {
    // The values of a plain thread.
    static LOCALS: RefCell<Locals> = const { RefCell::new(Vec::new()) };
}

/// Calls `f`, which must be short and run no user code, with the values of this coroutine or else
/// of this thread. `None` when the thread is ending and they are gone.
fn with_locals<R>(f: impl FnOnce(&mut Locals) -> R) -> Option<R> {
    current::with(|task| match task {
        Some(task) => Some(f(&mut task.locals().borrow_mut())),
        None => LOCALS.try_with(|locals| f(&mut locals.borrow_mut())).ok(),
    })
}

/// A value that each coroutine has its own of; made by
/// [`coroutine_local!`](crate::coroutine_local).
///
/// A coroutine's value is made at its first use and dropped when the coroutine has ended, in no
/// promised order. On a plain thread the value is the thread's.
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

/// Declares values that each coroutine has its own of, with the syntax of
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
    /// On a plain thread that is ending, when the value is gone already.
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
    /// On a plain thread that is ending, when the value is gone already.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let key = ptr::from_ref(self).addr();
        let find = |locals: &mut Locals| {
            let found = locals.iter().find(|(other, _)| *other == key);
            found.map(|(_, value)| Rc::clone(value))
        };
        let value = match with_locals(find).ok_or(AccessError(()))? {
            Some(value) => value,
            None => {
                // Any code, so no borrow is held: it may use this key itself, or wait.
                let made: Rc<dyn Any> = Rc::new((self.init)());
                let keep = |locals: &mut Locals| {
                    // What it made for itself has been seen, and stays.
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

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The value of a [`LocalKey`] is gone: its thread is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessError(());

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a coroutine_local! value was used while its thread was ending")
    }
}

impl Error for AccessError {}

//! `coroutine_local!`: one value for each coroutine.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::rc::Rc;

use crate::engine::current;
use crate::engine::task::{Local, Locals, drop_each, forget_each};

thread_local! {
    static OF_THREAD: OfThread = const { OfThread::new() };
    // Drops the values of this thread when it ends.
    static END: End = const { End };
}

/// The values of a thread, when it is a plain one. It has no destructor, because those of the
/// values may use other values.
struct OfThread {
    values: ManuallyDrop<RefCell<Locals>>,
    are_dropped: Cell<bool>,
}

impl OfThread {
    const fn new() -> Self {
        let values = ManuallyDrop::new(RefCell::new(Vec::new()));
        Self { values, are_dropped: Cell::new(false) }
    }
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        OF_THREAD.with(|thread| {
            drop_each(&thread.values, drop);
            thread.are_dropped.set(true);
            forget_each(thread.values.take());
        });
    }
}

/// Calls `f` with the values of this coroutine, or else of this thread. `None` if the thread is
/// ending and they are destroyed. `f` must be short and run no user code.
fn with_locals<R>(f: impl FnOnce(&mut Locals) -> R) -> Option<R> {
    current::with(|task| match task {
        Some(task) => Some(f(&mut task.locals().borrow_mut())),
        None => OF_THREAD.with(|thread| {
            // Has it dropped when the thread ends. While it is dropped, there is no need.
            _ = END.try_with(|_| ());
            (!thread.are_dropped.get()).then(|| f(&mut thread.values.borrow_mut()))
        }),
    })
}

/// A key for values of which each coroutine has its own. Made by
/// [`coroutine_local!`](crate::coroutine_local).
///
/// A coroutine's value is made at its first use. It is dropped when the coroutine has ended, in no
/// particular order; values without a destructor come last. Destructors may use values that are not
/// dropped yet, and make new ones, up to sixteen times. On a plain thread, the value belongs to the
/// thread.
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
    // Invariant, since the address of a key stands for one type.
    value: PhantomData<fn(T)>,
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
        Self { init, value: PhantomData }
    }

    /// Calls `f` with this coroutine's value.
    ///
    /// # Panics
    ///
    /// On a plain thread that is ending, when its values were already dropped.
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
    /// On a plain thread that is ending, when its values were already dropped.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let key = ptr::from_ref(self).addr();
        let find = |locals: &mut Locals| {
            let found = locals.iter().find(|local| local.key == key);
            found.map(|local| Rc::clone(&local.value))
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
                        let (value, needs_drop) = (Rc::clone(&made), mem::needs_drop::<T>());
                        locals.push(Local { key, value, needs_drop });
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
        f.write_str("a coroutine_local! value was used after those of its thread were dropped")
    }
}

impl Error for AccessError {}

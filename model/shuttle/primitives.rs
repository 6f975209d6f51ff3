//! shuttle's primitives in the shape of std's.

pub(crate) use shuttle::{
    hint,
    sync::atomic,
    sync::{Condvar, Mutex, MutexGuard},
    thread_local,
};

/// Threads, with a `scope` of our own: shuttle's ends whatever wait its owner is in when the last
/// thread ends, and has no builders.
pub(crate) mod thread {
    #![allow(unsafe_code)]

    use std::cell::RefCell;
    use std::io;
    use std::marker::PhantomData;
    use std::mem;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::{Arc, Mutex};

    pub(crate) use shuttle::thread::{Builder, JoinHandle, Result, sleep, yield_now};

    /// A thread that nobody has joined yet.
    type Thread = Arc<Mutex<Option<JoinHandle<()>>>>;

    pub(crate) struct Scope<'scope, 'env: 'scope> {
        threads: RefCell<Vec<Thread>>,
        scope: PhantomData<&'scope mut &'scope ()>,
        env: PhantomData<&'env mut &'env ()>,
    }

    pub(crate) struct ScopedJoinHandle<'scope> {
        thread: Thread,
        scope: PhantomData<&'scope ()>,
    }

    impl ScopedJoinHandle<'_> {
        pub(crate) fn join(self) -> Result<()> {
            let thread = self.thread.lock().unwrap().take();
            thread.map_or(Ok(()), JoinHandle::join)
        }
    }

    pub(crate) fn scope<'env, T>(
        f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
    ) -> T {
        let scope = Scope { threads: RefCell::default(), scope: PhantomData, env: PhantomData };
        let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
        for thread in scope.threads.take() {
            ScopedJoinHandle { thread, scope: PhantomData }.join().unwrap();
        }
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// [`Builder::spawn_scoped`](std::thread::Builder::spawn_scoped).
    pub(crate) trait SpawnScoped {
        fn spawn_scoped<'scope>(
            self,
            scope: &'scope Scope<'scope, '_>,
            f: impl FnOnce() + Send + 'scope,
        ) -> io::Result<ScopedJoinHandle<'scope>>;
    }

    impl SpawnScoped for Builder {
        fn spawn_scoped<'scope>(
            self,
            scope: &'scope Scope<'scope, '_>,
            f: impl FnOnce() + Send + 'scope,
        ) -> io::Result<ScopedJoinHandle<'scope>> {
            let f: Box<dyn FnOnce() + Send + 'scope> = Box::new(f);
            // SAFETY: `scope` joins the thread before it returns, so the borrows outlive it.
            let f: Box<dyn FnOnce() + Send> = unsafe { mem::transmute(f) };
            let thread = Arc::new(Mutex::new(Some(self.spawn(f)?)));
            scope.threads.borrow_mut().push(Arc::clone(&thread));
            Ok(ScopedJoinHandle { thread, scope: PhantomData })
        }
    }
}

#[path = "../local.rs"]
mod local;
pub(crate) use local::{Initial, LocalCell};

impl<T: Copy + Initial> LocalCell<T> for shuttle::thread::LocalKey<std::cell::Cell<T>> {
    fn get(&'static self) -> T {
        self.try_with(std::cell::Cell::get).unwrap_or(T::INITIAL)
    }

    fn set(&'static self, value: T) {
        // At the end of a thread, the value may already be destroyed.
        let _ = self.try_with(|cell| cell.set(value));
    }

    fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

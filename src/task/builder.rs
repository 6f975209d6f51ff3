//! `Builder`: the settings of a coroutine before it is spawned.

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::body::Body;
use super::join::JoinHandle;
use super::scope::{Scope, ScopedJoinHandle};
use super::spawn::{self, spawn_here, spawn_in_run};
use crate::engine::spawn::Spec;
use crate::engine::stack;
use crate::engine::workers::Injector;

/// Spawns a coroutine with a name or another stack size.
///
/// ```
/// plainsong::run(|| {
///     let deep = plainsong::Builder::new().name("deep").stack_size(8 << 20).spawn(|| {
///         plainsong::current().name().map(str::to_owned)
///     });
///     assert_eq!(deep.unwrap().join().unwrap().as_deref(), Some("deep"));
/// });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    name: Option<Arc<str>>,
    stack_size: Option<usize>,
    borrows: bool,
}

impl Builder {
    /// A builder with nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the coroutine, for reports and messages. An `Arc<str>` is not copied, which makes many
    /// coroutines of one name cheaper.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the size of the coroutine's stack in bytes, which is rounded up to a power of two. The
    /// stack uses memory only as far as it is touched.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Starts the coroutine.
    ///
    /// # Errors
    ///
    /// Outside of a runtime. `InvalidInput` for a stack size below 16 KiB or above 1 GiB. When the
    /// system has no room for another stack.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: Body<T> + 'static,
        T: 'static,
    {
        let spec = self.spec(Location::caller());
        spawn_here(spec, f)
    }

    /// Starts the coroutine in a [`scope`](crate::scope), where it may borrow.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size below 16 KiB or above 1 GiB. When the system has no room for
    /// another stack.
    ///
    /// ```
    /// plainsong::run(|| {
    ///     let text = String::from("plain song");
    ///     let len = plainsong::scope(|s| {
    ///         let builder = plainsong::Builder::new().name("counts");
    ///         let counts = builder.spawn_scoped(s, || text.len());
    ///         counts.unwrap().join().unwrap()
    ///     });
    ///     assert_eq!(len, 10);
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: Body<T> + 'scope,
        T: 'scope,
    {
        scope.spawn_with(self.spec(Location::caller()), f)
    }

    /// Starts the coroutine on any worker: see [`spawn_anywhere`](crate::spawn_anywhere).
    ///
    /// # Errors
    ///
    /// Outside of a runtime. `InvalidInput` for a stack size below 16 KiB or above 1 GiB.
    #[track_caller]
    pub fn spawn_anywhere<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: Body<T> + Send + 'static,
        T: Send + 'static,
    {
        let spec = self.spec(Location::caller());
        let stack_size = spec.stack_size.map(stack::check_size).transpose()?;
        spawn_in_run(Spec { stack_size, ..spec }, f)
    }

    /// Starts the coroutine on the current run of the injector's runtime, or on its next one.
    #[track_caller]
    pub(crate) fn inject<F, T>(self, injector: &Arc<Injector>, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let spec = self.spec(Location::caller());
        let stack_size = spec.stack_size.map(stack::check_size).transpose()?;
        spawn::inject(injector, Spec { stack_size, ..spec }, f)
    }

    /// Says that the coroutine borrows from other stacks, so that nothing abandons it. For the
    /// scope of plainsong-std only: its types hide the borrows.
    #[doc(hidden)]
    pub fn __borrows(mut self) -> Self {
        self.borrows = true;
        self
    }

    fn spec(self, spawned: &'static Location<'static>) -> Spec {
        let Self { name, stack_size, borrows } = self;
        Spec { name, stack_size, borrows, ..Spec::at(spawned) }
    }
}
